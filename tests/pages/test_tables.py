from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import tightframe as tf
from tests.pages.conftest import COLLAPSED, FINISHED, MISSING, UNFINISHED
from tightframe.runs.store import RunRecord, SettingRecord, to_plain
from tightframe.runs.tables import (
    MetricRow,
    class_table_of,
    format_number,
    group_name,
    headline,
    metric_rows,
    overview,
    predicted_metrics,
    predicted_states,
    setting_thresholds,
)


def setting(run: RunRecord, name: str) -> SettingRecord:
    return next(s for s in run.settings if s.name == name)


def rows(run: RunRecord, name: str) -> dict[str, MetricRow]:
    return {row.key: row for row in metric_rows(setting(run, name))}


def test_rows_are_the_records_numbers(run: RunRecord) -> None:
    record, table = setting(run, FINISHED), rows(run, FINISHED)
    assert record.history is not None
    for key in ("objective", "excess", "train_accuracy", "nc1", "group0_margin", "group1_margin"):
        assert table[key].start == record.history[key].iloc[0]
        assert table[key].end == record.history[key].iloc[-1]
    assert table["objective"].to_predicted == record.history["excess"].iloc[-1]
    for part in ("logits", "classifier", "means", "centered_means"):
        row = table[f"{part}_to_predicted"]
        assert row.to_predicted == row.end == record.history[f"{part}_to_predicted"].iloc[-1]
        assert row.to_etf == record.history[f"{part}_to_etf"].iloc[-1]


def test_classes_are_those_of_the_final_network(run: RunRecord) -> None:
    """Two classes of the history are lost since epoch 300, one of them is rare in the test set."""
    record = setting(run, FINISHED)
    final, history = record.final, record.history
    assert final is not None
    assert history is not None
    weight = final["weight"].copy()
    weight[4:] = weight[0]  # whoever was there is taken for class 0, or tied with it
    history = history.copy()
    for k in range(6):
        low = (history.epoch >= 300) if k >= 4 else history.epoch < 0
        history[f"class{k}_train_accuracy"] = np.where(low, 0.0, 1.0)
        history[f"class{k}_test_accuracy"] = k / 10
    table = class_table_of(replace(record, final=final | {"weight": weight}, history=history))
    assert table is not None
    assert {row.label: row.held_out_recall for row in table} == {k: k / 10 for k in range(6)}
    assert {row.label for row in table.lost} >= {4, 5}
    assert {table.of(4).since, table.of(5).since} == {300}
    z = final["features"].astype(np.float64) @ weight.T.astype(np.float64)
    for k in range(1, 4):
        own = z[final["labels"] == k]
        assert table.of(k).accuracy == (own.argmax(axis=1) == k).mean()
    # Records of before have no such columns, and unfinished runs no network.
    plain = class_table_of(record)
    assert plain is not None
    assert {(row.since, row.held_out_recall) for row in plain} == {(None, None)}
    assert class_table_of(setting(run, UNFINISHED)) is None


def test_margin_rows_compare_with_the_prediction(
    run: RunRecord, solutions: dict[str, tf.Solution]
) -> None:
    table = rows(run, FINISHED)
    for i, margin in enumerate(solutions[FINISHED].group_margins):
        row = table[f"group{i}_margin"]
        assert row.end is not None
        assert row.to_predicted == abs(row.end - margin)


def test_undefined_metrics_are_none_and_infinite_ones_stay(run: RunRecord) -> None:
    table = rows(run, FINISHED)
    assert table["test_accuracy"].start is None
    assert table["test_accuracy"].end is None
    assert table["bias_alignment"].to_predicted is None
    assert table["cdnv"].end == float("inf")


def test_rows_are_plain(run: RunRecord) -> None:
    for record in run.settings:
        for row in metric_rows(record):
            assert all(type(v) in (str, float, type(None)) for v in row.to_dict().values())
            json.dumps(to_plain(row.to_dict()), allow_nan=False)


def test_unfinished_and_missing_settings_have_rows(run: RunRecord) -> None:
    partial = rows(run, UNFINISHED)
    assert partial["nc1"].end == pytest.approx(np.exp(-200 / 60))
    missing = metric_rows(setting(run, MISSING))
    assert missing
    assert all(row.start is row.end is row.to_predicted is row.to_etf is None for row in missing)


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_predicted_metrics_agree_with_the_vectors(bias: str, run: RunRecord) -> None:
    decay = 0.01 if bias == "decayed" else None
    problem = tf.Problem(
        "30x3,5x3", weight_decay=0.02, feature_decay=2e-4, bias=bias, bias_decay=decay
    )
    solution = tf.solve(problem)
    geometry = solution.geometry
    arrays = {
        "logits": geometry.logits,
        "bias": solution.bias,
        "classifier": geometry.classifier,
        "means": geometry.means,
    }
    record = SettingRecord("x", run.settings[0].paths, None, arrays, None, None, None)
    found = predicted_metrics(record)
    w, h = solution.weights[0], solution.class_means
    centered = (h - h.mean(axis=1, keepdims=True)).T
    expected = tf.normalized_distance(w, centered)
    assert found["self_duality"] == pytest.approx(expected, abs=1e-7)
    alignment = np.linalg.norm(solution.bias + w @ h.mean(axis=1))
    assert found["bias_alignment"] == pytest.approx(alignment, abs=1e-9)


def test_predicted_self_duality_of_balanced_classes_is_zero(run: RunRecord) -> None:
    etf = tf.simplex_etf(5)
    arrays = {"logits": etf.logits, "classifier": etf.classifier, "means": etf.means}
    arrays["bias"] = np.zeros(5)
    record = SettingRecord("x", run.settings[0].paths, None, arrays, None, None, None)
    assert predicted_metrics(record)["self_duality"] == pytest.approx(0, abs=1e-7)


def test_headlines(run: RunRecord) -> None:
    first = headline(setting(run, FINISHED))
    assert first.startswith("The logits end at distance")
    assert "above the certified bound" in first
    assert "1 of 2 class groups as predicted" in first
    assert "the prediction is not certified" in headline(setting(run, COLLAPSED))
    assert headline(setting(run, UNFINISHED)).startswith("Unfinished, measured up to epoch 200")
    assert headline(setting(run, MISSING)).startswith("Not started")
    for record in run.settings:
        assert "nan" not in headline(record).lower()
        assert "None" not in headline(record)


def test_overview_counts_settings(run: RunRecord) -> None:
    text = overview(run)
    assert "In 0 of 2 finished settings" in text
    assert "2 settings are unfinished" in text


def test_states_and_thresholds_are_the_theorys(run: RunRecord) -> None:
    assert predicted_states(setting(run, FINISHED)) == (
        "3 classes of 30 distinct, 3 classes of 5 distinct"
    )
    record = setting(run, FINISHED)
    assert record.problem is not None
    assert setting_thresholds(record) == tf.thresholds(record.problem)
    assert setting_thresholds(setting(run, MISSING)) is None


@pytest.mark.parametrize(
    ("terms", "name"),
    [
        ({}, "2 classes of 9"),  # as in records of version 0.1
        ({"class_weight": 1.0, "logit_adjustment": 0.0}, "2 classes of 9"),
        ({"class_weight": 5.0, "logit_adjustment": 0.0}, "2 classes of 9 with weight 5"),
        ({"class_weight": 1.0, "logit_adjustment": -0.25}, "2 classes of 9 with adjustment -0.25"),
        (
            {"class_weight": 0.5, "logit_adjustment": 2.0},
            "2 classes of 9 with weight 0.5 and adjustment 2",
        ),
    ],
)
def test_group_names(terms: dict[str, float], name: str) -> None:
    assert group_name({"count": 9, "classes": 2, **terms}) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (float("nan"), "n/a"),
        (float("inf"), "∞"),
        (float("-inf"), "-∞"),
        (-0.0, "0"),
        (0.614031234, "0.61403"),
        (3.5858e-10, "3.5858e-10"),
        (550, "550"),
    ],
)
def test_format_number(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_no_plotting_library_is_imported() -> None:
    code = (
        "import sys, tightframe.report, tightframe.runs.tables; "
        "print([m for m in ('matplotlib', 'plotly', 'jinja2', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_offers_its_two_functions() -> None:
    import tightframe.report
    from tightframe.pages import run as html
    from tightframe.runs import plots

    assert tightframe.report.write_report is html.write_report
    assert tightframe.report.save_plots is plots.save_plots
    with pytest.raises(AttributeError, match="nothing"):
        _ = tightframe.report.nothing  # type: ignore[attr-defined]
