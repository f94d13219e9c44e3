"""The configuration of a run on text, and which kind of run a configuration is of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from tightframe.checks import choice, positive_float, whole_number
from tightframe.data.text import TEXT, TOKENS, is_text
from tightframe.problem.problem import Problem
from tightframe.problem.tokens import MAX_CONTEXT, NextTokens
from tightframe.runs.config import (
    DEVICES,
    RunConfig,
    Setting,
    is_list,
    layer_widths,
    made_from,
    milestones_of,
    pair,
    require_different,
    seed_number,
    setting_name,
)
from tightframe.training.options import check_optimizer

#: What features decay by: every occurrence of a context, or every context once.
FEATURE_WEIGHTS = ("samples", "contexts")

#: Decays by default, whose lambda is 3e-5 where every occurrence decays, else 9.5e-4.
SETTINGS = {"samples": (3e-3, 3e-7), "contexts": (3e-2, 3e-5)}

#: Width of the features beyond the certified rank, by default.
SPARE = 8

#: Devices, dtypes and the like: not part of a run's identity.
_PLACE = ("data_root",)


@dataclass(frozen=True)
class TextConfig:
    """What to train on which text; everything that the numbers of a run depend on.

    A small network learns which token follows a context of the last few: embeddings, a multilayer
    perceptron and a linear head. Contexts decay as the theory's features do, see `Problem`, so that
    what the head must become is known before.

    Parameters
    ----------
    data : str
        ``"text"`` for one that ships with Debian or Python, ``"text:FILE"`` or a ``.txt`` file,
        see `tightframe.data.read_text`.
    tokens : {"letters", "characters", "words"}
        What the text is parted into, see `tightframe.data.Text.tokens`.
    context, min_count : int
        Tokens in a context, and how often one must be seen to be kept, as in
        `Problem.from_tokens`.
    settings : sequence of (weight_decay, feature_decay), optional
        One network is trained for each. None: (3e-3, 3e-7), or (3e-2, 3e-5) where contexts decay
        once.
    bias, bias_decay
        As in `Problem`.
    feature_weights : {"samples", "contexts"}
        Whether every occurrence decays, or every distinct context once.
    embedding_dim : int
        Width of a token's embedding.
    hidden : sequence of int
        Widths of the hidden layers.
    feature_dim : int, optional
        Width of the features, at least the rank that the solution needs. None: 8 more than that.
    optimizer, lr, momentum, schedule, milestones, backbone_weight_decay
        As in `RunConfig`.
    epochs : int
        Steps: each sees all contexts, as often as they occur in the text.
    measure_every : int
        Epochs between measurements, and between checkpoints.
    seed : int
        Of the initial weights.
    device, threads, max_seconds, data_root
        As in `RunConfig`.
    digest : str, optional
        `tightframe.data.Text.digest` of the text, which a record has: another text is refused.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it, what came and what is allowed.

    Examples
    --------
    >>> TextConfig(epochs=10).setting_names
    ('w0.003-h3e-07',)
    """

    # What runs on samples choose from.
    network: ClassVar[str] = "mlp"
    devices: ClassVar[int] = 1
    strategy: ClassVar[str] = "auto"

    data: str = TEXT
    tokens: str = "letters"
    context: int = 2
    min_count: int = 100
    settings: Sequence[Setting] | None = None
    bias: str = "none"
    bias_decay: float | None = None
    feature_weights: str = "samples"
    embedding_dim: int = 64
    hidden: Sequence[int] = (256,)
    feature_dim: int | None = None
    optimizer: str = "adam"
    lr: float = 1e-2
    momentum: float = 0.9
    schedule: str = "cosine"
    milestones: Sequence[int] = ()
    backbone_weight_decay: float = 0.0
    epochs: int = 2000
    measure_every: int = 50
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    max_seconds: float | None = None
    digest: str | None = None
    data_root: str | os.PathLike[str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Check every argument and store it in one canonical form."""
        if not is_text(self.data):
            raise ValueError(f"data: got {self.data!r}, need 'text', 'text:FILE' or a .txt file")
        self._set("data", os.fspath(self.data))
        if self.data_root is not None:
            self._set("data_root", os.fsdecode(self.data_root))
        for name, allowed in (
            ("tokens", TOKENS),
            ("feature_weights", FEATURE_WEIGHTS),
            ("device", DEVICES),
        ):
            choice(name, getattr(self, name), allowed)
        whole = ("context", "min_count", "embedding_dim", "epochs", "measure_every", "threads")
        for name in whole:
            self._set(name, whole_number(name, getattr(self, name), 1))
        if self.context > MAX_CONTEXT:
            raise ValueError(f"context: got {self.context}, need at most {MAX_CONTEXT}")
        self._set("seed", seed_number(self.seed))
        self._set("hidden", layer_widths(self.hidden))
        if self.feature_dim is not None:
            self._set("feature_dim", whole_number("feature_dim", self.feature_dim, 1))
        self._take_optimizer()
        if self.max_seconds is not None:
            self._set("max_seconds", positive_float("max_seconds", self.max_seconds))
        self._take_settings()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the class is frozen

    def _take_optimizer(self) -> None:
        check_optimizer(
            self.optimizer,
            self.lr,
            self.momentum,
            self.schedule,
            self.backbone_weight_decay,
            milestones=self.milestones,
        )
        for name in ("lr", "momentum", "backbone_weight_decay"):
            self._set(name, float(getattr(self, name)))
        self._set("milestones", milestones_of(self.schedule, self.milestones, self.epochs))

    def _take_settings(self) -> None:
        settings: Any = self.settings
        if settings is None:
            settings = (SETTINGS[self.feature_weights],)
        if not is_list(settings) or not settings:
            raise ValueError(
                f"settings: got {settings!r}, need at least one pair (weight_decay, feature_decay)"
            )
        self._set("settings", tuple(pair(setting) for setting in settings))
        self.problems(np.ones(2, dtype=np.int64), np.eye(2))  # so that a bad decay is refused now
        require_different(self.setting_names)

    @property
    def subject(self) -> str:
        """What of the data is trained on, in words."""
        return (
            f"{self.tokens} after contexts of {self.context} that are seen {self.min_count} times "
            "or more"
        )

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Name of every setting, also of its folder."""
        return tuple(setting_name(*setting) for setting in self.settings or ())

    def problems_of(self, found: NextTokens) -> tuple[Problem, ...]:
        """Return the problem of every setting, with the next tokens of a text."""
        return self.problems(found.occurrences, found.targets, found.labels)

    def problems(
        self, counts: Any, targets: Any, labels: Sequence[str] | None = None
    ) -> tuple[Problem, ...]:
        """Return the problem of every setting, for any contexts."""
        (weight_decay, feature_decay), *rest = self.settings or ()
        first = Problem(
            counts,
            targets=targets,
            weight_decay=weight_decay,
            feature_decay=feature_decay,
            bias=self.bias,
            bias_decay=self.bias_decay,
            feature_weights=self.feature_weights,
            dim=self.feature_dim,
            class_names=labels,
        )
        return first, *(first.replace(weight_decay=w, feature_decay=h) for w, h in rest)

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments as JSON-ready values; `from_dict` is the inverse."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("hidden", "milestones"):
            values[name] = list(values[name])
        return values | {"settings": [list(setting) for setting in self.settings or ()]}

    def identity(self) -> dict[str, Any]:
        """Return `to_dict` without where the files are: all that the numbers depend on."""
        return {name: value for name, value in self.to_dict().items() if name not in _PLACE}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextConfig:
        """Make a configuration from what `to_dict` returned, for example a stored one.

        Raises
        ------
        ValueError
            If a name is not an argument, or a value is out of range or of no use.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"{unknown[0]}: not for text, whose runs have {', '.join(known)}")
        return made_from(cls, values)

    def replace(self, **changes: Any) -> TextConfig:
        """Return a copy with some arguments changed."""
        return self.from_dict(self.to_dict() | changes)


def configuration(values: Mapping[str, Any]) -> RunConfig | TextConfig:
    """Return the configuration that arguments are of: on text, or on samples with classes.

    Raises
    ------
    ValueError
        As either; an argument that only runs on text have says so.
    """
    if is_text(values.get("data")):
        return TextConfig.from_dict(values)
    own = {f.name for f in dataclasses.fields(TextConfig)}
    own -= {f.name for f in dataclasses.fields(RunConfig)}
    foreign = sorted(own & set(values))
    if foreign:
        raise ValueError(
            f"{foreign[0]}: for text only, and data is {values.get('data', RunConfig.data)!r}; "
            "name 'text', 'text:FILE' or a .txt file"
        )
    try:
        return RunConfig.from_dict(values)
    except ValueError as error:
        if str(error).startswith("data: got"):
            raise ValueError(f"{error}; for text 'text', 'text:FILE' or a .txt file") from None
        raise
