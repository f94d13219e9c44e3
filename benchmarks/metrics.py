"""Measure `tightframe.metrics` against rhubarbwu/neural-collapse: speed, accuracy, overhead.

    python -m benchmarks.metrics [--peer PATH] [--quick] [--only TEXT] [--out benchmarks/results]

Writes ``metrics.json`` after every section and prints the tables at the end; README.md beside this
file says what the columns mean. The peer is the package ``neural_collapse``, installed or in the
folder ``--peer``; without it the rows say so and only our own times stand there.

Everything runs in this process: repetitions of ours and of the peer alternate, so that whatever
else the machine does meets both.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.solver import environment
from tightframe.files import write_json
from tightframe.metrics import ClassMoments, cdnv, equinorm, nc1, nc2, nc3

#: The largest relative error of NC1 allowed in any case of the accuracy table.
MAX_ERROR = 1e-8
#: Least ratio to the peer when measuring, and least share of the matrix product's rate.
MEASURE_GOAL, RATE_GOAL = 15.0, 0.8
#: Largest share of the training time that the callback may take.
OVERHEAD_GOAL = 0.05
#: Rows of one matrix product whose rate is the machine's.
PRODUCT_ROWS = 1024

Peer = SimpleNamespace | None


@dataclass(frozen=True)
class Case:
    """N samples of width D in K classes."""

    samples: int
    dim: int
    classes: int
    goal: float

    def __str__(self) -> str:
        return f"N={self.samples:,}, D={self.dim}, K={self.classes}"


@dataclass(frozen=True)
class Settings:
    """What the times depend on."""

    threads: int
    repeats: int = 7
    batch: int = 128
    epochs: int = 200
    accuracy_samples: int = 20_000


CASES = (
    Case(50_000, 512, 1000, 6.0),
    Case(50_000, 512, 10, 1.3),
    Case(20_000, 2048, 100, 1.1),
)


@dataclass
class Row:
    """One line of the table of times; see README.md for the columns."""

    phase: str
    case: str
    seconds: float
    peer_seconds: float | None
    ratio: float | None
    goal: float
    met: bool | None
    difference: float | None
    notes: str = ""


# -- the two sides ---------------------------------------------------------------------------------


def load_peer(folder: str | None) -> Peer:
    """Return the peer's modules, or None where there is no such package."""
    if folder is not None:
        sys.path.insert(0, folder)
    try:
        return SimpleNamespace(
            accumulate=importlib.import_module("neural_collapse.accumulate"),
            measure=importlib.import_module("neural_collapse.measure"),
        )
    except ImportError:
        return None
    finally:
        if folder is not None:
            sys.path.remove(folder)


def samples(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return float32 features around class means, labels, and a classifier."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(case.classes, (case.samples,), generator=generator)
    labels[: case.classes] = torch.arange(case.classes)  # no class without samples
    means = torch.randn(case.classes, case.dim, generator=generator)
    features = means[labels] + torch.randn(case.samples, case.dim, generator=generator)
    return features, labels, torch.randn(case.classes, case.dim, generator=generator)


def batches(features: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the stream."""
    for start in range(0, len(labels), size):
        yield features[start : start + size], labels[start : start + size]


def gather(features: Tensor, labels: Tensor, classes: int, size: int) -> tuple[ClassMoments, Any]:
    """Return our moments after one pass, and what is read of them: means, Sigma_W, traces."""
    moments = ClassMoments(classes)
    for x, y in batches(features, labels, size):
        moments.update(x, y)
    return moments, (moments.means, moments.within(), moments.traces)


def peer_gather(
    peer: SimpleNamespace, features: Tensor, labels: Tensor, classes: int, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the peer's means, Sigma_W, traces and global mean, after its two passes."""
    made = peer.accumulate
    shape = (classes, features.shape[1])
    mean = made.MeanAccumulator(*shape)
    for x, y in batches(features, labels, size):
        mean.accumulate(x, y)
    means, middle = mean.compute()
    covariance, norms = (
        made.CovarAccumulator(*shape, M=means),
        made.VarNormAccumulator(*shape, M=means),
    )
    for x, y in batches(features, labels, size):
        covariance.accumulate(x, y, means)
        norms.accumulate(x, y, means)
    return means, covariance.compute(), norms.compute()[0], middle


def metrics(moments: ClassMoments, weight: Tensor) -> list[float]:
    """Return NC1, CDNV, NC2, NC3 and the variation of the norms."""
    return [
        nc1(moments),
        cdnv(moments),
        nc2(moments),
        nc3(moments, weight),
        equinorm(moments),
    ]


def peer_metrics(peer: SimpleNamespace, found: Sequence[Tensor], weight: Tensor) -> list[float]:
    """Return the same five by the peer."""
    means, within, traces, middle = found
    made = peer.measure
    norms = made.mean_norms(means, middle)
    return [
        made.covariance_ratio(within, means, middle),
        # All pairs at once would take K x K x D floats; its documentation advises tiles.
        made.variability_cdnv(traces, means, tile_size=100),
        made.simplex_etf_error(means, middle),
        made.self_duality_error(weight, means, middle),
        float(norms.std(correction=0) / norms.mean()),
    ]


# -- times -----------------------------------------------------------------------------------------


def alternate(tasks: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Return seconds of every task, run in turns after one round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def time_case(case: Case, peer: Peer, settings: Settings) -> tuple[list[Row], dict[str, Any]]:
    """Time gathering and measuring, and the matrix products that bound the gathering."""
    features, labels, weight = samples(case)
    moments, ours = gather(features, labels, case.classes, settings.batch)
    theirs = None
    single = features[:PRODUCT_ROWS].contiguous()
    double = single.double()
    out = torch.zeros(case.dim, case.dim), torch.zeros(case.dim, case.dim, dtype=torch.float64)
    stream = ClassMoments(case.classes)

    def update() -> None:
        for x, y in batches(features, labels, settings.batch):
            stream.update(x, y)

    gathering: dict[str, Callable[[], Any]] = {
        "ours": lambda: gather(features, labels, case.classes, settings.batch),
        "float32 product": lambda: [out[0].addmm_(single.T, single) for _ in range(4)],
        "float64 product": lambda: [out[1].addmm_(double.T, double) for _ in range(4)],
        "update": update,
    }

    def measure() -> list[float]:
        moments._snapshot = None  # as after an update: what metrics share is computed anew
        return metrics(moments, weight)

    measuring: dict[str, Callable[[], Any]] = {"ours": measure}
    difference = gap = None
    if peer is not None:
        theirs = peer_gather(peer, features, labels, case.classes, settings.batch)
        gathering["peer"] = lambda: peer_gather(
            peer, features, labels, case.classes, settings.batch
        )
        measuring["peer"] = lambda: peer_metrics(peer, theirs, weight)
        difference = max(_difference(a, b) for a, b in zip(ours, theirs, strict=False))
        gap = _difference(
            torch.tensor(metrics(moments, weight)),
            torch.tensor(peer_metrics(peer, theirs, weight)),
        )
    gathered = alternate(gathering, settings.repeats)
    measured = alternate(measuring, settings.repeats)
    rows = [
        _row("gather", case, gathered, case.goal, difference),
        _row("measure", case, measured, MEASURE_GOAL, gap),
    ]
    return rows, _rate(case, gathered)


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


def _row(
    phase: str, case: Case, seconds: dict[str, list[float]], goal: float, difference: float | None
) -> Row:
    ours = statistics.median(seconds["ours"])
    if "peer" not in seconds:
        return Row(phase, str(case), ours, None, None, goal, None, None, "peer not found")
    theirs = statistics.median(seconds["peer"])
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["peer"], strict=True)]
    notes = f"single repetitions {min(ratios):.3g} to {max(ratios):.3g}"
    ratio = theirs / ours
    return Row(phase, str(case), ours, theirs, ratio, goal, ratio >= goal, difference, notes)


def _rate(case: Case, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return how near updating comes to a matrix product, counted as the whole D x D product."""
    rates = {
        name.split()[0]: 4 * 2 * PRODUCT_ROWS * case.dim**2 / statistics.median(times) / 1e9
        for name, times in seconds.items()
        if name.endswith("product")
    }
    own = 2 * case.samples * case.dim**2 / statistics.median(seconds["update"]) / 1e9
    share = own / rates["float64"]
    return {
        "case": str(case),
        "gflops_float32_product": rates["float32"],
        "gflops_float64_product": rates["float64"],
        "gflops_update": own,
        "share_of_float64": share,
        "share_of_float32": own / rates["float32"],
        "goal": RATE_GOAL if case.dim == 2048 else None,
        "met": share >= RATE_GOAL if case.dim == 2048 else None,
    }


# -- accuracy --------------------------------------------------------------------------------------

DATA: dict[str, Callable[[Any, Any], Any]] = {
    "1000+1e-3(mu+noise)": lambda mu, noise: 1000 + 1e-3 * (mu + noise),
    "mu+1e-4 noise": lambda mu, noise: mu + 1e-4 * noise,
    "100+mu+1e-3 noise": lambda mu, noise: 100 + mu + 1e-3 * noise,
}


def two_pass(x: np.ndarray, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Sigma_W and class means in float64 from features moved to the first sample."""
    moved = x.astype(float) - x[0].astype(float)  # exact, or nearly
    means = np.stack([moved[y == k].mean(axis=0) for k in range(classes)])
    deviations = moved - means[y]
    return deviations.T @ deviations / len(x), means


def nc1_of(within: np.ndarray, means: np.ndarray) -> float:
    """Return NC1 with all K - 1 directions of Sigma_B, in float64."""
    centered = means - means.mean(axis=0)
    values, vectors = np.linalg.eigh(centered.T @ centered / len(means))
    values, vectors = values[1 - len(means) :], vectors[:, 1 - len(means) :]
    spread = np.einsum("dr,de,er->r", vectors, within, vectors)
    return float((spread / values).sum() / len(means))


def shifted(
    x: Tensor,
    y: Tensor,
    classes: int,
    size: int,
    products: torch.dtype,
    sums: torch.dtype,
    move: bool,
) -> float:
    """Return NC1 from second moments about zero, or about the first batch's mean (``move``)."""
    shift = x[:size].double().mean(dim=0).float() if move else torch.zeros(x.shape[1])
    counts = torch.bincount(y, minlength=classes)[:, None]
    total = torch.zeros(classes, x.shape[1], dtype=sums)
    second = torch.zeros(x.shape[1], x.shape[1], dtype=sums)
    for rows, where in batches(x, y, size):
        rows = (rows - shift).to(products)
        total.index_add_(0, where, rows.to(sums))
        second += (rows.T @ rows).to(sums)
    means = total / counts
    within = (second - means.T @ (counts * means)) / len(y)
    return nc1_of(within.double().numpy(), means.double().numpy())


def chan(x: Tensor, y: Tensor, classes: int, size: int) -> float:
    """Return NC1 by merging centred batches (Chan et al. 1979): float32 products, float64 sums."""
    counts = torch.zeros(classes, 1, dtype=torch.float64)
    means = torch.zeros(classes, x.shape[1], dtype=torch.float64)
    scatter = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for rows, where in batches(x, y, size):
        own = torch.bincount(where, minlength=classes).double()[:, None]
        middle = torch.zeros_like(means).index_add_(0, where, rows.double()) / own.clamp(min=1)
        deviations = (rows.double() - middle[where]).float()
        delta = (middle - means) * (own > 0)
        weights = counts * own / (counts + own).clamp(min=1)
        scatter += (deviations.T @ deviations).double() + delta.T @ (weights * delta)
        counts += own
        means += delta * own / counts.clamp(min=1)
    return nc1_of((scatter / len(y)).numpy(), means.numpy())


def streamed(x: Tensor, y: Tensor, classes: int, size: int, **options: Any) -> float:
    """Return our NC1."""
    moments = ClassMoments(classes, **options)
    for rows, where in batches(x, y, size):
        moments.update(rows, where)
    return nc1(moments)


def accuracy(peer: Peer, settings: Settings) -> list[dict[str, Any]]:
    """Return the relative errors of NC1, one row an accumulator; D = 128 and K = 10."""
    classes, size = 10, settings.batch
    single, double = torch.float32, torch.float64
    accumulators: dict[str, Callable[[Tensor, Tensor], float]] = {
        "unshifted, float32": lambda x, y: shifted(x, y, classes, size, single, single, False),
        "unshifted, float64": lambda x, y: shifted(x, y, classes, size, double, double, False),
        "first batch's shift, float32 products": lambda x, y: shifted(
            x, y, classes, size, single, double, True
        ),
        "Chan, float32 products": lambda x, y: chan(x, y, classes, size),
        "ours, dtype=float32": lambda x, y: streamed(x, y, classes, size, dtype=single),
        "ours": lambda x, y: streamed(x, y, classes, size),
    }
    if peer is not None:

        def theirs(x: Tensor, y: Tensor) -> float:
            means, within, _, middle = peer_gather(peer, x, y, classes, size)
            return peer.measure.covariance_ratio(within, means, middle)

        accumulators = {"peer, float32": theirs} | accumulators
    rows = [{"accumulator": name, "errors": {}} for name in accumulators]
    for name, make in DATA.items():
        rng = np.random.default_rng(0)
        y = rng.integers(0, classes, settings.accuracy_samples)
        mu, noise = rng.normal(size=(classes, 128))[y], rng.normal(size=(len(y), 128))
        x = make(mu, noise).astype(np.float32)
        truth = nc1_of(*two_pass(x, y, classes))
        for row, accumulator in zip(rows, accumulators.values(), strict=True):
            value = accumulator(torch.from_numpy(x), torch.from_numpy(y))
            row["errors"][name] = abs(value / truth - 1)
    for row in rows:
        if row["accumulator"] == "ours":
            row |= {"goal": MAX_ERROR, "met": max(row["errors"].values()) <= MAX_ERROR}
    if peer is None:
        rows.insert(0, {"accumulator": "peer not found", "errors": {}})
    return rows


# -- the callback ----------------------------------------------------------------------------------


def callback_overhead(settings: Settings) -> dict[str, Any]:
    """Return what measuring costs in the first setting of the demo, relative to its training.

    On as many threads as the demo takes.
    """
    from tightframe.runs.config import RunConfig
    from tightframe.runs.train import run
    from tightframe.training.callbacks import CollapseCallback

    spent: list[float] = []
    demo = RunConfig()
    # As often as the demo on average, which measures more at the start.
    config = dataclasses.replace(
        demo, settings=demo.settings[:1], epochs=settings.epochs, measure_every=30
    )
    with tempfile.TemporaryDirectory() as folder, _timed(CollapseCallback, "measure", spent):
        result = run(config, Path(folder) / "run")[0]
    training = result["last"]["seconds"]
    epoch = training / config.epochs
    # The first measurement warms up, and the one before training is no part of any epoch.
    each = statistics.median(spent[1:])
    overhead = each / (30 * epoch)
    return {
        "epochs": config.epochs,
        "measure_every": 30,
        "epoch_seconds": epoch,
        "measurement_seconds": each,
        "overhead": overhead,
        "overhead_every_epoch": each / epoch,
        "goal": OVERHEAD_GOAL,
        "met": overhead <= OVERHEAD_GOAL,
    }


@contextmanager
def _timed(owner: type, name: str, spent: list[float]) -> Iterator[None]:
    """Append the seconds of every call of a method."""
    original = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return original(*arguments, **options)
        finally:
            spent.append(time.perf_counter() - start)

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, original)


# -- results ---------------------------------------------------------------------------------------


def measure_all(
    peer: Peer, settings: Settings, cases: Sequence[Case], only: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield name and content of every section, the quickest first."""
    if only in "accuracy":
        yield "accuracy", accuracy(peer, settings)
    rows, rates = [], []
    for case in cases:
        if only in f"times {case}":
            more, rate = time_case(case, peer, settings)
            rows += [dataclasses.asdict(row) for row in more]
            rates.append(rate)
            yield "times", list(rows)
            yield "rates", list(rates)
    if only in "callback":
        yield "callback", callback_overhead(settings)


def print_tables(sections: dict[str, Any]) -> None:
    """Print what was measured."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = Console(width=max(console.width, 150))

    def show(title: str, names: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        table = Table(title=title)
        for name in names:
            table.add_column(name)
        for line in lines:
            table.add_row(*line)
        console.print(table)

    def number(value: float | None, form: str = ".3g") -> str:
        return "-" if value is None else format(value, form)

    if "times" in sections:
        names = ("phase", "case", "ratio", "goal", "met", "difference", "notes")
        lines = [
            (
                row["phase"],
                row["case"],
                number(row["ratio"]),
                f">= {row['goal']:g}x",
                _yes_no(row["met"]),
                number(row["difference"], ".0e"),
                row["notes"],
            )
            for row in sections["times"]
        ]
        show("Peer's time over ours", names, lines)
        names = ("case", "share of float64 product", "share of float32 product", "goal", "met")
        lines = [
            (
                row["case"],
                number(row["share_of_float64"], ".0%"),
                number(row["share_of_float32"], ".0%"),
                number(row["goal"], ".0%"),
                "-" if row["goal"] is None else _yes_no(row["met"]),
            )
            for row in sections["rates"]
        ]
        show("Rate of update, counted as a whole product", names, lines)
    if "accuracy" in sections:
        lines = [
            (row["accumulator"], *(number(row["errors"].get(n), ".0e") for n in DATA))
            for row in sections["accuracy"]
        ]
        show("Relative error of NC1", ("accumulator", *DATA), lines)
    if "callback" in sections:
        row = sections["callback"]
        text = (
            f"callback: {row['overhead']:.1%} of the training time, measuring every "
            f"{row['measure_every']} epochs (goal <= {row['goal']:.0%}: {_yes_no(row['met'])}); "
            f"{row['overhead_every_epoch']:.0%} if it measured every epoch"
        )
        console.print(text)


def _yes_no(met: bool | None) -> str:
    return "unknown" if met is None else "yes" if met else "no"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Time tightframe.metrics against its peer.")
    parser.add_argument("--peer", help="folder that holds the package neural_collapse")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples, 3 repeats")
    parser.add_argument("--only", default="", help="sections or cases whose name contains this")
    parser.add_argument("--repeats", type=int, default=None, help="of everything timed (7)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    settings = Settings(threads=options.threads)
    cases: Sequence[Case] = CASES
    if options.quick:
        settings = dataclasses.replace(settings, repeats=3, epochs=40)
        cases = [dataclasses.replace(case, samples=case.samples // 10) for case in CASES]
    if options.repeats is not None:
        settings = dataclasses.replace(settings, repeats=options.repeats)
    torch.set_num_threads(settings.threads)
    peer = load_peer(options.peer)
    about = environment(settings, options.quick)
    about["versions"]["torch"] = torch.__version__
    about["peer"] = "not found" if peer is None else "neural_collapse"
    sections: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, about loggers and workers
        for name, content in measure_all(peer, settings, cases, options.only):
            sections[name] = content
            about["load_at_end"] = os.getloadavg()[0]
            write_json(options.out / "metrics.json", {"environment": about} | sections)
            print(name, file=sys.stderr, flush=True)
    if not sections:
        parser.error(f"--only: no section or case contains {options.only!r}")
    print_tables(sections)


if __name__ == "__main__":
    main()
