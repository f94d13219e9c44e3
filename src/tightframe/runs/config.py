"""The configuration of a training run, checked when it is made."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from tightframe.checks import choice, is_zero, positive_float, whole_number
from tightframe.data.registry import check_name, known_class_names
from tightframe.problem.class_names import NamesLike, class_names_of
from tightframe.problem.counts import (
    CountsLike,
    PerClass,
    by_label,
    compact_counts,
    counts_array,
    format_runs,
    num_classes,
    parse_counts,
)
from tightframe.problem.problem import Problem, require_no_targets
from tightframe.training.options import (
    HEAD_INITS,
    check_milestones,
    check_network,
    check_optimizer,
    own_feature_dim,
)

DEVICES = ("cpu", "gpu", "auto")
STRATEGIES = ("auto", "ddp")
LABELS = ("true", "random")
HEADS = ("linear", "fixed_etf")

#: Arguments that say where a run happens, not what it is: not part of its identity.
PLACE = ("data_root", "devices", "strategy")

#: Width of the features of a network that has none by itself (the MLP).
DEFAULT_FEATURE_DIM = 20

#: (weight_decay, feature_decay); the weight decay may be one number a head layer.
Setting = tuple[float | tuple[float, ...], float]

Config = TypeVar("Config")

# One number a class, which the problem stores as text of numbers.
_PER_CLASS = (
    "class_weights",
    "logit_adjustment",
    "class_margins",
    "logit_scale",
    "feature_weights",
)

# What changes the loss, or whose features decay.
_TERMS = (*_PER_CLASS, "label_smoothing", "smoothing_weights")

# Arguments that `RunConfig` and `Problem` share: what all settings of a run have in common.
_SHARED = (
    "loss",
    "bias",
    "bias_decay",
    "features",
    "depth",
    *_TERMS,
    "class_names",
)


@dataclass(frozen=True)
class RunConfig:
    """What to train and how; everything that the numbers of a run depend on.

    Parameters
    ----------
    data : str
        Name of a data set, see `tightframe.data.names`, or the path of an .npz file or folder of
        arrays.
    counts : str or iterable of int
        Training samples of every class that are taken; stored compactly.
    settings : sequence of (weight_decay, feature_decay) or of Problem
        One network is trained for each. Given as `Problem` objects, which must agree in all but
        their decays, they also set ``counts``, ``loss``, ``bias``, ``bias_decay``, ``features``,
        ``depth`` and all terms of the loss (``class_weights`` and so on), whatever was passed for
        those; stored as pairs.
    loss, bias, bias_decay, features, depth
        As in `Problem`.
    hidden : sequence of int
        Widths of the hidden layers of the MLP.
    feature_dim : int, optional
        Width of the features, and the `Problem.dim` of the prediction. None: 20 for the MLP, its
        own width for another network (512 for ``"resnet18"``). Another width than its own narrows
        the last block, as in Zhu et al. (2021) for d = K. Stored as a number.
    optimizer : {"adam", "sgd", "lbfgs"}
        L-BFGS needs all samples in one batch, and a learning rate that is the first step tried:
        1, or 0.1 as in Zhu et al.
    lr : float
        Learning rate at the start.
    momentum : float
        Of SGD.
    schedule : {"cosine", "step", "constant", "milestones"}
        Of the learning rate, see `tightframe.training.CollapseModule`.
    backbone_weight_decay : float
        Decay of all layers but the head, which the UFM does not know.
    epochs : int
        Passes over the training set.
    batch_size : int, optional
        Samples a step, at most; batches differ by one sample at most. None: all of them.
    measure_every : int, optional
        Epochs between measurements, and between checkpoints. None: 41 measurements, most of them
        early, after the epochs 0, 2, ..., 18 and then ever farther apart, by the same factor.
    seed : int
        Of the split, the subset, the initial weights and the order of the samples.
    device : {"cpu", "gpu", "auto"}
        Where to train.
    threads : int
        CPU threads of PyTorch; other numbers of threads round differently.
    network : str
        The backbone: ``"mlp"``, ``"resnet18"``, ``"resnet50"``, ``"vgg11"``, ``"vgg13"``,
        ``"vgg16"``, ``"densenet_cifar"``, or a package's model, ``"timm:MODEL"`` or
        ``"torchvision:MODEL"``.
    network_options : mapping
        As for `tightframe.training.build_backbone`, JSON-ready; those that equal the default are
        dropped.
    labels : {"true", "random"}
        Random: the training labels are permuted, counts kept (Zhu et al. 2021, figure 4).
    oversample : str or iterable of int, optional
        How many times every sample of each class is in the training set, written like counts
        (``"1x5,10x5"``), or ``"balance"``, which brings all to the largest count, see
        `tightframe.data.oversample`. The problems' counts are those after it.
    head : {"linear", "fixed_etf"}
        Fixed: a simplex ETF that is not trained (Zhu et al. 2021), ``depth=1``. Its rows have the
        length of the predicted classifier, so that on balanced data the prediction stays that of
        the training; 1 with ``decay_on="all"`` or where the predicted classifier is zero.
    head_init : {"uniform", "orthogonal"}
        Initial weights of a linear head's layers, see `tightframe.training.linear_head`. With
        several layers decays may win before the network has learned: PyTorch's uniform ones shorten
        vectors layer by layer, orthogonal ones do not.
    milestones : sequence of int
        Epochs from which on the learning rate is a further tenth, for ``schedule="milestones"``.
    warmup_epochs : int
        Epochs at the start in which all decays are multiplied by ``warmup_decay_factor``, in
        training only: what is measured has the full decays (Hong & Ling: the first sixth).
    warmup_decay_factor : float
        In [0, 1].
    decay_on : {"features", "all"}
        What decays in training. Features: features, head and bias, as in `Problem`. All: every
        parameter by ``weight_decay``, features not at all, as networks are usually trained. What
        that amounts to as a ``feature_decay`` is unknown: the prediction is that of the setting,
        the record says so and there is no verdict.
    max_seconds : float, optional
        Training and measuring of a setting ends with the first epoch after so many seconds, over
        interruptions; the result's status says so.
    class_names : sequence of str, mapping, str or path-like, optional
        As for `Problem`; by default those of a data set that has some.
    class_weights, logit_adjustment, class_margins, logit_scale, feature_weights
        As in `Problem`, of the counts after oversampling: text (``"1x5,10x5"``), one number a
        class, or a rule's name (``"balanced"``, ``"prior"``). Stored as text of the numbers, which
        `replace` keeps, whatever rule they came from; the default where they change nothing.
    label_smoothing, smoothing_weights
        As in `Problem`.
    data_root : path-like, optional
        Where the data set's files are, see `tightframe.data.load`. Not part of the identity.
    devices : int
        Processes of distributed training (DDP), one a device; with batches that the devices share.
        Not part of the identity.
    strategy : {"auto", "ddp"}
        Of Lightning. Not part of the identity.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it, what came and what is allowed.

    Notes
    -----
    Two configurations are equal if all arguments but `PLACE` are; `identity` is what is stored
    and hashed.

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
    feature_dim: int | None = None
    optimizer: str = "adam"
    lr: float = 5e-3
    momentum: float = 0.9
    schedule: str = "cosine"
    backbone_weight_decay: float = 0.0
    epochs: int = 1200
    batch_size: int | None = None
    measure_every: int | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    network: str = "mlp"
    network_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    labels: str = "true"
    oversample: CountsLike | None = None
    head: str = "linear"
    head_init: str = "uniform"
    milestones: Sequence[int] = ()
    warmup_epochs: int = 0
    warmup_decay_factor: float = 0.1
    decay_on: str = "features"
    max_seconds: float | None = None
    class_weights: PerClass | None = None
    logit_adjustment: PerClass | None = None
    label_smoothing: float = 0.0
    smoothing_weights: str = "own"
    class_margins: PerClass | None = None
    logit_scale: PerClass | None = None
    feature_weights: PerClass = "samples"
    class_names: NamesLike | None = None
    data_root: str | os.PathLike[str] | None = field(default=None, compare=False)
    devices: int = field(default=1, compare=False)
    strategy: str = field(default="auto", compare=False)

    def __post_init__(self) -> None:
        """Check every argument and store it in one canonical form."""
        self._take_data()
        self._take_settings()
        if self.class_names is not None:
            names = class_names_of(self.class_names)
            self._set("class_names", names)
            for name in ("counts", "oversample", *_PER_CLASS):
                self._set(name, by_label(name, getattr(self, name), names))
        self._set("counts", compact_counts(self.counts))
        self._take_oversample()
        for name in ("epochs", "measure_every", "threads"):
            if getattr(self, name) is not None or name != "measure_every":
                self._set(name, whole_number(name, getattr(self, name), 1))
        self._set("seed", seed_number(self.seed))
        self._take_network()
        self._take_optimizer()
        for name, allowed in (
            ("device", DEVICES),
            ("strategy", STRATEGIES),
            ("labels", LABELS),
            ("head", HEADS),
            ("head_init", HEAD_INITS),
        ):
            choice(name, getattr(self, name), allowed)
        self._set("devices", whole_number("devices", self.devices, 1))
        if self.max_seconds is not None:
            self._set("max_seconds", positive_float("max_seconds", self.max_seconds))
        problems = self.problems  # made here, so that a bad decay, loss, ... is refused now
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        for name in _TERMS:
            self._set(name, problems[0].to_dict().get(name, defaults[name]))
        self._check_against(problems)
        require_different(self.setting_names)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def _take_settings(self) -> None:
        settings = self.settings
        if not is_list(settings) or not settings:
            raise ValueError(
                f"settings: got {self.settings!r}, need at least one pair "
                "(weight_decay, feature_decay) or Problem"
            )
        problems = [setting for setting in settings if isinstance(setting, Problem)]
        if not problems:
            self._set("settings", tuple(pair(setting) for setting in settings))
            self._require_decays()
            return
        if len(problems) < len(settings):
            raise ValueError("settings: got pairs and Problems, need one kind")
        for problem in problems:
            require_no_targets(problem, "a run")
        for name in ("counts", *_SHARED):
            values = [problem.to_dict().get(name) for problem in problems]
            if any(value != values[0] for value in values[1:]):
                raise ValueError(f"settings: the Problems differ in {name}, only decays may differ")
            if values[0] is not None or name not in _TERMS:
                self._set(name, values[0])
            else:  # what the problems have not, they shall not have
                self._set(name, getattr(RunConfig, name))
        self._set(
            "settings", tuple((problem.weight_decay, problem.feature_decay) for problem in problems)
        )

    def _require_decays(self) -> None:
        """Say how a network trains without decays, which no problem is without."""
        for weight_decay, feature_decay in self._pairs:
            for name, given in (("weight_decay", weight_decay), ("feature_decay", feature_decay)):
                if any(is_zero(decay) for decay in _as_tuple(given)):
                    raise ValueError(
                        f"{name}: got {given}, need a finite number above 0; to train without "
                        "decays give small ones, which are what is predicted, and "
                        "warmup_epochs=epochs, warmup_decay_factor=0"
                    )

    def _take_data(self) -> None:
        self._set("data", check_name(self.data))
        if self.data_root is not None:
            try:
                self._set("data_root", os.fsdecode(self.data_root))
            except TypeError:
                raise ValueError(f"data_root: got {self.data_root!r}, need a path") from None

    def _take_oversample(self) -> None:
        if self.oversample is None:
            return
        counts = parse_counts(self.counts)
        if isinstance(self.oversample, str) and self.oversample == "balance":
            if len(counts) == 1:
                self._set("oversample", None)
            return
        factors = parse_counts(self.oversample, "oversample")
        classes, known = num_classes(factors), num_classes(counts)
        if classes != known:
            raise ValueError(f"oversample: got factors of {classes} classes, counts of {known}")
        once = all(run.count == 1 for run in factors)
        self._set("oversample", None if once else format_runs(factors))

    def _take_network(self) -> None:
        options = check_network(self.network, self.network_options, self.features)
        self._set("network_options", options)
        self._set("hidden", layer_widths(self.hidden))
        if self.network != "mlp" and self.hidden != RunConfig.hidden:
            raise ValueError(f"hidden: got {list(self.hidden)}, but {self.network} has none")
        width = self.feature_dim
        if width is None:
            width = own_feature_dim(self.network, options) or DEFAULT_FEATURE_DIM
        self._set("feature_dim", whole_number("feature_dim", width, 1))

    def _take_optimizer(self) -> None:
        check_optimizer(
            self.optimizer,
            self.lr,
            self.momentum,
            self.schedule,
            self.backbone_weight_decay,
            milestones=self.milestones,
            warmup_epochs=self.warmup_epochs,
            warmup_decay_factor=self.warmup_decay_factor,
            decay_on=self.decay_on,
        )
        for name in ("lr", "momentum", "backbone_weight_decay", "warmup_decay_factor"):
            self._set(name, float(getattr(self, name)))
        self._set("warmup_epochs", int(self.warmup_epochs))
        self._set("milestones", milestones_of(self.schedule, self.milestones, self.epochs))
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs: got {self.warmup_epochs}, more than the {self.epochs} epochs"
            )
        if self.optimizer == "lbfgs" and self.batch_size is not None:
            raise ValueError(
                f"batch_size: got {self.batch_size}, but L-BFGS needs all samples in one batch; "
                "leave it out"
            )
        if self.optimizer == "lbfgs" and self.devices > 1:
            raise ValueError(f"devices: got {self.devices}, L-BFGS runs on one")

    def _check_against(self, problems: tuple[Problem, ...]) -> None:
        """Refuse what does not go together with the problems."""
        first = problems[0]
        if self.batch_size is not None:
            size = whole_number("batch_size", self.batch_size, 1)
            if size > first.num_samples:
                raise ValueError(
                    f"batch_size: got {size}, more than the {first.num_samples} training samples"
                )
            if size < self.devices:
                raise ValueError(f"batch_size: got {size}, fewer than the {self.devices} devices")
        if self.head == "fixed_etf":
            if self.head_init != RunConfig.head_init:
                raise ValueError(
                    f"head_init: got {self.head_init!r}, but a fixed head has no other"
                )
            if self.depth != 1:
                raise ValueError(f"head: 'fixed_etf' is one layer, but depth is {self.depth}")
            if first.width is not None and first.width < first.num_classes - 1:
                raise ValueError(
                    f"head: a simplex ETF of {first.num_classes} classes needs features of width "
                    f"{first.num_classes - 1}, feature_dim is {first.width}"
                )
        if self.decay_on == "all":
            for problem in problems:
                if len(set(problem.weight_decays)) > 1:
                    raise ValueError(
                        f"decay_on: 'all' has one weight decay for all parameters, a setting has "
                        f"{list(problem.weight_decays)}"
                    )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problem of every setting, with the counts after oversampling."""
        counts: Any = self.counts
        if self.oversample == "balance":
            counts = np.full_like(counts_array(counts), counts_array(counts).max())
        elif self.oversample is not None:
            counts = counts_array(counts) * counts_array(self.oversample)
        shared = {name: getattr(self, name) for name in _SHARED}
        if self.class_names is None and (names := known_class_names(self.data)) is not None:
            shared["class_names"] = names if len(names) == len(counts_array(counts)) else None
        (weight_decay, feature_decay), *rest = self._pairs
        first = Problem(
            counts,
            weight_decay=weight_decay,
            feature_decay=feature_decay,
            dim=self.feature_dim,
            **shared,
        )
        # From the first one: class weights may be an iterator.
        others = (first.replace(weight_decay=w, feature_decay=h) for w, h in rest)
        return first, *others

    @property
    def subject(self) -> str:
        """What of the data is trained on, in words."""
        return f"training samples per class {self.counts}"

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Name of every setting, also of its folder: ``w0.02-h0.0002``."""
        return tuple(setting_name(*decays) for decays in self._pairs)

    @property
    def _pairs(self) -> tuple[Setting, ...]:
        return self.settings  # type: ignore[return-value]  # pairs since __post_init__

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON-ready values; `from_dict` is the inverse.

        Arguments newer than the first stored configurations (``network`` and what follows it) are
        left out where they have their default: what uses none of them keeps its hash.
        """
        fields = dataclasses.fields(self)
        later = fields[[f.name for f in fields].index("network") :]
        unused = {f.name for f in later if getattr(self, f.name) == _default(f)}
        values = {f.name: getattr(self, f.name) for f in fields}
        values["settings"] = [[list(w) if isinstance(w, tuple) else w, h] for w, h in self._pairs]
        for name in ("hidden", "milestones"):
            values[name] = list(values[name])
        values["network_options"] = dict(self.network_options)
        return {name: value for name, value in values.items() if name not in unused}

    def identity(self) -> dict[str, Any]:
        """Return `to_dict` without `PLACE`: all that the numbers of a run depend on.

        It is what ``run.json`` stores and `tightframe.runs.store.config_hash` takes.
        """
        return {name: value for name, value in self.to_dict().items() if name not in PLACE}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """Make a configuration from what `to_dict` returned, for example a stored one.

        Raises
        ------
        ValueError
            If a name is not an argument, or a value is out of range or of no use.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(
                f"{unknown[0]}: not an argument of RunConfig, there are {', '.join(known)}"
            )
        return made_from(cls, values)

    def replace(self, **changes: Any) -> RunConfig:
        """Return a copy with some arguments changed.

        Features as wide as the network has them by itself follow a change of the network.
        """
        values = self.to_dict()
        if {"network", "network_options"} & set(changes) and ":" not in self.network:
            own = own_feature_dim(self.network, self.network_options) or DEFAULT_FEATURE_DIM
            if self.feature_dim == own:
                values["feature_dim"] = None
        return self.from_dict(values | changes)


def made_from(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Make a configuration from arguments whose values may be anything.

    Raises
    ------
    ValueError
        If a value is out of range or of no use.
    """
    try:
        return kind(**values)
    except (TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"config: not that of a run ({error})") from error


def seed_number(value: Any) -> int:
    """Return a seed as a whole number.

    Raises
    ------
    ValueError
        If it is none from 0 to below 2**63.
    """
    seed = whole_number("seed", value, 0)
    if seed >= 2**63:  # PyTorch's generators take no larger ones
        raise ValueError(f"seed: got {seed}, need a whole number below 2**63")
    return seed


def layer_widths(value: Any) -> tuple[int, ...]:
    """Return the widths of hidden layers.

    Raises
    ------
    ValueError
        If they are no sequence of whole numbers, at least 1.
    """
    if not is_list(value):
        raise ValueError(f"hidden: got {value!r}, need a sequence of layer widths")
    return tuple(whole_number("hidden", width, 1) for width in value)


def milestones_of(schedule: str, value: Any, epochs: int) -> tuple[int, ...]:
    """Return the milestones of a run.

    Raises
    ------
    ValueError
        As `check_milestones`, or if the run has ended before the last.
    """
    milestones = check_milestones(schedule, value)
    if milestones and milestones[-1] >= epochs:
        raise ValueError(
            f"milestones: got {milestones[-1]}, need epochs below the {epochs} of the run"
        )
    return milestones


def require_different(names: Sequence[str]) -> None:
    """Refuse settings of which one is given twice.

    Raises
    ------
    ValueError
    """
    doubles = {name for name in names if names.count(name) > 1}
    if doubles:
        raise ValueError(f"settings: {min(doubles)} is given twice")


def setting_name(weight_decay: float | tuple[float, ...], feature_decay: float) -> str:
    """Return the name of a setting, also of its folder: ``w0.02-h0.0002``."""
    layers = "_".join(f"{decay:.6g}" for decay in _as_tuple(weight_decay))
    return f"w{layers}-h{feature_decay:.6g}"


def _default(f: dataclasses.Field[Any]) -> Any:
    made = f.default_factory
    return f.default if made is dataclasses.MISSING else made()


def is_list(value: Any) -> bool:
    """Tell whether a value is a sequence, and no text."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def pair(setting: Any) -> Setting:
    """Return (weight_decay, feature_decay) as tuples.

    Raises
    ------
    ValueError
        If it is no such pair.
    """
    if not is_list(setting) or len(setting) != 2:
        raise ValueError(f"settings: got {setting!r}, need a pair (weight_decay, feature_decay)")
    weight_decay, feature_decay = setting
    if is_list(weight_decay):
        weight_decay = tuple(weight_decay)
    return weight_decay, feature_decay


def _as_tuple(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
