"""Features out of anybody's network."""
