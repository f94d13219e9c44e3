"""Phase diagrams against the closed-form thresholds and against single solves."""

import json
import math

import numpy as np
import pytest

import tightframe as tf
from tightframe.data import step_counts
from tightframe.sweeps import grid as grid_module
from tightframe.sweeps.grid import Grid, run_grid
from tightframe.sweeps.phase import PhaseDiagram, step_rows

DECAYS = np.geomspace(2e-4, 5e-2, 9)
RATIOS = [1, 2, 10, 40.2]


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"bias": "free"},
        {"bias": "decayed", "bias_decay": 0.05},
        {"loss": "mse"},
        {"features": "nonnegative"},
    ],
)
def test_the_minority_collapses_from_the_threshold_on(kind):
    d = tf.phase_diagram(6, DECAYS, RATIOS, minority=12, fraction=0.34, **kind)
    assert set(d.status.ravel()) == {"optimal"}
    assert d.counts[1] == "24x4,12x2"
    np.testing.assert_array_equal(d.ratios, [1, 2, 10, 482 / 12])
    factor = math.sqrt(5 / 6) if kind.get("features") == "nonnegative" else 1
    for i, ratio in enumerate(d.ratios):
        total = 12 * (4 * ratio + 2)
        threshold = factor * math.sqrt(12) / total
        assert d.minority_threshold[i] == pytest.approx(threshold)
        assert d.majority_threshold[i] == pytest.approx(factor * math.sqrt(12 * ratio) / total)
        np.testing.assert_array_equal(d.minority_collapsed[i], threshold <= DECAYS)
    np.testing.assert_array_equal(d.minority_collapsed, d.minority_margin == 0)
    assert (d.majority_margin >= d.minority_margin - 1e-6).all()
    np.testing.assert_array_equal(d.minority_margin[0], d.majority_margin[0])  # balanced
    assert (d.rank[DECAYS[None] >= d.total_collapse[:, None]] == 0).all()


@pytest.mark.parametrize("changes", [{"label_smoothing": 0.2}, {"feature_weights": "contexts"}])
def test_smoothing_and_feature_weights_move_the_thresholds(changes):
    """Solves at 0.999 and 1.001 of each say so."""
    d = tf.phase_diagram(4, [1e-3], [3], minority=10, **changes)
    for group, place in enumerate((d.majority_threshold[0], d.minority_threshold[0])):
        below, above = (
            tf.solve(tf.Problem("30x2,10x2", weight_decay=at, feature_decay=at, **changes))
            for at in (0.999 * place, 1.001 * place)
        )
        assert below.blocks.within[group] > 0 == above.blocks.within[group]
    margin = tf.solve(
        tf.Problem("30x2,10x2", weight_decay=1e-3, feature_decay=1e-3, **changes)
    ).group_margins[1]
    assert d.minority_margin[0, 0] == pytest.approx(margin, abs=1e-4)


def test_cells_are_single_solutions():
    d = tf.phase_diagram(5, DECAYS, [3, 7], majority=70, bias="free")
    for i, counts in enumerate(d.counts):
        for j, decay in enumerate(DECAYS):
            one = tf.solve(
                tf.Problem(counts, weight_decay=10 * decay, feature_decay=decay / 10, bias="free")
            )
            assert d.majority_margin[i, j] == pytest.approx(one.group_margins[0], abs=1e-4)
            assert d.minority_margin[i, j] == pytest.approx(one.group_margins[-1], abs=1e-4)
            assert d.majority_collapsed[i, j] == one.group_collapsed[0]
            assert d.rank[i, j] == one.rank


def test_processes_give_the_same_diagram():
    arguments = (4, DECAYS[:3], [1, 5])
    one, two = (tf.phase_diagram(*arguments, majority=50, jobs=jobs) for jobs in (1, 2))
    np.testing.assert_allclose(one.minority_margin, two.minority_margin, atol=1e-6)


def test_step_rows_agree_with_step_counts():
    rows, ratios = step_rows(10, [1, 4, 100], majority=100, fraction=0.3)
    assert rows == ["100x10", "100x7,25x3", "100x7,1x3"]
    assert ratios == [1, 4, 100]
    for text, ratio in zip(rows, ratios, strict=True):
        counts = step_counts(10, 100, ratio=ratio, fraction=0.3)
        assert tf.Problem(text, weight_decay=1, feature_decay=1).counts.tolist() == list(counts)
    assert step_rows(4, [2.6], minority=10) == (["26x2,10x2"], [2.6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"majority": None}, "majority, minority: give exactly one"),
        ({"feature_weights": "1x3,2x1"}, "feature_weights: got '1x3,2x1', allowed are samples"),
        ({"minority": 3}, "majority, minority: give exactly one"),
        ({"majority": None, "minority": 0}, "minority: got 0"),
        ({"majority": None, "minority": 3, "ratios": [0.5]}, "ratio: got 0.5"),
        ({"majority": None, "minority": 3, "ratios": [1e300]}, "ratio: got 1e.300"),
        ({"ratios": [0.5]}, "ratio: got 0.5"),  # of `step_counts`
        ({"ratios": []}, "ratios: got none"),
        ({"ratios": 2}, "ratios: got 2, need a sequence of numbers"),
        ({"ratios": np.array(2.0)}, r"ratios: got array\(2.\), need a sequence of numbers"),
        ({"logit_decays": 0.1}, "logit_decays: got 0.1, need a sequence of numbers"),
        ({"logit_decays": "0.1"}, "logit_decays: got '0.1', need a sequence of numbers"),
        ({"ratios": [50, 50.1]}, "ratios: 50.1 and an earlier one both give counts 100x3,2x2"),
        ({"logit_decays": []}, "logit_decays: got none"),
        ({"logit_decays": [-1]}, "logit_decays: got -1"),
        ({"bias": "decayed"}, "bias_decay: missing"),
        ({"jobs": 0}, "jobs: got 0"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    good = {"num_classes": 5, "logit_decays": [1e-3], "ratios": [2], "majority": 100}
    with pytest.raises(ValueError, match=message):
        tf.phase_diagram(**(good | changes))


def test_a_failed_row_is_blank(monkeypatch):
    path = grid_module.path

    def failing(problem, **options):
        if problem.compact_counts.startswith("20"):
            raise ValueError("no")
        return path(problem, **options)

    monkeypatch.setattr(grid_module, "path", failing)
    d = tf.phase_diagram(4, DECAYS[:2], [1, 2], minority=10)
    assert d.status.tolist() == [["optimal"] * 2, ["failed"] * 2]
    assert np.isnan(d.minority_margin[1]).all()
    assert d.rank[1].tolist() == [-1, -1]
    assert np.isnan(d.minority_threshold[1])
    plain = json.loads(json.dumps(d.to_dict(), allow_nan=False))
    assert plain["minority_margin"][1] == [None, None]
    assert plain["counts"] == ["10x4", "20x2,10x2"]


def test_a_lone_minority_class_has_no_threshold_of_its_own():
    d = tf.phase_diagram(4, [1e-3], [2], minority=10, fraction=0.25)
    expected = tf.thresholds(tf.Problem(d.counts[0], weight_decay=1e-3, feature_decay=1e-3))
    limit = expected.groups[-1].logit_decay
    np.testing.assert_array_equal(d.minority_threshold, [math.nan if limit is None else limit])


def test_a_grid_without_ratios_is_no_phase_diagram():
    grid = Grid(
        tf.Problem("5x3", weight_decay=1, feature_decay=1), {"weight_decay": [1e-3]}, ["5x3"]
    )
    with pytest.raises(ValueError, match="grid: has no ratios"):
        PhaseDiagram.from_rows(grid, run_grid(grid))
