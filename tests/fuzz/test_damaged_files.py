"""Damaged files of every kind that a command reads: read all the same, or one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from tests.fuzz.contract import broken
from tests.fuzz.mutations import damaged
from tests.reproduce.toy_paper import GOOD
from tightframe.cli import run_command
from tightframe.reproduce import spec

COUNTS = ["--counts", "5x2,3"]
DECAYS = ["--weight-decay", "0.02", "--feature-decay", "0.01"]
RUN = [
    *("--counts", "4x5,2x5", "--epochs", "1", "--measure-every", "1", "--hidden", "4"),
    *("--feature-dim", "9", "--weight-decay", "0.02", "--feature-decay", "0.0002"),
]
PATH = [*COUNTS, "--lambda", "0.01:0.1:3"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file of every kind, and the command line that reads it (its place is FILE)."""
    folder = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [5, 5, 3])
    weight = rng.normal(size=(3, 4))
    arrays = {"features": 3 * weight[labels] + rng.normal(size=(13, 4)), "labels": labels}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    arrays["labels"], arrays["weight"] = labels, weight.astype(np.float32)
    np.savez(folder / "features.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    save_file(arrays, folder / "features.safetensors")
    np.savez(folder / "logits.npz", logits=rng.normal(size=(3, 3)))
    np.save(folder / "labels.npy", labels)
    np.savetxt(folder / "labels.txt", labels, fmt="%d")
    table = pd.DataFrame({"label": labels, "other": labels * 0.5})
    table.to_csv(folder / "labels.csv", index=False)
    table.to_parquet(folder / "labels.parquet")
    config = {"optimizer": {"type": "SGD", "weight_decay": 5e-3}, "train": {"batch_size": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "config.yaml").write_text(
        "a: &a {weight_decay: 5e-3}\nb:\n  <<: *a\n  batch_size: 4\n# a comment\n"
    )
    (folder / "config.toml").write_text("[o]\nweight_decay = 5e-3\nbatch_size = 4\n")
    measure = ["measure", "FILE", *DECAYS]
    described = ["--config", "FILE", "--batch-feature-decay", "0.1"]
    reads = {
        "features.npz": measure,
        "packed.npz": measure,
        "features.safetensors": measure,
        "logits.npz": ["certify", "FILE", *COUNTS, *DECAYS],
    }
    reads |= {f"labels.{e}": ["advise", "--labels", "FILE", *DECAYS] for e in ("npy", "txt")}
    reads |= {f"labels.{e}": ["advise", "--labels", "FILE", *DECAYS] for e in ("csv", "parquet")}
    reads |= {
        f"config.{e}": ["advise", *COUNTS, *described, "--json"] for e in ("json", "yaml", "toml")
    }
    return {folder / name: line for name, line in reads.items()}


def fuzz_files(capfd, files, folder, seed, calls):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(calls):
        whole = list(files)[int(rng.integers(len(files)))]
        content = damaged(rng, whole.read_bytes())
        place = folder / whole.name
        place.write_bytes(content)
        line = [str(place) if word == "FILE" else word for word in files[whole]]
        problem = broken(capfd, line)
        if problem:
            found.append(f"{whole.name} {content[:60]!r}...\n    {problem}")
    assert not found, "\n".join(found)


def test_a_sample_of_damaged_files(capfd, files, tmp_path):
    fuzz_files(capfd, files, tmp_path, 0, 30)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_damaged_files(capfd, files, tmp_path, seed):
    fuzz_files(capfd, files, tmp_path, seed, 200)


# -- results folders -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A results folder of every kind, and the command lines that read it."""
    base = tmp_path_factory.mktemp("results")
    lines = {
        "run": [["report", "OUT"], ["run", "--out", "OUT", "--resume"]],
        "grid": [["report", "OUT"], ["path", "--out", "OUT", "--resume", *PATH]],
        "toy": [["report", "OUT"], ["reproduce", "toy", "--out", "OUT", "--resume"]],
    }
    lines["run"].append(["advise", "--from-run", "OUT"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spec, "papers", lambda: GOOD)
        assert run_command(["run", "--out", str(base / "run"), *RUN]) == 0
        assert run_command(["path", "--out", str(base / "grid"), *PATH]) == 0
        assert run_command(["reproduce", "toy", "--out", str(base / "toy")]) == 0
        yield {base / name: found for name, found in lines.items()}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_damaged_results_folders(capfd, folders, tmp_path, seed, unrendered):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(30):
        whole = list(folders)[int(rng.integers(len(folders)))]
        place = tmp_path / str(i)
        shutil.copytree(whole, place)
        files = [f for f in sorted(place.rglob("*")) if f.is_file() and f.suffix != ".html"]
        hit = files[int(rng.integers(len(files)))]
        hit.write_bytes(damaged(rng, hit.read_bytes()))
        lines = folders[whole]
        line = lines[int(rng.integers(len(lines)))]
        problem = broken(capfd, [str(place) if word == "OUT" else word for word in line])
        if problem:
            name = Path(hit).relative_to(place)
            found.append(f"{line[0]} {whole.name}/{name} {hit.read_bytes()[:60]!r}\n    {problem}")
        shutil.rmtree(place)
    assert not found, "\n".join(found)
