"""Bounds of any candidate are below the minimum, and close at the minimiser."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.reference.contexts import objective
from tests.theory.contexts.cases import forms
from tightframe.solvers.contexts import minimise_contexts
from tightframe.theory.contexts.certificate import certify_logits, certify_with, collapse_decay
from tightframe.theory.contexts.form import merged


@settings(max_examples=25)
@given(forms(), st.integers(0, 1000), st.floats(-9, 1.5))
def test_no_bound_is_above_an_objective(form, seed, exponent):
    """A candidate near the minimiser, or far from it, bounds what the solver reaches."""
    rng = np.random.default_rng(seed)
    small = merged(form).form
    best = minimise_contexts(small, 1e-10, 2000)
    z = best.x.rows(slice(None)) * small.context_scale[:, None] * small.label_scale
    z = z + 10**exponent * rng.normal(size=z.shape)
    b = best.bias + (10**exponent * rng.normal(size=len(best.bias)) if form.bias != "none" else 0)
    primal, dual, rounding = certify_logits(small, z.T, b)
    assert primal == pytest.approx(objective(small, z, b), rel=1e-12)
    assert dual <= best.bounds.primal + best.bounds.rounding
    assert primal >= best.bounds.dual - rounding
    if exponent < -6:
        assert primal - dual < 1e-4 * primal


@settings(max_examples=20)
@given(forms(), st.integers(0, 1000), st.floats(-9, 1))
def test_no_dual_point_bounds_more_than_the_minimum(form, seed, exponent):
    """Any matrix is put among the dual points, whose value is below every objective."""
    small = merged(form).form
    best = minimise_contexts(small, 1e-10, 2000)
    residual = 10**exponent * np.random.default_rng(seed).normal(size=small.shape)
    bounds = certify_with(small, best.x, best.bias, residual, enough=1e-9)
    assert bounds.dual <= best.bounds.primal + best.bounds.rounding
    assert bounds.primal == best.bounds.primal


@settings(max_examples=12)
@given(forms())
def test_all_logits_vanish_from_the_collapse_decay_on(form):
    collapse, _ = collapse_decay(form)
    assume(collapse > 1e-6)  # else every context has the same targets
    small = merged(form)
    assert collapse == pytest.approx(collapse_decay(small.form)[0], rel=1e-9)

    def rank_at(decay):
        changed = dataclasses.replace(small.form, decay=decay)
        return minimise_contexts(changed, 1e-10, 2000).x.rank

    assert rank_at(1.001 * collapse) == 0
    assert rank_at(0.97 * collapse) > 0


def test_equal_labels_and_contexts_are_certified():
    """Their Gram matrices have one eigenvalue many times: LAPACK's driver for a few failed."""
    labels = 0.7 * np.eye(41) + 0.3 / 41
    options = {"weight_decay": 0.002201061176588904, "feature_decay": 0.002201061176588904}
    by_targets = tf.solve(tf.Problem("7x40,3", targets=labels, **options))
    smoothed = tf.solve(tf.Problem("7x40,3", label_smoothing=0.3, **options))
    assert by_targets.objective == pytest.approx(smoothed.objective, rel=2e-8)
    assert by_targets.status == "optimal"
