"""Grids of paths and phase diagrams."""
