"""A package a paper, a module a figure; `tightframe.reproduce.spec.papers` finds them."""
