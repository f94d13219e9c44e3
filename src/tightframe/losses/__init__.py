"""Losses: what is known about each, and how it is computed."""
