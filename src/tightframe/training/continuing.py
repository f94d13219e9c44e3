"""`continue_at`: go on from a network's weights at another decay or loss, to the optimum near.

Full-batch L-BFGS on the true objective: no learning rate, no schedule, no noise. What it finds is
where training at the new settings ends, if training finds the optimum near the present weights.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tightframe.checks import number_of, positive_float, whole_number
from tightframe.data.batches import Batch, LabelsLike, split_batch, to_device
from tightframe.files import to_plain
from tightframe.heads.find import unwrapped
from tightframe.heads.last_layer import loss_terms
from tightframe.heads.modes import preserved_rng
from tightframe.problem.counts import PerClass
from tightframe.problem.labels import IGNORED
from tightframe.progress import Progress, ProgressLike, told, watched
from tightframe.shown import Block, Shown, frame, plot
from tightframe.solve import NotConvergedWarning
from tightframe.training.losses import ProblemLoss

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Data up to this many bytes are kept between evaluations.
MOST_CACHED = 2**28

#: Two passes over the same data agree to rounding.
SAME_LOSS = 1e-9

#: Pairs that L-BFGS keeps, each of twice the parameters in double precision.
_PAIRS = 20

#: Optimisers, by parts of their names, whose decay is no term of the objective.
#: Classes that have a row in a table, at most.
MOST_ROWS = 12

_DECOUPLED = ("adamw", "adamp", "lion", "lamb", "sgdw", "adafactor")


@dataclass(frozen=True, eq=False)
class Continuation(Shown):
    """A network after `continue_at`, and how it went.

    Attributes
    ----------
    model : nn.Module
        A new one; that which was given is as it was.
    objective : float
        Mean loss and half the decays times squares, at the end.
    history : ndarray, shape (iterations + 1,)
        The objective along the way, from the start.
    gradient : float
        Norm of the gradient over the norm of the decay's part of it. At a smooth stationary point
        it is 0; samples that stay at a ReLU's kink keep it above.
    fall : float
        Share of the objective that the last quarter of the steps gained.
    converged : bool
        Whether that is within the tolerance.
    counts : ndarray of int, shape (K,)
        Training samples of every class.
    margins : ndarray, shape (K,)
        Decision margins at the class means, in nats: own minus largest other of the mean logits.
        NaN for a class without samples.
    accuracy : ndarray, shape (K,)
        Training accuracy of every class.
    """

    model: nn.Module
    objective: float
    history: Array
    gradient: float
    fall: float
    converged: bool
    counts: NDArray[np.int64]
    margins: Array
    accuracy: Array

    @property
    def iterations(self) -> int:
        """Steps taken."""
        return len(self.history) - 1

    def _blocks(self) -> Iterator[Block]:
        from tightframe.figures.table import Column, Table

        yield repr(self)
        columns = {"count": self.counts, "margin": self.margins, "accuracy": self.accuracy}
        worst = np.sort(np.argsort(self.margins, kind="stable")[:MOST_ROWS]).tolist()
        rows = [[str(k), *(values[k] for values in columns.values())] for k in worst]
        note = f"The worst {MOST_ROWS} classes." if len(worst) < len(self.counts) else ""
        heads = [Column(name, align="right", format=".4g") for name in columns]
        yield Table("Classes", ["class", *heads], rows, note, missing="-")

    def __repr__(self) -> str:
        """Give the objective, and whether it converged."""
        how = "converged" if self.converged else f"still falling ({self.fall:.2g})"
        return (
            f"Continuation(objective {self.objective:.6g} after "
            f"{number_of(self.iterations, 'step')}, {how}, "
            f"smallest margin {np.nanmin(self.margins):.3g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the model, JSON-ready."""
        values = {name: value for name, value in vars(self).items() if name != "model"}
        plain: dict[str, Any] = to_plain(values | {"iterations": self.iterations})
        return plain

    def to_frame(self) -> pd.DataFrame:
        """Return one row a class, as a DataFrame, see `tightframe.shown.frame`."""
        columns = {"count": self.counts, "margin": self.margins, "accuracy": self.accuracy}
        return frame({"class": np.arange(len(self.counts)), **columns})

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the objective along the way, see `tightframe.shown.plot`."""
        from tightframe.figures.model import Chart, Curve

        curve = Curve("objective", range(len(self.history)), self.history.tolist())
        return plot(Chart("Continued training", "step", "objective", [curve], legend="none"), ax)


def continue_at(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    weight_decay: float | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    class_weights: PerClass | None = None,
    logit_adjustment: PerClass | None = None,
    label_smoothing: float = 0.0,
    smoothing_weights: str = "own",
    class_margins: PerClass | None = None,
    logit_scale: PerClass | None = None,
    labels: LabelsLike = None,
    iterations: int = 400,
    tol: float = 1e-3,
    progress: ProgressLike = None,
) -> Continuation:
    """Go on from a network's weights at another weight decay, or with another loss.

    The objective is the mean cross-entropy over all samples and half the decay times all squares,
    as PyTorch's SGD has it. L-BFGS takes full-batch steps in double precision. Measured on small
    networks trained from scratch with the same settings, margins of the small classes were .04 to
    .17 nats apart.

    Parameters
    ----------
    model : nn.Module
        Gives logits, shape (B, K), or an output that has ``logits``. It is not changed. No dropout
        and no batch norm, whose objective depends on chance and on the batches.
    loader : iterable of batches
        The training set, the same at every pass but for its order: no augmentation, no sampler. It
        is gone through at every evaluation, unless it is small enough to be kept (`MOST_CACHED`).
    weight_decay : float, optional
        Of all trained parameters.
    optimizer : torch.optim.Optimizer, optional
        Its parameter groups say which parameters are trained, and with which decays. With
        ``weight_decay`` too, the largest of these becomes it and the others stay in proportion.
    class_weights : str, iterable of float, or mapping, optional
        As in `Problem`, also ``"balanced"``; scaled to mean 1 over the samples.
    logit_adjustment : str, iterable of float, or mapping, optional
        As in `Problem`, also ``"prior"``: added to the logits inside the loss only.
    label_smoothing, smoothing_weights, class_margins, logit_scale : optional
        As in `Problem`. Of its feature weights there are none here: features have no decay of
        their own.
    labels : str, int or callable, optional
        Where a batch has its labels, see `tightframe.data.batches.split_batch`.
    iterations : int
        Most steps.
    tol : float
        `Continuation.fall` at which it has converged.
    progress : callable or bool, optional
        As in `tightframe.solve`, of the steps; its answer does not end them.

    Returns
    -------
    Continuation

    Raises
    ------
    ValueError
        If an argument is out of range, or the network or the data have no fixed objective.

    Warns
    -----
    NotConvergedWarning
        If the objective still falls when the steps are taken.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> batches = [(torch.eye(3).repeat(4, 1), torch.arange(3).repeat(4))]
    >>> first = continue_at(model, batches, weight_decay=1e-2)
    >>> second = continue_at(first.model, batches, weight_decay=2e-2)
    >>> first.converged, bool((second.margins < first.margins).all())
    (True, True)
    """
    if not isinstance(loader, Iterable) or isinstance(loader, Iterator):
        raise ValueError(
            f"loader: got {type(loader).__name__}, need batches that can be gone through many times"
        )
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: got {type(model).__name__}, need a torch.nn.Module")
    steps, tolerance = whole_number("iterations", iterations), positive_float("tol", tol)
    source = unwrapped(model)
    decays = _decays(source, weight_decay, optimizer)
    _require_fixed(source)
    moving = copy.deepcopy(source).double()
    for name, parameter in moving.named_parameters():
        parameter.requires_grad_(name in decays)
    device = next(moving.parameters()).device
    with preserved_rng():
        data = _Data.read(moving, loader, labels, device)
        problem = loss_terms(
            data.counts,
            class_weights,
            logit_adjustment,
            label_smoothing=label_smoothing,
            smoothing_weights=smoothing_weights,
            class_margins=class_margins,
            logit_scale=logit_scale,
        )
        loss = _Loss(ProblemLoss(problem).to(device), float(data.counts @ problem.class_weights))
        objective = _Objective(moving, data, loss, [decays[n] for n in _trained(moving)])
        with watched(progress, "steps") as tell:
            found = _descend(objective, steps, tell)
        margins, accuracy = objective.outcome()
    converged = found.fall <= tolerance
    if not converged:
        warnings.warn(
            f"the objective still fell by a share of {found.fall:.1e} over the last quarter of "
            f"{len(found.history) - 1} steps, wanted {tolerance:.1e}; give more iterations",
            NotConvergedWarning,
            stacklevel=2,
        )
    ended = copy.deepcopy(source)
    results = dict(moving.named_parameters())
    with torch.no_grad():
        for name, parameter in ended.named_parameters():
            if name in decays:
                parameter.copy_(results[name])
    return Continuation(
        ended,
        found.objective,
        found.history,
        found.gradient,
        found.fall,
        converged,
        data.counts,
        margins,
        accuracy,
    )


# -- which parameters are trained, and what has no fixed objective ---------------------------------


def _decays(
    model: nn.Module, weight_decay: Any, optimizer: torch.optim.Optimizer | None
) -> dict[str, float]:
    """Return the decay of every trained parameter, by name."""
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    if not names:
        raise ValueError("model: has no parameter that is trained")
    if optimizer is None:
        if weight_decay is None:
            raise ValueError("weight_decay, optimizer: got neither, need one")
        return dict.fromkeys(names.values(), positive_float("weight_decay", weight_decay))
    kind = type(optimizer).__name__
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        raise ValueError(f"optimizer: got {kind}, need one of torch.optim")
    if any(part in kind.lower() for part in _DECOUPLED) or any(
        group.get("decoupled_weight_decay") for group in groups
    ):
        raise ValueError(f"optimizer: got {kind}, whose decay is no term of the objective")
    decays = {
        names[id(p)]: float(group.get("weight_decay", 0.0))
        for group in groups
        for p in group["params"]
        if id(p) in names
    }
    if not decays:
        raise ValueError("optimizer: has no parameter of the model")
    if weight_decay is not None:
        largest = max(decays.values())
        if largest == 0:
            raise ValueError("optimizer: has no decay, of which weight_decay could be a change")
        factor = positive_float("weight_decay", weight_decay) / largest
        decays = {name: factor * decay for name, decay in decays.items()}
    return decays


def _require_fixed(model: nn.Module) -> None:
    """Refuse layers whose output in training depends on chance or on the batch."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = not (module.training or any(p.requires_grad for p in module.parameters()))
            if not (frozen and module.track_running_stats):
                raise ValueError(
                    f"model: has batch norm ({name!r}, {kind}), so its training has no objective "
                    "of the weights alone: every batch normalises itself, and decay turns the "
                    "weights before it. Train on with your own loop, at a low learning rate"
                )
        elif isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            raise ValueError(
                f"model: has dropout ({name!r}, p = {module.p:g}), so its training objective is an "
                "average over chance. Train on with your own loop"
            )


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


# -- the data --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Data:
    """Batches that can be gone through again and again."""

    batches: Callable[[], Iterator[Batch]]
    counts: NDArray[np.int64]

    @classmethod
    def read(
        cls, model: nn.Module, loader: Iterable[Any], labels: LabelsLike, device: torch.device
    ) -> _Data:
        """Check that all passes give the same, and keep small data."""

        def batches() -> Iterator[Batch]:
            for batch in loader:
                args, kwargs, found, mask = split_batch(batch, labels)
                moved = to_device((args, kwargs), device)
                args, kwargs = _double(moved)
                whole = found.to(device).long()
                if not bool((whole == found.to(device)).all()):
                    raise ValueError(f"labels: got {found.dtype} entries, need whole numbers")
                yield Batch(args, kwargs, whole, mask)

        seen = []
        for training in (True, False):
            model.train(training)
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()  # a frozen one, others were refused
            seen.append(_pass(model, batches()))
        (first, counts), (second, again) = seen
        if not np.array_equal(counts, again) or not math.isclose(first, second, rel_tol=SAME_LOSS):
            raise ValueError(
                f"loader: two passes, in training and in eval mode, gave the mean losses "
                f"{first:.6g} and {second:.6g} on {counts.sum()} and {again.sum()} samples; there "
                "is augmentation, a sampler, drop_last or dropout, so no fixed objective"
            )
        kept, size = [], 0
        for batch in batches():
            kept.append(batch)
            size += sum(t.nbytes for t in _tensors((batch.args, batch.kwargs)))
            if size > MOST_CACHED:
                return cls(batches, counts)
        return cls(lambda: iter(kept), counts)


def _pass(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, NDArray[np.int64]]:
    """Return the mean cross-entropy of all samples, and the counts of the classes."""
    total, counts = 0.0, np.zeros(0, dtype=np.int64)
    with torch.no_grad():
        for batch in batches:
            logits, own = _logits(model, batch)
            total += float(functional.cross_entropy(logits, own, reduction="sum"))
            if not len(counts):
                counts = np.zeros(logits.shape[1], dtype=np.int64)
            counts += np.bincount(own.cpu().numpy(), minlength=len(counts))
    if not counts.sum():
        raise ValueError("loader: has no sample with a label")
    if not math.isfinite(total):
        raise ValueError("model: its loss is not finite")
    return total / counts.sum(), counts


def _logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the logits and labels of the samples that count."""
    output = model(*batch.args, **batch.kwargs)
    logits = getattr(output, "logits", output)
    labels = batch.labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if not isinstance(logits, Tensor) or logits.ndim != 2 or labels.shape != logits.shape[:1]:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"model: gives {shape} for labels of shape {tuple(labels.shape)}; need logits of "
            "shape (B, K) for B labels"
        )
    kept = labels != IGNORED
    logits, labels = logits[kept], labels[kept]
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise ValueError(
            f"loader: labels from {int(labels.min())} to {int(labels.max())}, need 0 to "
            f"{logits.shape[1] - 1}"
        )
    return logits, labels


def _double(value: Any) -> Any:
    """Return floating-point tensors in double precision, wherever they are inside."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {name: _double(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_double(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


# -- the objective ---------------------------------------------------------------------------------


class _Loss(NamedTuple):
    """A loss whose class weights are 1 on average over all samples."""

    criterion: ProblemLoss
    total_weight: float

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return what some samples add to the mean loss of all."""
        mean: Tensor = self.criterion(logits, labels)
        return mean * (len(labels) / self.total_weight)


class _Objective:
    """Loss and decay of all samples as a function of the trained parameters."""

    def __init__(self, model: nn.Module, data: _Data, loss: _Loss, decays: Iterable[float]) -> None:
        self.model, self.data, self.loss = model, data, loss
        self.parameters = list(_trained(model).values())
        sizes = [p.numel() for p in self.parameters]
        self.decays = np.repeat(np.array(list(decays)), sizes)
        self.start = self._vector(self.parameters)

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return the objective and its gradient."""
        self.move_to(x)
        for parameter in self.parameters:
            parameter.grad = None
        value = 0.0
        for batch in self.data.batches():
            logits, own = _logits(self.model, batch)
            if not len(own):
                continue
            total = self.loss(logits, own)
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
            value += float(total.detach())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        pull = self.decays * x
        return value + float(pull @ x) / 2, self._vector(gradients) + pull

    def move_to(self, x: Array) -> None:
        """Set the parameters."""
        device = self.parameters[0].device
        with torch.no_grad():
            vector_to_parameters(torch.from_numpy(x.copy()).to(device), self.parameters)

    def outcome(self) -> tuple[Array, Array]:
        """Return margins at the class means, and accuracies, by class."""
        k = len(self.data.counts)
        sums, right = np.zeros((k, k)), np.zeros(k)
        with torch.no_grad():
            for batch in self.data.batches():
                logits, own = (part.cpu().numpy() for part in _logits(self.model, batch))
                np.add.at(sums, own, logits)
                each = np.arange(len(own))
                mine = logits[each, own].copy()
                logits[each, own] = -np.inf
                right += np.bincount(own, weights=mine > logits.max(axis=1), minlength=k)
        with np.errstate(invalid="ignore"):
            means, accuracy = sums / self.data.counts[:, None], right / self.data.counts
        mine = means.diagonal().copy()
        np.fill_diagonal(means, -np.inf)
        margins: Array = mine - means.max(axis=1)
        return margins, accuracy

    @staticmethod
    def _vector(parts: Iterable[Tensor]) -> Array:
        vector: Array = parameters_to_vector([p.detach() for p in parts]).cpu().numpy()
        return vector.copy()


class _Descent(NamedTuple):
    objective: float
    history: Array
    gradient: float

    @property
    def fall(self) -> float:
        """Share of the objective that the last quarter of the steps gained."""
        before = float(self.history[3 * (len(self.history) - 1) // 4])
        return (before - self.objective) / before


def _descend(objective: _Objective, iterations: int, tell: Progress | None) -> _Descent:
    """Minimise from the present weights; the model is left at the end."""
    from scipy.optimize import minimize

    latest = math.nan
    history: list[float] = []

    def function(x: Array) -> tuple[float, Array]:
        nonlocal latest
        latest, gradient = objective(x)
        if not history:
            history.append(latest)
        return latest, gradient

    def stepped(_: Array) -> None:
        history.append(latest)
        told(tell, len(history) - 1, iterations)

    minimize_it: Any = minimize  # its overloads know no gradient that comes with the value
    found = minimize_it(
        function,
        objective.start,
        jac=True,
        method="L-BFGS-B",
        callback=stepped,
        options={
            "maxiter": iterations,
            "maxfun": 2 * iterations + 20,
            "maxcor": _PAIRS,
            "gtol": 1e-9,
            "ftol": 1e-12,
        },
    )
    objective.move_to(found.x)
    pull = float(np.linalg.norm(objective.decays * found.x))
    size = float(np.linalg.norm(found.jac))
    return _Descent(float(found.fun), np.array(history), size / pull if pull else size)
