"""What the library says of a trained network: by its public names alone, from what was kept."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import tightframe as tf
from benchmarks.practice.criteria import ADJUSTED_HEAD, BALANCED_HEAD, POST_HOC, Judged
from benchmarks.practice.facts import facts, margins, read
from benchmarks.practice.networks import (
    ADAMW_DECAYS,
    CNN_DECAYS,
    SGD_DECAYS,
    Network,
    retrained,
)
from benchmarks.practice.train import MOMENTUM, RATES
from tightframe.diagnosis.diagnose import Diagnosis, diagnose
from tightframe.diagnosis.larger_decay import larger_decay
from tightframe.files import read_json, write_json
from tightframe.heads.last_layer import LastLayer
from tightframe.metrics.classes import class_table


def judge(network: Network, folder: Path) -> None:
    """Write what the library says of a network beside its record; what is there is kept."""
    file = said_file(folder, network)
    if not file.is_file():
        write_json(file, ask(network, read(folder, network)))


def said_file(folder: Path, network: Network) -> Path:
    """Return where the judgement of a network is."""
    return Path(os.fspath(folder / network.file) + ".said.json")


def collect(network: Network, folder: Path) -> Judged:
    """Return a judged network with what its remedies did."""
    said = read_json(said_file(folder, network))
    recalls = {name: np.array(found) for name, found in said["recalls"].items()}
    for other in retrained(network):
        if (folder / other.file).is_file():
            recalls[other.remedy] = facts(read(folder, other)).recall
    return Judged(network, facts(read(folder, network)), said, recalls)


def ask(network: Network, record: dict[str, Any]) -> dict[str, Any]:
    """Ask the library about a network.

    Returns
    -------
    dict
        ``classes``: state and warning of every class, from training samples alone;
        ``lost_from_moments``: the same from class means and covariances;
        ``first``: the remedy that is advised first; ``recalls``: held-out recalls after those that
        need no training; ``theory``: whether it is said to hold, its error, and its margins after
        the next larger decay; ``larger``: pairs of a decay and the margins predicted there.
    """
    started = time.perf_counter()
    own = [record[name] for name in ("features", "labels", "weight", "bias")]
    held_out = record["held_out_features"], record["held_out_labels"]
    seen = LastLayer.of(*own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is warned of is in the answer
        found = diagnose(LastLayer.of(*own, held_out=held_out), **training(network))
        table = class_table(seen)
        by_moments = class_table(seen, samples=False)
        later = larger(network, own)
        theory = theory_of(network, found)
    rows = {name: found.head.row(name) for name in (POST_HOC, ADJUSTED_HEAD, BALANCED_HEAD)}
    classes = range(len(record["weight"]))
    return {
        "network": network.name,
        "classes": [
            {"accuracy_state": row.accuracy_state, "warning": row.warning}
            for row in map(table.of, classes)
        ],
        "lost_from_moments": [bool(by_moments.of(k).near_lost) for k in classes],
        "first": found.remedies.advised[0].name if found.remedies.advised else None,
        "recalls": {name: row.held_out.recalls for name, row in rows.items() if row is not None},
        "theory": theory,
        "larger": later,
        "seconds": time.perf_counter() - started,
    }


def training(network: Network) -> dict[str, Any]:
    """Return what somebody who trained the network knows to say of the training."""
    # AdamW's decay is not a term of the objective; the ridge is fitted then.
    known: dict[str, Any] = {}
    if network.optimizer == "sgd":
        known["weight_decay"] = network.weight_decay
    if network.extra == "sampler":
        known["sampler"] = "balanced"
    return known


def theory_of(network: Network, found: Diagnosis) -> dict[str, Any]:
    """Return whether theory is said to hold, and the margins that it has after the next decay."""
    theory, larger = found.theory, larger_decays(network)
    said: dict[str, Any] = {"open": theory.describes, "error": theory.error}
    if theory.describes and theory.calibration is not None and larger:
        problem = theory.calibration.problem
        factor = larger[0] / network.weight_decay
        after = tf.solve(
            problem.replace(
                weight_decay=factor * problem.weight_decays[0],
                feature_decay=factor * problem.feature_decay,
            )
        )
        said["at_next"] = margins((after.logits + after.bias[:, None]).T)
    return said


def larger(network: Network, own: list[Any]) -> list[Any]:
    """Return the margins that are predicted at larger decays, where anything is said."""
    at = larger_decays(network)
    if not at or network.extra:
        return []
    found = larger_decay(
        *own,
        weight_decay=network.weight_decay,
        at=at,
        layers=network.layers,
        batch_norm=network.batch_norm,
        convolutional=network.kind == "cnn",
        optimizer=network.optimizer,
        lr=RATES[network.optimizer],
        momentum=MOMENTUM,
        full_batch=network.full_batch,
    )
    if found.margins is None:
        return []
    return [
        [decay, row]
        for decay, row, reason in zip(at, found.margins, found.reasons, strict=True)
        if reason is None
    ]


def larger_decays(network: Network) -> list[float]:
    """Return the larger decays that the same network is trained with."""
    ladder = ADAMW_DECAYS if network.optimizer == "adamw" else SGD_DECAYS
    ladder = CNN_DECAYS if network.kind == "cnn" else ladder
    return [decay for decay in ladder if decay > network.weight_decay]
