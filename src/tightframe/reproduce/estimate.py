"""What the networks of figures will take: multiply-adds, time and memory, before any is trained.

A network's multiply-adds are counted by PyTorch in one forward pass without numbers (on its device
``meta``); a training step takes three times as many, the backward pass included, and a measurement
of the training set as many as a forward pass. What a step keeps for its backward pass is seen in
the same pass. Reading data, measuring the test set, and tasks without a network are left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tightframe.checks import choice, whole_number
from tightframe.data.registry import known_input_shape
from tightframe.reproduce.spec import SCALES, Task, find_figures
from tightframe.reproduce.tasks import seeded, torch_device
from tightframe.runs.config import DEVICES, RunConfig
from tightframe.shown import record
from tightframe.training.options import measured_epochs

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Multiply-adds a second that a GPU is taken to do where there is none to be measured: a data
#: centre's with convolutions in float32.
GPU_THROUGHPUT = 5e12

#: Seconds that a step takes besides, for what Lightning does; assumed.
STEP_SECONDS = 2e-3

#: Multiply-adds of a step in which a throughput is measured, at most, but for the smallest batch.
_MEASURED = {"cpu": 6e9, "cuda": 2e12}

#: A forward pass, and a backward pass of twice as many multiply-adds.
_TRAINING = 3

#: Evaluations of the loss a step, of the optimiser that does not make do with one.
_EVALUATIONS = {"lbfgs": 20}

#: Numbers beside every weight in a step: its gradient and what the optimiser remembers.
_REMEMBERED = {"adam": 1 + 2, "sgd": 1 + 1, "lbfgs": 1 + 2 * 10 + 4}

_FLOAT = 4  # bytes

#: Samples of the smallest batch: batch norm refuses to normalise one.
_FEWEST = 2


@record
@dataclass(frozen=True)
class Shape:
    """What a network is made of: arguments of `build_backbone` and `linear_head`."""

    network: str
    options: tuple[tuple[str, Any], ...]
    hidden: tuple[int, ...]
    feature_dim: int | None
    features: str
    num_classes: int
    depth: int
    bias: bool
    input_shape: tuple[int, ...]

    def model(self) -> nn.Module:
        """Make the network, backbone and head."""
        from torch import nn

        from tightframe.training.backbones import build_backbone
        from tightframe.training.networks import linear_head

        given = dict(self.options) | ({"hidden": self.hidden} if self.network == "mlp" else {})
        backbone = build_backbone(
            self.network, self.input_shape, self.feature_dim, self.features, **given
        )
        width = int(backbone.feature_dim)  # type: ignore[arg-type]
        head = linear_head(width, self.num_classes, depth=self.depth, bias=self.bias)
        return nn.Sequential(backbone, head)


@record
@dataclass(frozen=True)
class NetworkCost:
    """What a network of a task takes.

    Attributes
    ----------
    parameters : int
    multiply_adds : int
        Of one sample's forward pass.
    samples : int
        Samples an epoch, of all settings together.
    passes : int
        Of every sample, each of as many multiply-adds as a forward pass.
    steps : int
        Of the optimiser.
    memory : int
        Bytes on one device: weights, gradients, the optimiser's state, and what a step on its share
        of a batch keeps for the backward pass.
    batch : int
        That share, in samples.
    shape : Shape
    """

    parameters: int
    multiply_adds: int
    samples: int
    passes: int
    steps: int
    memory: int
    batch: int
    shape: Shape

    @property
    def total(self) -> int:
        """Multiply-adds of the whole training."""
        return self.multiply_adds * self.samples * self.passes

    def seconds(self, throughput: float, devices: int = 1) -> float:
        """Return the time that it takes at a throughput of one device."""
        return self.total / throughput / devices + self.steps * STEP_SECONDS


@record
@dataclass(frozen=True)
class FigureCost:
    """What the networks of a figure take; all figures together have the name "all".

    Attributes
    ----------
    name : str
    networks, parameters : int
        How many, and the parameters of the largest.
    multiply_adds : int
        Of all training.
    seconds : float
        One after the other.
    memory : int
        Bytes of the largest on one device.
    """

    name: str
    networks: int
    parameters: int
    multiply_adds: int
    seconds: float
    memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON-ready values."""
        return dict(vars(self))


@record
@dataclass(frozen=True)
class Estimate:
    """What figures take on a machine.

    Attributes
    ----------
    figures : tuple of FigureCost
        Those with networks, in the papers' order; last all of them, tasks that they share once.
        Empty if there is no network.
    devices : int
        Processes that train a network together.
    measured : bool
        Whether a step of every network was timed here, or else `GPU_THROUGHPUT` is assumed.
    """

    figures: tuple[FigureCost, ...]
    devices: int
    measured: bool

    @property
    def basis(self) -> str:
        """What the times rest on, in a sentence."""
        how = (
            "as fast as in a step of each that was timed here"
            if self.measured
            else f"at {GPU_THROUGHPUT:.2g} multiply-adds a second (assumed: no GPU is here)"
        )
        return (
            f"Times are of one network after the other, {how}, devices: {self.devices}, and "
            f"{1000 * STEP_SECONDS:g} ms a step besides; memory is that of weights, gradients, "
            "optimiser and activations."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON-ready values."""
        return vars(self) | {"figures": [figure.to_dict() for figure in self.figures]}


def estimate(
    names: str | Sequence[str],
    *,
    scale: str = "smoke",
    device: str | None = None,
    devices: int = 1,
    data_root: str | None = None,
) -> Estimate:
    """Estimate what the networks of figures take; none is trained, no data set is read.

    Parameters
    ----------
    names, scale, device, devices, data_root
        As of `tightframe.reproduce.folder.reproduce`.

    Raises
    ------
    ValueError
        If a name or option is not allowed, or the shape of a user's data set cannot be read.
    """
    chosen = find_figures(names)
    choice("scale", scale, SCALES)
    device = device or ("auto" if scale == "paper" else "cpu")
    choice("device", device, DEVICES)
    work = {
        f"{paper.name}/{figure.name}": [seeded(task, 0, device) for task in figure.tasks(scale)]
        for paper, figure in chosen
    }
    return estimate_tasks(work, device, devices=devices, data_root=data_root)


def estimate_tasks(
    work: Mapping[str, Sequence[Task]],
    device: str,
    *,
    devices: int = 1,
    data_root: str | None = None,
) -> Estimate:
    """Estimate what the networks among the tasks of figures take, see `estimate`.

    Parameters
    ----------
    work : mapping of str to sequence of Task
        Name of a figure to its tasks, seeds and device filled in.
    device : {"cpu", "gpu", "auto"}
    devices, data_root
        As of `estimate`.
    """
    devices = whole_number("devices", devices)
    known: dict[str, NetworkCost] = {}
    for task in (task for tasks in work.values() for task in tasks if task.kind == "network"):
        if task.hash not in known:
            known[task.hash] = network_cost(task, devices, data_root)
    if not known:
        return Estimate((), devices, measured=False)
    try:
        place: str | None = torch_device(device)
    except ValueError:  # to be run elsewhere
        place = None
    seconds = {
        key: cost.seconds(
            GPU_THROUGHPUT if place is None else throughput(cost.shape, cost.batch, place), devices
        )
        for key, cost in known.items()
    }
    figures = []
    for name, tasks in (*work.items(), ("all", [t for own in work.values() for t in own])):
        keys = {task.hash for task in tasks} & known.keys()
        if keys:
            costs = [known[key] for key in keys]
            figures.append(
                FigureCost(
                    name,
                    len(costs),
                    parameters=max(cost.parameters for cost in costs),
                    multiply_adds=sum(cost.total for cost in costs),
                    seconds=math.fsum(seconds[key] for key in keys),
                    memory=max(cost.memory for cost in costs),
                )
            )
    return Estimate(tuple(figures), devices, measured=place is not None)


def network_cost(task: Task, devices: int = 1, data_root: str | None = None) -> NetworkCost:
    """Return what the networks of a task of that kind take, one a setting, together.

    Raises
    ------
    ValueError
        If the configuration is none, or the shape of a user's data set cannot be read.
    """
    config = RunConfig.from_dict(dict(task.arguments["config"]))
    problem = config.problems[0]
    samples, settings = problem.num_samples, len(config.settings)
    batch = samples if config.batch_size is None else config.batch_size
    shape = Shape(
        config.network,
        tuple(sorted(config.network_options.items())),
        tuple(config.hidden),
        config.feature_dim,
        config.features,
        problem.num_classes,
        config.depth,
        config.bias != "none",
        _input_shape(config, data_root),
    )
    parameters, multiply_adds, kept = _passed(shape)
    share = batch if config.optimizer == "lbfgs" else -(-batch // devices)
    steps = -(-samples // batch) * config.epochs
    measurements = len(measured_epochs(config.epochs, config.measure_every))
    return NetworkCost(
        parameters=parameters,
        multiply_adds=multiply_adds,
        samples=samples * settings,
        passes=_TRAINING * _EVALUATIONS.get(config.optimizer, 1) * config.epochs + measurements,
        steps=steps * settings,
        memory=_FLOAT * parameters * (1 + _REMEMBERED[config.optimizer]) + kept * share,
        batch=share,
        shape=shape,
    )


def _input_shape(config: RunConfig, data_root: str | None) -> tuple[int, ...]:
    shape = known_input_shape(config.data)
    if shape is not None:
        return shape
    from tightframe.data.registry import load

    return tuple(load(config.data, root=data_root or config.data_root).input_shape)


@cache
def _passed(shape: Shape) -> tuple[int, int, int]:
    """Return parameters, and of a sample the multiply-adds and the bytes kept for the way back."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tightframe.training.options import package_model

    # What a package does on the device without memory is not known.
    place = "cpu" if package_model(shape.network) else "meta"
    with torch.random.fork_rng(devices=[]), torch.device(place):
        model = shape.model()
        own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
        kept: dict[int, Any] = {}  # held, so that no other storage gets their numbers

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        counter = FlopCounterMode(display=False)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), counter:
            model(torch.empty(_FEWEST, *shape.input_shape))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = sum(storage.nbytes() for storage in kept.values())
    # A multiply-add is two operations.
    return parameters, counter.get_total_flops() // (2 * _FEWEST), size // _FEWEST


@cache
def throughput(shape: Shape, batch: int, device: str) -> float:
    """Return the multiply-adds a second of a network's steps, timed here.

    Parameters
    ----------
    shape : Shape
    batch : int
        Samples a step; fewer are taken where the step would take long.
    device : {"cpu", "cuda"}
    """
    import torch

    _, multiply_adds, _ = _passed(shape)
    most = int(_MEASURED[device] / (_TRAINING * multiply_adds))
    samples = max(min(batch, most), _FEWEST)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as runs have it
    try:
        with torch.random.fork_rng(devices=[]):
            model = shape.model().to(device)
            inputs = torch.rand(samples, *shape.input_shape, device=device)
        _step_seconds(model, inputs)  # sets everything up
        seconds = _step_seconds(model, inputs)
    finally:
        torch.set_num_threads(threads)
    return _TRAINING * multiply_adds * samples / seconds


def _step_seconds(model: nn.Module, inputs: Tensor) -> float:
    """Return the seconds of a forward and a backward pass."""
    import torch

    start = time.perf_counter()
    model.zero_grad()
    model(inputs).square().sum().backward()
    if inputs.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
