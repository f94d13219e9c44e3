"""Closed forms, one module a theorem family.

Each has ``NAME``, ``applies(problem)``, ``solve(problem)`` (block logits and a bias per group) and
``lower_bound(problem)``: the theorem's own bound of the objective over ALL candidates, evaluated
apart from the point, or None where the duality gap of the convex form certifies the point.
"""

from tightframe.theory.closed_form import balanced, deep_linear, relu

FAMILIES = (balanced, relu, deep_linear)

__all__ = ["FAMILIES", "balanced", "deep_linear", "relu"]
