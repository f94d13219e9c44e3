"""The configuration of a training run, checked when it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightframe.data.registry import names
from tightframe.problem import CountsLike, Problem, format_counts, parse_counts, whole_number
from tightframe.training.options import check_optimizer

DEVICES = ("cpu", "gpu", "auto")

#: (weight_decay, feature_decay); the weight decay may be one number a head layer.
Setting = tuple[float | tuple[float, ...], float]

# Arguments that `RunConfig` and `Problem` share: what all settings of a run have in common.
_SHARED = ("loss", "bias", "bias_decay", "features", "depth")


@dataclass(frozen=True)
class RunConfig:
    """What to train and how; everything that the numbers of a run depend on.

    Parameters
    ----------
    data : str
        Name of a data set, see `tightframe.data.names`.
    counts : str or iterable of int
        Training samples of every class; stored compactly.
    settings : sequence of (weight_decay, feature_decay) or of Problem
        One network is trained for each. Given as `Problem` objects, which must agree in all but
        their decays, they also set ``counts``, ``loss``, ``bias``, ``bias_decay``, ``features``
        and ``depth``, whatever was passed for those; stored as pairs.
    loss, bias, bias_decay, features, depth
        As in `Problem`.
    hidden : sequence of int
        Widths of the hidden layers of the MLP.
    feature_dim : int
        Width of the features, and the `Problem.dim` of the prediction.
    optimizer : {"adam", "sgd"}
    lr : float
        Learning rate at the start.
    momentum : float
        Of SGD.
    schedule : {"cosine", "step", "constant"}
        Of the learning rate, see `tightframe.training.CollapseModule`.
    backbone_weight_decay : float
        Decay of all layers but the head, which the UFM does not know.
    epochs : int
        Passes over the training set.
    batch_size : int, optional
        Samples a step, at most; batches differ by one sample at most. None: all of them.
    measure_every : int
        Epochs between measurements, and between checkpoints.
    seed : int
        Of the split, the subset, the initial weights and the order of the samples.
    device : {"cpu", "gpu", "auto"}
        Where to train.
    threads : int
        CPU threads of PyTorch; other numbers of threads round differently.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it, what came and what is allowed.

    Notes
    -----
    The default decays have lambda = sqrt(weight_decay feature_decay) of 2e-3 and 8e-3, on the two
    sides of the minority's collapse threshold sqrt(10)/550 = 5.7e-3. Only their product shapes the
    prediction; their ratio of 100 shapes the training (with equal decays the default run only gets
    to distance 0.12). Two choices need other defaults (distance of the logits to the prediction at
    lambda = 2e-3, seed 0):

    - ``optimizer="sgd"``: ``lr=0.3``, 2000 epochs and decays (6e-3, 2e-3/3) end at 0.003;
    - ``features="nonnegative"``: at width 20 some classes die and stay dead (0.40); 1500 epochs
      end at 0.036 with ``feature_dim=64`` and at 0.016 with 128.
    """

    data: str = "digits"
    counts: CountsLike = "100x5,10x5"
    settings: Sequence[Setting | Problem] = ((2e-2, 2e-4), (8e-2, 8e-4))
    loss: str = "cross_entropy"
    bias: str = "none"
    bias_decay: float | None = None
    features: str = "real"
    depth: int = 1
    hidden: Sequence[int] = (256, 256)
    feature_dim: int = 20
    optimizer: str = "adam"
    lr: float = 5e-3
    momentum: float = 0.9
    schedule: str = "cosine"
    backbone_weight_decay: float = 0.0
    epochs: int = 1200
    batch_size: int | None = None
    measure_every: int = 30
    seed: int = 0
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        """Check every argument and store it in one canonical form."""
        if self.data not in names():
            raise ValueError(f"data: got {self.data!r}, allowed are {', '.join(names())}")
        self._take_settings()
        self._set("counts", format_counts(parse_counts(self.counts)))
        for name, least in (("feature_dim", 1), ("epochs", 1), ("measure_every", 1)):
            self._set(name, whole_number(name, getattr(self, name), least))
        self._set("seed", whole_number("seed", self.seed, 0))
        self._set("threads", whole_number("threads", self.threads, 1))
        if not _is_list(self.hidden):
            raise ValueError(f"hidden: got {self.hidden!r}, need a sequence of layer widths")
        self._set("hidden", tuple(whole_number("hidden", width, 1) for width in self.hidden))
        check_optimizer(
            self.optimizer, self.lr, self.momentum, self.schedule, self.backbone_weight_decay
        )
        for name in ("lr", "momentum", "backbone_weight_decay"):
            self._set(name, float(getattr(self, name)))
        if self.device not in DEVICES:
            raise ValueError(f"device: got {self.device!r}, allowed are {', '.join(DEVICES)}")
        problems = self.problems  # made here, so that a bad decay, loss, ... is refused now
        if self.batch_size is not None:
            size = whole_number("batch_size", self.batch_size, 1)
            if size > problems[0].num_samples:
                raise ValueError(
                    f"batch_size: got {size}, more than the {problems[0].num_samples} "
                    "training samples"
                )
        doubles = {name for name in self.setting_names if self.setting_names.count(name) > 1}
        if doubles:
            raise ValueError(f"settings: {min(doubles)} is given twice")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def _take_settings(self) -> None:
        settings = self.settings
        if not _is_list(settings) or not settings:
            raise ValueError(
                f"settings: got {self.settings!r}, need at least one pair "
                "(weight_decay, feature_decay) or Problem"
            )
        problems = [setting for setting in settings if isinstance(setting, Problem)]
        if not problems:
            self._set("settings", tuple(_pair(setting) for setting in settings))
            return
        if len(problems) < len(settings):
            raise ValueError("settings: got pairs and Problems, need one kind")
        for name in ("counts", *_SHARED):
            values = [problem.to_dict()[name] for problem in problems]
            if any(value != values[0] for value in values[1:]):
                raise ValueError(f"settings: the Problems differ in {name}, only decays may differ")
            self._set(name, values[0])
        self._set(
            "settings", tuple((problem.weight_decay, problem.feature_decay) for problem in problems)
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problem of every setting."""
        shared = {name: getattr(self, name) for name in _SHARED}
        return tuple(
            Problem(
                self.counts,
                weight_decay=weight_decay,
                feature_decay=feature_decay,
                dim=self.feature_dim,
                **shared,
            )
            for weight_decay, feature_decay in self._pairs
        )

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Name of every setting, also of its folder: ``w0.02-h0.0002``."""
        return tuple(
            "w" + "_".join(f"{w:.6g}" for w in _as_tuple(weight_decay)) + f"-h{feature_decay:.6g}"
            for weight_decay, feature_decay in self._pairs
        )

    @property
    def _pairs(self) -> tuple[Setting, ...]:
        return self.settings  # type: ignore[return-value]  # pairs since __post_init__

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON-ready values; `from_dict` is the inverse."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["settings"] = [[list(w) if isinstance(w, tuple) else w, h] for w, h in self._pairs]
        values["hidden"] = list(self.hidden)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Make a configuration from what `to_dict` returned, for example a stored one.

        Raises
        ------
        ValueError
            If a name is not an argument, or a value is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{unknown[0]}: not an argument of RunConfig")
        return cls(**values)

    def replace(self, **changes: Any) -> RunConfig:
        """Return a copy with some arguments changed."""
        return self.from_dict(self.to_dict() | changes)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _pair(setting: Any) -> Setting:
    if not _is_list(setting) or len(setting) != 2:
        raise ValueError(f"settings: got {setting!r}, need a pair (weight_decay, feature_decay)")
    weight_decay, feature_decay = setting
    if _is_list(weight_decay):
        weight_decay = tuple(weight_decay)
    return weight_decay, feature_decay


def _as_tuple(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
