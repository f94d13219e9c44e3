from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tightframe as tf
from tightframe.geometry.dense import PARTS, product_of
from tightframe.runs import store

HOSTILE = "<script>alert('x')</script>\"&'<img src=http://evil.example/x onerror=alert(1)>"
COUNTS = "30x3,5x3"
EPOCHS = np.arange(0, 600, 50)

#: Name of each setting: its weight and feature decay.
DECAYS = {
    "w0.02-h0.0002": (0.02, 0.0002),
    "w0.2-h0.02": (0.2, 0.02),
    "w0.03-h0.0003": (0.03, 0.0003),
    "w0.04-h0.0004": (0.04, 0.0004),
}
FINISHED, COLLAPSED, UNFINISHED, MISSING = DECAYS


def make_history(solution: tf.Solution, rows: int = len(EPOCHS)) -> pd.DataFrame:
    """A made-up history that tends to the prediction; bias_alignment is NaN, CDNV infinite."""
    fade = np.exp(-EPOCHS[:rows] / 60)
    table: dict[str, Any] = {"epoch": EPOCHS[:rows], "step": EPOCHS[:rows], "seconds": fade}
    bound = solution.lower_bound
    table |= {"loss": 2 * fade, "objective": bound + 1.7 * fade, "excess": 1.7 * fade}
    table |= {"train_accuracy": 1 - fade / 2, "test_accuracy": np.full(rows, math.nan)}
    table |= {"nc1": fade, "nc1_quotient": 2 * fade, "cdnv": np.full(rows, math.inf)}
    table |= {"nc4": np.zeros(rows), "self_duality": 0.3 + fade}
    table["bias_alignment"] = np.full(rows, math.nan)
    for i, part in enumerate(PARTS):
        table[f"{part}_to_predicted"] = (1.1 + i) * fade
        table[f"{part}_to_etf"] = np.full(rows, 0.25 + i / 100)
    for i, margin in enumerate(solution.group_margins):
        table[f"group{i}_margin"] = margin * (1 - fade)
    return pd.DataFrame(table)


def write_setting(
    folder: Path,
    name: str,
    solution: tf.Solution,
    *,
    finished: bool = True,
    rows: int = len(EPOCHS),
    **changes: Any,
) -> None:
    paths = store.setting_paths(folder, name)
    problem, geometry = solution.problem, solution.geometry
    groups = [
        group | {"members": np.flatnonzero(problem.class_groups == i)}
        for i, group in enumerate(solution.to_dict()["groups"])
    ]
    prediction = solution.to_dict() | {"name": name, "groups": groups, "bias": solution.bias}
    store.write_json(paths.prediction, prediction | changes)
    store.write_npz(
        paths.prediction_arrays,
        logits=geometry.logits,
        bias=solution.bias,
        classifier=geometry.classifier,
        means=geometry.means,
    )
    history = make_history(solution, rows)
    if rows:
        store.write_parquet(paths.history, history)
    if not finished:
        return
    noise = 0.01 * np.random.default_rng(0).normal(size=geometry.logits.shape)
    labels = np.arange(problem.num_classes).repeat(problem.counts)
    store.write_npz(
        paths.final,
        features=solution.class_means.T[labels].astype(np.float32),
        labels=labels,
        weight=product_of(solution.weights).astype(np.float32),
        bias=np.zeros(problem.num_classes, np.float32),
        class_means=solution.class_means,
        logits=geometry.logits + noise,
    )
    verdicts = [
        {
            "count": group["count"],
            "classes": group["classes"],
            "predicted_margin": group["margin"],
            "measured_margin": history[f"group{i}_margin"].iloc[-1],
            "predicted": "distinct",
            "measured": "distinct",
            "agrees": (True, False, None)[i % 3],
            "sentence": f"Verdict {i} of {name}. {HOSTILE}",
        }
        for i, group in enumerate(groups)
    ]
    first, last = history.iloc[0].to_dict(), history.iloc[-1].to_dict()
    result = {"name": name, "problem": problem.to_dict(), "first": first, "last": last}
    result |= {"verdicts": verdicts, "seconds": 12.5, "finished": True}
    store.write_json(paths.result, result)


def write_run(folder: Path, names: list[str], **config: Any) -> None:
    config = {"data": HOSTILE, "counts": COUNTS, "seed": 7, "bias_decay": None} | config
    store.write_json(
        store.run_file(folder),
        {
            "format": store.FORMAT,
            "config": config,
            "config_hash": store.config_hash(config),
            "settings": names,
            "environment": {"versions": {"numpy": "1.2.3", HOSTILE: None}, "device": "cpu"},
        },
    )


@pytest.fixture(scope="session")
def solutions() -> dict[str, tf.Solution]:
    return {
        name: tf.solve(tf.Problem(COUNTS, weight_decay=weight, feature_decay=feature))
        for name, (weight, feature) in DECAYS.items()
    }


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, solutions: dict[str, tf.Solution]) -> Path:
    """Two finished settings (the second not certified), one unfinished, one not started."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, list(DECAYS))
    write_setting(folder, FINISHED, solutions[FINISHED], note=HOSTILE)
    write_setting(
        folder, COLLAPSED, solutions[COLLAPSED], status="not_converged", gap=None, lower_bound=None
    )
    write_setting(folder, UNFINISHED, solutions[UNFINISHED], finished=False, rows=5)
    return folder


@pytest.fixture(scope="session")
def run(run_folder: Path) -> store.RunRecord:
    return store.load_run(run_folder)
