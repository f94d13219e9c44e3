"""Closed forms, one module a theorem family; `tightframe.theory.coverage` says where each applies.

Each has ``NAME``, ``solve(problem)`` (block logits and a bias per group) and
``lower_bound(problem)``: the theorem's own bound of the objective over ALL candidates, evaluated
apart from the point, or None where the duality gap of the convex form certifies the point.
"""
