"""Contexts with label distributions: the convex problem, its merging and its certificate."""
