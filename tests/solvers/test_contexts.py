"""The solver of contexts: reference values, CVXPY, its certificate, warm starts."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.sparse import csr_array

from tests.reference.contexts import convex_minimum
from tests.theory.contexts.cases import forms
from tightframe.solvers.contexts import ContextOptions, minimise_contexts
from tightframe.theory.contexts.form import ContextForm, merged


@settings(max_examples=8)
@given(forms(most=4))
def test_minimum_is_that_of_cvxpy(form):
    small = merged(form)
    found = minimise_contexts(small.form, 1e-9, 3000)
    assert found.bounds.primal + small.constant == pytest.approx(convex_minimum(form), rel=3e-7)


@settings(max_examples=30)
@given(forms(most=8))
def test_every_member_is_certified(form):
    primal, dual, _ = minimise_contexts(merged(form).form, 1e-9, 3000).bounds
    assert primal - dual <= 1e-9 * primal


def zipf(labels, contexts, share):
    """The instances of the measurements that the method comes from: 5 labels a context."""
    rng = np.random.default_rng(0)
    seen = np.argpartition(rng.random((contexts, labels)), 5, axis=1)[:, :5]
    shares = rng.dirichlet(np.ones(5), contexts)
    targets = np.zeros((contexts, labels))
    np.put_along_axis(targets, seen, shares, axis=1)
    counts = np.ceil(1000 / (np.arange(contexts) + 1))
    a = counts / counts.sum()
    slope = (1 / labels - targets) * (a / np.sqrt(counts))[:, None]
    decay = share * np.linalg.norm(slope, 2)
    return ContextForm(csr_array(targets), a, counts, decay, np.ones(labels), np.zeros(labels))


@pytest.mark.parametrize(
    ("labels", "contexts", "objective", "rank"),
    [(20, 60, 1.692979059073, 17), (200, 1000, 2.513859274496, 92)],
)
def test_measured_instances(labels, contexts, objective, rank):
    found = minimise_contexts(merged(zipf(labels, contexts, 0.05)).form, 1e-10, 500)
    assert found.bounds.primal == pytest.approx(objective, rel=2e-10)
    assert found.x.rank == rank


def test_single_precision_ends_in_double():
    form = merged(zipf(60, 200, 0.02)).form
    single = minimise_contexts(form, 1e-11, 2000, options=ContextOptions(single_size=1))
    double = minimise_contexts(form, 1e-11, 2000)
    assert single.bounds.primal - single.bounds.dual <= 1e-11 * single.bounds.primal
    assert single.bounds.primal == pytest.approx(double.bounds.primal, rel=1e-11)


def test_a_warm_start_reaches_the_same_minimum():
    form = merged(zipf(20, 60, 0.05)).form
    there = dataclasses.replace(form, decay=0.7 * form.decay)
    start = minimise_contexts(form, 1e-9, 500).state
    warm, cold = minimise_contexts(there, 1e-9, 500, start), minimise_contexts(there, 1e-9, 500)
    assert warm.bounds.primal == pytest.approx(cold.bounds.primal, rel=2e-9)
    assert warm.bounds.primal - warm.bounds.dual <= 1e-9 * warm.bounds.primal


def test_few_iterations_say_what_they_reached():
    form = merged(zipf(20, 60, 0.05)).form
    found = minimise_contexts(form, 1e-12, 3)
    best = minimise_contexts(form, 1e-10, 500).bounds
    assert found.bounds.dual <= best.primal
    assert found.bounds.primal - found.bounds.dual > 1e-12
