"""Relatives of the problem of `tightframe.solve`: other losses and heads, one module each."""
