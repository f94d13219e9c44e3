"""Merging of contexts and labels is exact; what is not equal is not merged."""

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.sparse import csr_array

from tests.reference.contexts import objective
from tests.theory.contexts.cases import forms
from tightframe.theory.contexts.form import ContextForm, merged


@settings(max_examples=25)
@given(forms())
def test_logits_of_the_merged_problem_cost_as_much_in_the_whole(form):
    small = merged(form)
    rng = np.random.default_rng(0)
    m, v = small.form.shape
    z = rng.normal(size=(m, v))
    b = rng.normal(size=v) if form.bias != "none" else np.zeros(v)
    whole = objective(form, z[small.context_of][:, small.label_of], b[small.label_of])
    assert objective(small.form, z, b) + small.constant == pytest.approx(whole, rel=1e-12)


def form_with(targets, weights, omega):
    v = targets.shape[1]
    return ContextForm(csr_array(targets), weights, omega, 0.01, np.ones(v), np.zeros(v))


def test_equal_contexts_merge_only_with_equal_curvature():
    targets = np.array([[0.3, 0.7, 0.0], [0.3, 0.7, 0.0], [0.0, 0.5, 0.5]])
    counts = np.array([7.0, 3.0, 1.0])
    together = merged(form_with(targets, counts / 11, counts))
    assert together.context_of.tolist() == [0, 0, 1]
    assert together.form.feature_weights.tolist() == [10.0, 1.0]
    apart = merged(form_with(targets, counts / 11, np.ones(3)))
    assert apart.context_of.tolist() == [0, 1, 2]


def test_labels_never_seen_are_one():
    targets = np.array([[0.5, 0, 0.5, 0, 0], [0, 0, 1.0, 0, 0]])
    small = merged(form_with(targets, np.array([0.4, 0.6]), np.ones(2)))
    assert small.label_of.tolist() == [0, 1, 2, 1, 1]
    assert small.form.label_weights.tolist() == [1.0, 3.0, 1.0]


def test_proportional_rows_are_not_merged():
    targets = np.array([[0.2, 0.4, 0.4], [0.1, 0.2, 0.7]])
    small = merged(form_with(targets, np.array([0.5, 0.5]), np.ones(2)))
    assert small.label_of.tolist() == [0, 1, 2]
