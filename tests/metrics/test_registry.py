"""One descriptor a metric: what shows metrics shows those of the registry, and no others."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from latex2mathml.converter import convert

import tightframe as tf
from tightframe.capture.layers import report_scalars
from tightframe.metrics import ClassMoments, CollapseMetric, CollapseReport
from tightframe.metrics.registry import (
    BY_KEY,
    KINDS,
    LEADING,
    METRICS,
    NEEDS,
    TO_TARGET,
    documented,
    of_fan,
)
from tightframe.metrics.targets import TARGET_PARTS
from tightframe.training import history_columns

PAGE = Path(__file__).parents[2] / "docs" / "api" / "metrics.md"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 4
    x = rng.normal(size=(4, 6))[y] + 0.3 * rng.normal(size=(60, 6))
    return x, y, rng.normal(size=(4, 6)), rng.normal(size=4)


@pytest.fixture(scope="module")
def report(data):
    """Return a report of which everything was measured."""
    x, y, w, b = data
    problem = tf.Problem([15] * 4, weight_decay=0.01, feature_decay=0.01, bias="free")
    moments = ClassMoments(4).update(x, y)
    options = {"features": x, "labels": y, "ood": x[:5], "groups": [0, 0, 1, 1]}
    return CollapseReport.measure(moments, w, b, problem=problem, **options)


def test_descriptors_are_complete():
    assert len(BY_KEY) == len(METRICS)
    for metric in METRICS:
        assert metric.key.isidentifier()
        assert metric.label
        assert metric.formula
        assert metric.says
        assert set(metric.needs) <= set(NEEDS)
        assert metric.kind in KINDS
        assert "\\" not in convert(metric.latex)  # where the site has an unknown command left
        assert bool(metric.parts) == (metric.fan not in ("once", "pairs"))
    assert [metric.place for metric in LEADING] == list(range(1, len(LEADING) + 1))


def test_a_report_has_every_metric_and_no_other(report):
    rows = {(row.metric, row.part) for row in report.rows}
    assert rows == {(m.key, part) for m in METRICS for part in m.parts or ("",)}
    for metric in of_fan("once"):
        assert getattr(report, metric.key) == report.numbers[metric.key]
        assert metric.key in dir(report)
        assert metric.key in report.to_dict()
    with pytest.raises(AttributeError, match="nc9"):
        _ = report.nc9


def test_numbers_are_of_the_kind_that_their_rows_say(data, report):
    x, y, w, b = data
    # Means far from one another and from the classifier: cosines of either sign, distances near 2.
    odd = CollapseReport.measure(ClassMoments(4).update(-x, y), w, -b, features=-x, labels=y)
    deep = CollapseReport.measure(ClassMoments(4).update(x, y), weights=[w[:, :3].T @ w, w[:, :3]])
    rows = [*report.rows, *odd.rows, *deep.rows]
    for row in rows:
        low, high = KINDS[row.kind]
        assert low - 1e-12 <= row.value <= high + 1e-12, row
    assert any(row.value < 0 for row in rows if row.kind == "cosine")
    assert {row.metric for row in rows if row.kind == "distance"} > TO_TARGET
    # What has the part and the target of a distance, and is none, says so.
    assert {row.kind for row in rows if row.target and row.metric not in TO_TARGET} == {
        *("difference of cosines", "cosine", "norm", "distance")
    }


def test_targets_parts_are_those_of_the_metrics():
    assert tuple(part for m in of_fan("target") for part in m.parts) == TARGET_PARTS


def test_what_was_not_given_is_not_measured(data):
    x, y, w, _ = data
    report = CollapseReport.measure(ClassMoments(4, scatter=False).update(x, y), w)
    absent = {key for key, value in report.numbers.items() if value is None}
    optional = {"scatter", "features", "labels", "ood", "problem"}
    assert absent == {m.key for m in of_fan("once") if optional & set(m.needs)}
    assert absent.isdisjoint(row.metric for row in report.rows)


@pytest.mark.parametrize("classifier", [None, "given"])
def test_torchmetrics_has_the_streaming_ones(data, report, classifier):
    x, y, w, b = data
    metric = CollapseMetric(4, classifier=None if classifier is None else (w, b))
    metric.update(x, y)
    found = metric.compute()
    named = {name.removesuffix("_classifier") for name in found}
    streaming = [m for m in METRICS if m.streaming]
    if classifier is None:
        streaming = [m for m in streaming if "classifier" not in m.needs]
    assert named == {m.key for m in streaming}
    for name in named & set(report.numbers):
        assert float(found[name]) == pytest.approx(report.numbers[name], rel=1e-10)


def test_histories_have_the_leading_ones():
    columns = history_columns(2)
    first = columns.index(LEADING[0].key)
    assert columns[first : first + len(LEADING)] == [metric.key for metric in LEADING]


def test_a_probes_numbers_are_those_of_the_features_alone(report):
    everything, features = report_scalars(report), report_scalars(report, probe=True)
    # What is measured of the class means alone does not change with the classifier.
    assert set(features) < set(everything)
    for left_out in ("self_duality", "equinorm_classifier", "alignment_mean", "bias_alignment"):
        assert left_out in everything
        assert left_out not in features


def test_the_documented_table_is_the_registrys():
    text = PAGE.read_text(encoding="utf-8")
    assert documented() in text, f"docs/api/metrics.md: put this table there:\n{documented()}"


def test_it_loads_no_torch():
    code = "import tightframe.metrics.registry, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
