"""What the library says of a trained network: by its public names alone, from what was kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import tightframe as tf
from benchmarks.practice.criteria import ADJUSTED_HEAD, BALANCED_HEAD, POST_HOC, Judged
from benchmarks.practice.facts import facts, read, shares
from benchmarks.practice.networks import (
    ADAMW_DECAYS,
    CNN_DECAYS,
    SGD_DECAYS,
    Network,
    retrained,
)
from benchmarks.practice.train import MOMENTUM, RATES
from tightframe.files import read_json, write_json
from tightframe.heads import LastLayer
from tightframe.metrics import class_table


def decays(network: Network) -> list[float]:
    """Return the larger decays that the same network was trained with."""
    ladder = ADAMW_DECAYS if network.optimizer == "adamw" else SGD_DECAYS
    ladder = CNN_DECAYS if network.kind == "cnn" else ladder
    return [decay for decay in ladder if decay > network.weight_decay]


def judge(network: Network, folder: Path) -> None:
    """Write what the library says of a network beside its record; what is there is kept."""
    file = said_file(folder, network)
    if not file.is_file():
        write_json(file, asked(network, read(folder, network)))


def said_file(folder: Path, network: Network) -> Path:
    """Return where the judgement of a network is."""
    return (folder / network.file).with_suffix(".json")


def collect(network: Network, folder: Path) -> Judged:
    """Return a judged network with what its remedies did."""
    said = read_json(said_file(folder, network))
    recalls = {name: np.array(found) for name, found in said["recalls"].items()}
    for other in retrained(network):
        if (folder / other.file).is_file():
            recalls[other.remedy] = facts(read(folder, other)).recall
    return Judged(network, facts(read(folder, network)), said, recalls)
