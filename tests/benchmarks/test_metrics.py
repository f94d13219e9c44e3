"""The benchmark of the metrics on tiny cases, with a stand-in for the peer; no times are judged."""

import json

import numpy as np
import pytest
import torch

from benchmarks import metrics

TINY = metrics.Settings(threads=1, repeats=1, batch=16, epochs=1, accuracy_samples=300)
CASE = metrics.Case(60, 8, 4, 1.0)

ACCUMULATE = """
import torch

class _Stand:
    def __init__(self, classes, dim, M=None):
        self.classes, self.means, self.x, self.y = classes, M, [], []
    def accumulate(self, x, y, M=None):
        self.x.append(x); self.y.append(y)
    def deviations(self):
        x, y = torch.cat(self.x), torch.cat(self.y)
        return x - self.means[y], y

class MeanAccumulator(_Stand):
    def compute(self):
        x, y = torch.cat(self.x), torch.cat(self.y)
        means = torch.stack([x[y == k].mean(dim=0) for k in range(self.classes)])
        return means, means.mean(dim=0)

class CovarAccumulator(_Stand):
    def compute(self):
        d, _ = self.deviations()
        return d.T @ d / len(d)

class VarNormAccumulator(_Stand):
    def compute(self):
        d, y = self.deviations()
        squares = (d**2).sum(dim=1)
        return torch.stack([squares[y == k].mean() for k in range(self.classes)]), None
"""

MEASURE = """
import torch

def covariance_ratio(within, means, middle):
    centered = means - middle
    return float(torch.trace(torch.linalg.pinv(centered.T @ centered / len(means)) @ within)
                 / len(means))

def variability_cdnv(traces, means, tile_size=None):
    squares = torch.cdist(means, means) ** 2
    ratios = (traces[:, None] + traces) / 2 / squares
    return float(ratios[~torch.eye(len(means), dtype=bool)].mean())

def _error(a, b):
    k = len(a)
    target = torch.eye(k) - 1 / k
    product = b @ a.T
    return float((product / product.norm() - target / target.norm()).norm())

def simplex_etf_error(means, middle):
    return _error(means - middle, means - middle)

def self_duality_error(weight, means, middle):
    return _error(means - middle, weight)

def mean_norms(means, middle):
    return (means - middle).norm(dim=1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A package of the peer's name and interface, written from the formulas."""
    folder = tmp_path_factory.mktemp("peer")
    package = folder / "neural_collapse"
    package.mkdir()
    for name, text in (("__init__", ""), ("accumulate", ACCUMULATE), ("measure", MEASURE)):
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    return str(folder)


def test_both_sides_measure_the_same(folder):
    rows, rate = metrics.time_case(CASE, metrics.load_peer(folder), TINY)
    assert [row.phase for row in rows] == ["gather", "measure"]
    for row in rows:
        assert row.difference < 1e-4  # the peer's float32
        assert row.ratio == pytest.approx(row.peer_seconds / row.seconds)
        assert row.met == (row.ratio >= row.goal)
    assert rate["share_of_float64"] == pytest.approx(
        rate["gflops_update"] / rate["gflops_float64_product"]
    )


def test_ours_is_accurate_where_the_known_bad_ones_are_not(folder):
    rows = {row["accumulator"]: row for row in metrics.accuracy(metrics.load_peer(folder), TINY)}
    assert rows["ours"]["met"]
    assert max(rows["ours"]["errors"].values()) < 1e-11
    assert max(rows["ours, dtype=float32"]["errors"].values()) < 1e-5
    assert max(rows["Chan, float32 products"]["errors"].values()) < 1e-5
    assert rows["unshifted, float32"]["errors"]["1000+1e-3(mu+noise)"] > 1
    assert rows["unshifted, float64"]["errors"]["1000+1e-3(mu+noise)"] > 1e-6
    assert rows["first batch's shift, float32 products"]["errors"]["mu+1e-4 noise"] > 1e-4
    assert rows["peer, float32"]["errors"]["1000+1e-3(mu+noise)"] > 1e-4


def test_without_the_peer_the_rows_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(metrics.sys.modules, "neural_collapse", None)
    for name in ("accumulate", "measure"):
        monkeypatch.delitem(metrics.sys.modules, f"neural_collapse.{name}", raising=False)
    monkeypatch.setattr(metrics, "CASES", (CASE,))
    threads = torch.get_num_threads()
    try:
        metrics.main(["--only", "times", "--repeats", "1", "--out", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    stored = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert stored["environment"]["peer"] == "not found"
    assert [row["notes"] for row in stored["times"]] == ["peer not found"] * 2
    assert all(row["met"] is None and row["seconds"] > 0 for row in stored["times"])
    assert metrics.accuracy(None, TINY)[0]["accumulator"] == "peer not found"


def test_the_callback_is_measured():
    row = metrics.callback_overhead(TINY)
    assert row["overhead"] == pytest.approx(row["overhead_every_epoch"] / row["measure_every"])
    assert row["measurement_seconds"] > 0


def test_the_truth_of_the_table_is_the_reference():
    from tests.reference import two_pass

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3
    want = two_pass.nc1(x.astype(float), y, 3)
    assert metrics.nc1_of(*metrics.two_pass(x, y, 3)) == pytest.approx(want, rel=1e-12)
