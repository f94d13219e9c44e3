"""The multi-start search for problems that are not convex."""
