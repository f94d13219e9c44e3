"""HTML pages and LaTeX tables."""
