"""State: what the page's controls say, as a link's query and as a Problem."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tightframe.problem.layers import format_layers, parse_layers
from tightframe.problem.problem import LOSS_ARGUMENTS, LOSSES, Problem, require_no_targets

#: What the page can show, and what its tabs are called.
VIEWS = {
    "classes": "Classes",
    "advice": "What to change",
    "measured": "My network",
    "margins": "Margins",
    "geometry": "Matrices",
    "phase": "Phase diagram",
    "code": "Code",
}

#: Views of earlier links, and where what they showed is now.
_EARLIER = {"path": "margins"}

#: More text than this in one control is refused.
MAX_TEXT = 4000


@dataclass(frozen=True)
class State:
    """The text of every control; `problem` checks it.

    Attributes
    ----------
    counts, loss, weight_decay, feature_decay, bias, bias_decay, features, depth, dim : str
        Arguments of `tightframe.Problem`; empty: not given.
    class_weights, logit_adjustment, label_smoothing, smoothing_weights : str
        Likewise.
    class_margins, logit_scale, feature_weights : str
        Likewise.
    view : str
        Which of `VIEWS` is shown.
    margin, feature_decay_of : str
        Arguments of `tightframe.advise`.
    """

    counts: str = "500x5,100x5"
    loss: str = "cross_entropy"
    weight_decay: str = "0.005"
    feature_decay: str = "0.001"
    bias: str = "none"
    bias_decay: str = ""
    features: str = "real"
    depth: str = "1"
    dim: str = ""
    class_weights: str = ""
    logit_adjustment: str = ""
    label_smoothing: str = ""
    smoothing_weights: str = ""
    class_margins: str = ""
    logit_scale: str = ""
    feature_weights: str = ""
    view: str = "classes"
    margin: str = ""
    feature_decay_of: str = "sample"

    def __post_init__(self) -> None:
        object.__setattr__(self, "view", _EARLIER.get(self.view, self.view))

    @classmethod
    def from_query(cls, query: str) -> State:
        """Read a link's query; controls that it does not name keep their default.

        Raises
        ------
        ValueError
            If it names something else, or a view that there is not.
        """
        given = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
        names = [field.name for field in fields(cls)]
        for name, text in given.items():
            if name not in names:
                raise ValueError(f"link: got {name[:60]!r}, allowed are {', '.join(names)}")
            if len(text) > MAX_TEXT:
                raise ValueError(f"{name}: got {len(text)} characters, allowed are {MAX_TEXT}")
        state = cls(**given)
        if state.view not in VIEWS:
            raise ValueError(f"view: got {state.view[:60]!r}, allowed are {', '.join(VIEWS)}")
        return state

    @classmethod
    def from_problem(cls, problem: Problem, **others: str) -> State:
        """Return the state whose problem is the given one.

        Raises
        ------
        ValueError
            If the problem has targets, for which there is no control.
        """
        require_no_targets(problem, "the explorer")
        values: dict[str, str] = {}
        for name, value in problem.to_dict().items():
            if isinstance(value, list):
                value = format_layers(value)
            values[name] = "" if value is None else str(value)
        return cls(**(values | others))

    def query(self) -> str:
        """Return what a link needs to bring this state back, without the question mark."""
        default = asdict(State())
        return urlencode({k: v for k, v in asdict(self).items() if v != default[k]}, safe=",*")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `tightframe.Problem`, those with their default left out.

        Raises
        ------
        ValueError
            If a text is not a number.
        """
        for name, text in asdict(self).items():
            if len(text) > MAX_TEXT:
                raise ValueError(f"{name}: got {len(text)} characters, allowed are {MAX_TEXT}")
        given: dict[str, Any] = {"counts": self.counts.strip()}
        if self.loss != LOSSES[0]:
            given["loss"] = self.loss
        given["weight_decay"] = parse_layers(self.weight_decay, partial(_number, "weight_decay"))
        given["feature_decay"] = _number("feature_decay", self.feature_decay)
        if self.bias != "none":
            given["bias"] = self.bias
        # A control that is hidden says nothing.
        if self.bias == "decayed" and self.bias_decay.strip():
            given["bias_decay"] = _number("bias_decay", self.bias_decay)
        if self.features != "real":
            given["features"] = self.features
        if self.depth.strip() != "1":
            given["depth"] = _whole("depth", self.depth)
        if self.dim.strip():
            given["dim"] = parse_layers(self.dim, partial(_whole, "dim"))
        for name in LOSS_ARGUMENTS:
            if text := getattr(self, name).strip():
                given[name] = _number(name, text) if name == "label_smoothing" else text
        return given

    def problem(self) -> Problem:
        """Return the problem.

        Raises
        ------
        ValueError
            If a control's text is out of range; the message names it.
        """
        return Problem(**self.arguments())

    def wanted(self) -> dict[str, Any]:
        """Return the arguments of `tightframe.advise`, those with their default left out."""
        given: dict[str, Any] = {}
        if self.margin.strip():
            given["margin"] = _number("margin", self.margin)
        if self.feature_decay_of != "sample":
            given["feature_decay_of"] = self.feature_decay_of
        return given


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name}: got {text.strip()[:60]!r}, need a number") from None


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}: got {text.strip()[:60]!r}, need a whole number") from None
