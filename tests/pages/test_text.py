"""The report of a run on text: names, numbers and pictures, written out from its record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tightframe as tf
from tests.pages.conftest import HOSTILE
from tests.pages.test_run import FETCHING, Page
from tests.problems import SMALL_TEXT
from tightframe.pages.run import write_report
from tightframe.pages.tables import write_tables
from tightframe.problem.tokens import next_tokens, shown
from tightframe.runs import store
from tightframe.runs.panels import loss_charts
from tightframe.runs.plots import save_plots
from tightframe.runs.text_config import TextConfig
from tightframe.runs.text_pictures import law_charts, spectrum_chart, text_sheets, token_maps
from tightframe.runs.text_tables import (
    context_table,
    limit_sentences,
    merged_table,
    pair_table,
    text_headline,
    text_metric_table,
    text_overview,
    token_table,
)
from tightframe.runs.text_task import TextTask
from tightframe.runs.text_verdicts import text_verdicts
from tightframe.training.contexts import COLUMNS

FINISHED, STARTED, MISSING = "w0.02-h0.0002", "w0.03-h0.0003", "w0.04-h0.0004"
SETTINGS = [(0.02, 2e-4), (0.03, 3e-4), (0.04, 4e-4)]
NOISE = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished setting, one begun, one not: without a training."""
    out = tmp_path_factory.mktemp("text")
    (out / "cat.txt").write_text(SMALL_TEXT)
    config = TextConfig(data=str(out / "cat.txt"), min_count=5, settings=SETTINGS, epochs=9)
    task = TextTask(config)
    values = {**task.config.identity(), "data": f"text:{HOSTILE}"}
    store.write_json(
        store.run_file(out),
        {
            "format": store.FORMAT,
            "config": values,
            "config_hash": store.config_hash(values),
            "settings": config.setting_names,
            "environment": {"versions": {"numpy": "1.2.3"}},
        },
    )
    for name, problem in zip((FINISHED, STARTED), task.problems[:2], strict=True):
        paths, solution = store.setting_paths(out, name), tf.solve(problem)
        prediction, arrays = task.prediction(solution)
        prediction["text"] = prediction["text"] | {"source": HOSTILE}
        store.write_npz(paths.prediction_arrays, **arrays)
        store.write_json(paths.prediction, prediction | {"name": name})
        rows = [dict.fromkeys(COLUMNS, 1.0) | {"epoch": 0}]
        last = {"relative_excess": 2e-6, "logits_to_predicted": 0.003, "directions": 7.0}
        last |= {"beyond_rank": 0.5}
        rows.append(dict.fromkeys(COLUMNS, 0.005) | {"epoch": 9, "classifier_to_etf": 0.8} | last)
        store.write_parquet(paths.history, pd.DataFrame(rows))
        if name == FINISHED:
            noise = np.random.default_rng(0).normal(size=solution.weights[0].shape) * NOISE
            store.write_npz(
                paths.final,
                features=solution.class_means.T.astype(np.float32),
                weight=(solution.weights[0] + noise).astype(np.float32),
                bias=np.zeros(problem.num_classes, np.float32),
            )
            verdicts = text_verdicts(solution.rank, rows[-1])
            result = {"name": name, "verdicts": verdicts, "seconds": 3.5, "finished": True}
            store.write_json(paths.result, result)
    return out


@pytest.fixture(scope="module")
def settings(folder: Path) -> tuple[store.SettingRecord, ...]:
    return store.load_run(folder).settings


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


FOUND = next_tokens(SMALL_TEXT.strip(), 2, 5)
COUNTS = FOUND.counts.toarray()


def test_the_page_is_closed_escaped_and_asks_for_nothing(page: Page) -> None:
    for tag, attrs in page.tags:
        assert not any(str(attrs.get(name, "#"))[:1] != "#" for name in FETCHING if tag != "data")
    assert HOSTILE in page.text
    assert not [attrs for tag, attrs in page.tags if attrs.get("src") == "http://evil.example/x"]


def test_every_token_and_context_is_in_the_page_by_name(page: Page) -> None:
    for token in FOUND.labels:
        assert shown(token) in page.cells
    for context in FOUND.contexts:
        assert "".join(context).replace(" ", "␣") in page.cells
    assert "Contexts of 2 tokens that are seen 5 times or more" in page.text
    assert "5 of 5 as predicted" not in page.text  # half of the logits is beyond the rank
    assert "Unfinished, measured up to epoch 9" in page.text
    assert "This setting was not started." in page.text


def test_plots_have_their_places(page: Page) -> None:
    places = {attrs["data-plot"] for tag, attrs in page.tags if "data-plot" in attrs}
    assert places == set(page.plots)
    assert {"s0-excess", "s0-spectrum", "s0-heat-predicted", "s0-heat-measured"} <= places
    assert "s1-heat-measured" not in places
    pointed = page.plots["s0-heat-predicted"]["data"][0]["customdata"]
    names = [row[0].partition(", ")[0] for row in pointed]
    assert sorted(names) == sorted(map(shown, FOUND.labels))
    assert pointed[1][2] == f"{names[1]}, {names[2]}"


def rows_of(table: Any) -> dict[str, dict[str, Any]]:
    assert table is not None
    heads = [column.name for column in table.heads]
    return {row[0]: dict(zip(heads, row, strict=True)) for row in table.rows}


def test_contexts_against_counts(settings: tuple[store.SettingRecord, ...]) -> None:
    rows = rows_of(context_table(settings[0]))
    solution = tf.solve(settings[0].problem)
    laws = np.exp(solution.logits) / np.exp(solution.logits).sum(axis=0)
    h = solution.class_means / np.linalg.norm(solution.class_means, axis=0)
    cosines = h.T @ h - 2 * np.eye(h.shape[1])
    for j, context in enumerate(FOUND.contexts):
        row = rows["".join(context).replace(" ", "␣")]
        total = COUNTS[:, j].sum()
        assert row["seen"] == total
        first = int(np.argmax(COUNTS[:, j]))
        name = shown(FOUND.labels[first])
        assert row["next, text"].startswith(f"{name}\xa0{COUNTS[first, j] / total:.0%}")
        likeliest = int(np.argmax(laws[:, j]))
        share = f"{shown(FOUND.labels[likeliest])}\xa0{laws[likeliest, j]:.0%}"
        assert row["next, predicted"].startswith(share)
        p = COUNTS[:, j] / total
        kl = sum(a * np.log(a / b) for a, b in zip(p, laws[:, j], strict=True) if a > 0)
        assert row["divergence"] == pytest.approx(kl, abs=0.02)  # that of the noisy network
        near = FOUND.contexts[int(cosines[j].argmax())]
        assert row["nearest, predicted"] == "".join(near).replace(" ", "␣")
    seen = [row["seen"] for row in rows.values()]
    assert seen == sorted(seen, reverse=True)


def test_tokens_against_the_classifier(settings: tuple[store.SettingRecord, ...]) -> None:
    rows = rows_of(token_table(settings[0]))
    weight = tf.solve(settings[0].problem).weights[0]
    unit = weight / np.linalg.norm(weight, axis=1)[:, None]
    cosines = unit @ unit.T - 2 * np.eye(len(unit))
    for v, token in enumerate(FOUND.labels):
        row = rows[shown(token)]
        assert row["share"] == pytest.approx(100 * COUNTS[v].sum() / COUNTS.sum())
        assert row["length, predicted"] == pytest.approx(np.linalg.norm(weight[v]))
        assert row["length, network"] == pytest.approx(row["length, predicted"], abs=10 * NOISE)
        best = cosines[v].max()
        assert cosines[v, FOUND.labels.index(row["nearest, predicted"].replace("␣", " "))] == (
            pytest.approx(best, abs=1e-9)
        )


def test_pairs_and_what_merges(settings: tuple[store.SettingRecord, ...]) -> None:
    pairs = pair_table(settings[0])
    assert pairs is not None
    values = [row[-2] for row in pairs.rows]
    assert values == sorted(values, reverse=True)
    laws = {context: COUNTS[:, j] / COUNTS[:, j].sum() for j, context in enumerate(FOUND.contexts)}
    equal = [
        {"".join(a).replace(" ", "␣"), "".join(b).replace(" ", "␣")}
        for a in laws for b in laws if a < b and np.array_equal(laws[a], laws[b])
    ]  # fmt: skip
    merged = merged_table(settings[0])
    assert merged is not None
    told = [set(row[2].split(", ")) for row in merged.rows if row[0] == "contexts"]
    assert equal
    assert all(any(pair <= group for group in told) for pair in equal)
    first = {pairs.rows[0][0], pairs.rows[0][1]}
    assert first in equal  # their features are the same one
    assert pairs.rows[0][-2] == pytest.approx(1)


def test_metrics_beside_what_is_predicted(settings: tuple[store.SettingRecord, ...]) -> None:
    rows = {row[0]: row[1:] for row in text_metric_table(settings[0]).rows}
    solution = tf.solve(settings[0].problem)
    assert rows["directions used"] == [1, 7, solution.rank]
    assert rows["training objective"][2] == pytest.approx(solution.lower_bound)
    assert rows["logits, distance to predicted"] == [1, 0.003, 0]
    shares = COUNTS.sum(axis=0) / COUNTS.sum()
    best = COUNTS[solution.logits.argmax(axis=0), range(COUNTS.shape[1])].sum() / COUNTS.sum()
    assert rows["likeliest token right"][2] == pytest.approx(best)
    p = COUNTS / COUNTS.sum(axis=0)
    log_q = solution.logits - np.log(np.exp(solution.logits).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.nansum(p * (np.log(p) - log_q), axis=0) @ shares
    assert rows["divergence from the text's law, nats"][2] == pytest.approx(kl, abs=1e-8)


def test_sentences(settings: tuple[store.SettingRecord, ...], folder: Path) -> None:
    finished, started, missing = settings
    assert text_headline(finished).startswith("The objective ends 2e-06 above the certified bound")
    assert "; 4 of 5 as predicted" in text_headline(finished)
    assert text_headline(missing) == "Not started: there is no prediction yet."
    assert "In 0 of 1 finished setting all" in text_overview(store.load_run(folder))
    limit = tf.label_limits(finished.problem.targets.by_context.T, finished.problem.counts)
    assert limit_sentences(finished)[-1] == limit.note
    assert limit_sentences(missing) == []
    assert context_table(missing) is token_table(missing) is merged_table(missing) is None
    assert "next, network" not in rows_of(context_table(started))["e␣"]


def test_pictures_of_the_record(settings: tuple[store.SettingRecord, ...]) -> None:
    finished, started, missing = settings
    solution = tf.solve(finished.problem)
    chart = spectrum_chart(finished)
    scaled = solution.logits * np.sqrt(finished.problem.counts)
    values = np.linalg.svd(scaled, compute_uv=False)[: solution.rank]
    assert chart.curves[0].y == pytest.approx(values.tolist())
    assert [curve.label for curve in chart.curves] == ["predicted", "measured"]
    assert [curve.label for curve in spectrum_chart(started).curves] == ["predicted"]
    assert spectrum_chart(missing).empty
    maps = token_maps(finished)
    assert maps is not None
    predicted, measured = (np.array(matrix.values) for matrix in maps.maps)
    assert np.diag(predicted) == pytest.approx(1)
    assert np.abs(predicted - measured).max() < 20 * NOISE
    order = [FOUND.labels.index(name.replace("␣", " ")) for name in maps.names]
    assert sorted(order) == list(range(len(FOUND.labels)))
    weight = solution.weights[0][order]
    assert predicted[0, 1] == pytest.approx(
        weight[0] @ weight[1] / np.linalg.norm(weight[0]) / np.linalg.norm(weight[1])
    )
    assert token_maps(missing) is None
    levels = law_charts(finished)["divergence"].curves[1]
    assert levels.label == "predicted"
    assert loss_charts(finished)["excess"].curves[0].y == [1.0, 0.005]
    for setting in settings:
        assert set(text_sheets(setting)) == {"loss", "distance", "law", "tokens"}


def test_files_of_tables_and_pictures(folder: Path, tmp_path: Path, unrendered: None) -> None:
    names = {path.name for path in write_tables(folder, "markdown")}
    kinds = ("metrics", "tokens", "contexts", "pairs", "merged")
    assert names == {f"{name}-{kind}.md" for name in (FINISHED, STARTED) for kind in kinds}
    run = store.load_run(folder)
    pictures = save_plots(dataclasses.replace(run, settings=run.settings[:1]), tmp_path)
    sheets = [f"{FINISHED}-{kind}.png" for kind in ("loss", "distance", "law", "tokens")]
    assert {path.name for path in pictures} == {"summary.png", *sheets}


def test_a_classifier_that_is_zero_has_no_cosines(
    settings: tuple[store.SettingRecord, ...],
) -> None:
    arrays = settings[0].prediction_arrays
    assert arrays is not None
    zero = dataclasses.replace(
        settings[0], prediction_arrays=arrays | {"weight": 0 * arrays["weight"]}
    )
    assert {row["nearest, predicted"] for row in rows_of(token_table(zero)).values()} == {None}
    assert token_maps(zero) is not None
