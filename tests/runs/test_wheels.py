"""Wheels and trees of networks: measured marks, predicted rings, both where they are."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import tightframe as tf
from tightframe.geometry.states import measured_states
from tightframe.runs.wheels import setting_wheel
from tightframe.views.wheel import solution_wheel

PROBLEM = tf.Problem("30x3,5x3", weight_decay=0.02, feature_decay=0.0002, bias="free")


@pytest.fixture(scope="module")
def solution():
    return tf.solve(PROBLEM)


def drawn(ax, kind):
    return [
        [float(v[0]) for v in line.get_data()]
        for line in ax.lines
        if str(line.get_gid()).startswith(kind)
    ]


def test_a_prediction_alone(solution):
    fig, ax = tf.report.wheel(solution)
    seen = solution_wheel(solution).moments[0]
    np.testing.assert_allclose(drawn(ax, "mark"), seen.places)
    own = Figure().subplots()
    assert tf.report.wheel(solution, ax=own) == (own.figure, own)
    assert fig is not own.figure


def test_a_network_that_is_the_prediction_lies_in_its_rings(solution):
    logits, bias = solution.logits, solution.bias
    _, ax = tf.report.wheel(solution, (logits, bias))
    np.testing.assert_allclose(drawn(ax, "mark"), solution_wheel(solution).moments[0].places)
    rings = [line for line in ax.lines if len(line.get_xdata()) == 41]
    middles = [np.mean(np.array(line.get_data())[:, :-1], axis=1) for line in rings]
    np.testing.assert_allclose(middles, drawn(ax, "mark"), atol=1e-12)
    assert ax.get_title(loc="left") == f"Measured, λ = {PROBLEM.logit_decay:.3g}"


def test_a_report_s_classes(solution):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 8, generator=generator)
    labels = torch.arange(6).repeat_interleave(5)
    features = weight[labels] + 0.1 * torch.randn(30, 8, generator=generator)
    bias = 0.3 * torch.randn(6, generator=generator)
    moments = tf.metrics.ClassMoments(6).update(features, labels)
    report = tf.metrics.CollapseReport.measure(moments, weight, bias)
    _, ax = tf.report.wheel(solution, report)
    _, again = tf.report.wheel(solution, (report.geometry.logits, bias.numpy()))
    np.testing.assert_allclose(drawn(ax, "mark"), drawn(again, "mark"), atol=1e-6)


def test_bad_measurements(solution):
    with pytest.raises(ValueError, match="measured: got list, need a CollapseReport or a pair"):
        tf.report.wheel(solution, [1, 2])
    with pytest.raises(ValueError, match="solution: got int, need a tightframe"):
        tf.report.wheel(3)
    with pytest.raises(ValueError, match="logits: got <U1 entries, need numbers"):
        tf.report.wheel(solution, ("a", None))
    with pytest.raises(ValueError, match="bias: got <U1 entries, need numbers"):
        tf.report.wheel(solution, (np.eye(6), ["a"] * 6))
    with pytest.raises(ValueError, match=r"logits: got shape \(2, 2\), need \(6, 6\)"):
        tf.report.wheel(solution, (np.eye(2), None))


def test_networks_on_a_tree():
    problem = tf.Problem("30x3,5x3", weight_decay=0.02, feature_decay=0.0002)
    changes = tf.state_changes(problem)
    states = measured_states(problem, tf.solve(problem).logits)
    _, ax = tf.report.merge_tree(changes, {"A": (0.002, states), "B": (0.1, None)})
    texts = [text.get_text() for text in ax.texts]
    assert {"A", "B"} <= set(texts)
    assert "3 classes merge" in texts
    low, high = ax.get_xlim()
    assert low < 0.002 < 0.1 < high
    with pytest.raises(ValueError, match="networks: got 2 states of 'A', need one for each of 6"):
        tf.report.merge_tree(changes, {"A": (0.002, ["lost", "lost"])})
    for bad, message in (
        ([1], "networks: got list, need a mapping from letters"),
        ({"A": 0.1}, "networks: got 0.1 for 'A', need a pair"),
        ({"A": (-1, None)}, "networks: got -1, need a finite number above 0"),
        ({"A": (0.1, ["gone"] * 6)}, "networks: got 'gone', allowed are vanished, lost"),
    ):
        with pytest.raises(ValueError, match=message):
            tf.report.merge_tree(changes, bad)
    with pytest.raises(ValueError, match="targets"):
        tf.report.merge_tree(problem.replace(counts="9x3", targets=np.full((3, 3), 1 / 3)))


def test_a_setting_of_a_run():
    problem = tf.Problem("30x3,5x3", weight_decay=0.08, feature_decay=0.0008)
    solution = tf.solve(problem)
    arrays = {"logits": solution.logits, "bias": solution.bias}
    setting = SimpleNamespace(
        problem=problem,
        prediction_arrays=arrays,
        final=arrays,
        classes=None,
        history=None,
        on_text=False,
    )
    wheel = setting_wheel(setting)
    (moment,) = wheel.moments
    np.testing.assert_allclose(moment.rings, moment.places)
    assert moment.states == solution.states.state.tolist()
    setting.final = None
    assert setting_wheel(setting) is None
