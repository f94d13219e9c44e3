"""What is certified, searched or refused, for which problem, and why: one table.

`solve`, `certify`, `advise`, `thresholds`, the explorer, their error messages, the README and the
docs read it from here. A problem falls under the first rule whose conditions it meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

from tightframe.losses.registry import LOSSES
from tightframe.problem.problem import BIASES, Problem, require_no_targets
from tightframe.theory.closed_form import balanced, deep_linear, relu, weighted_mse


def least_dim(problem: Problem) -> int:
    """Return the width that suffices for real features: the largest rank of a minimiser."""
    return problem.loss_object.max_rank(problem.num_classes)


class Width(NamedTuple):
    """A condition on ``dim``, as the table says it and as a function of a problem."""

    text: str
    holds: Callable[[Problem], bool]


WIDE = Width("wide", lambda p: p.width is None or p.width >= least_dim(p))
NARROW = Width("narrow", lambda p: not WIDE.holds(p))
SHOWN = Width("an axis a class", lambda p: p.width is None or p.width >= weighted_mse.num_axes(p))
AXES = Width("an axis a class", lambda p: p.width is None or p.width >= relu.num_axes(p))


def given_scales(problem: Problem) -> str:
    """Return which of ``logit_scale`` and ``feature_weights`` a problem has, in words."""
    given = {"logit_scale": problem.scale_runs, "feature_weights": problem.feature_runs}
    return " and ".join(name for name, runs in given.items() if runs)


def require_unscaled(problem: Problem, what: str) -> None:
    """Refuse a problem with a logit scale or feature weights, which ``what`` does not know."""
    if given := given_scales(problem):
        raise ValueError(f"{given}: {what} does not know them")


@dataclass(frozen=True)
class Rule:
    """One row of a table: conditions on a problem, and what becomes of those that meet them.

    Attributes
    ----------
    outcome : {"certified", "searched", "refused"}
    how : str
        What is done, as the README says it.
    loss : str or None
        Fact of a `Loss` that holds, such as ``"is_softmax"``; None: any loss.
    features : str or None
    layers : {"1", "2 or more"} or None
    biases : tuple of str
    width : Width or None
    equal_counts, equal_weights, without_adjustment : bool
        Whether all classes must be interchangeable; of one weight; without a logit adjustment.
    with_soft_labels : bool
        Whether the problem must have label smoothing or class margins.
    scaled : bool
        Whether it is for problems with a ``logit_scale`` or ``feature_weights`` only.
    family : module or None
        The closed form that gives the minimiser.
    reason : str
        Why nothing certifies such a problem, a format string over the problem ``p``.
    """

    outcome: str
    how: str = ""
    loss: str | None = None
    features: str | None = None
    layers: str | None = None
    biases: tuple[str, ...] = BIASES
    width: Width | None = None
    equal_counts: bool = False
    equal_weights: bool = False
    without_adjustment: bool = False
    with_soft_labels: bool = False
    scaled: bool = False
    family: ModuleType | None = None
    reason: str = ""

    def covers(self, problem: Problem) -> bool:
        """Tell whether a problem meets the conditions."""
        return (
            (self.loss is None or getattr(problem.loss_object, self.loss))
            and (self.features is None or problem.features == self.features)
            and (self.layers is None or (problem.depth == 1) == (self.layers == "1"))
            and problem.bias in self.biases
            and not (self.equal_counts and len(problem.groups) > 1)
            and not (self.equal_weights and not problem.has_equal_weights)
            and not (self.without_adjustment and problem.adjustment_runs)
            and not (self.with_soft_labels and not problem.has_soft_labels)
            and not (self.scaled and not given_scales(problem))
            and (self.width is None or self.width.holds(problem))
        )


#: One linear layer, real features, wide enough: a convex problem, whatever the loss.
CONVEX = Rule(
    "certified",
    "certified Newton, by duality",
    features="real",
    layers="1",
    width=WIDE,
)

#: `dim` is too small for the convex form.
_TOO_NARROW = (
    "dim is {p.dim}, but {p.loss} with bias {p.bias!r} and {p.num_classes} classes "
    "needs dim of at least {least}, or none, to be certified"
)

#: Label smoothing and margins off the own logit: known with one layer and real features.
SOFT_LABELS = (
    Rule(
        "refused",
        "refused",
        features="nonnegative",
        with_soft_labels=True,
        reason="{soft} is solved with real features, got {p.features!r}",
    ),
    Rule(
        "refused",
        "refused",
        layers="2 or more",
        with_soft_labels=True,
        reason="{soft} is solved for depth 1, got {p.depth}",
    ),
)

#: What `solve` does.
RULES = (
    *SOFT_LABELS,
    Rule(
        "certified",
        "certified Newton, by duality",
        features="real",
        layers="1",
        width=WIDE,
        scaled=True,
    ),
    Rule(
        "searched",
        "certified where the minimiser without `dim` fits, else best of many starts, "
        "**not certified**",
        features="real",
        layers="1",
        width=NARROW,
        scaled=True,
        reason=_TOO_NARROW,
    ),
    Rule(
        "refused",
        "refused",
        layers="2 or more",
        scaled=True,
        reason="{scales} with depth {p.depth}; one linear layer is solved",
    ),
    Rule(
        "refused",
        "refused",
        features="nonnegative",
        scaled=True,
        reason="{scales} with non-negative features; real ones are solved",
    ),
    Rule(
        "certified",
        "closed form, certified by duality",
        loss="is_softmax",
        features="real",
        layers="1",
        width=WIDE,
        equal_counts=True,
        family=balanced,
    ),
    Rule(
        "certified",
        "closed form, certified by a lower bound",
        loss="is_softmax",
        features="nonnegative",
        layers="1",
        biases=("none",),
        width=AXES,
        without_adjustment=True,
        family=relu,
    ),
    Rule(
        "certified",
        "closed form, certified by a lower bound",
        loss="is_softmax",
        features="nonnegative",
        layers="1",
        biases=("free", "decayed"),
        width=AXES,
        equal_counts=True,
        without_adjustment=True,
        family=relu,
    ),
    Rule(
        "certified",
        "closed form, certified by duality or a lower bound",
        loss="is_quadratic",
        features="real",
        biases=("none", "free"),
        equal_weights=True,
        family=deep_linear,
    ),
    Rule(
        "certified",
        "closed form, certified by a lower bound",
        loss="is_quadratic",
        features="nonnegative",
        biases=("none",),
        equal_weights=True,
        family=deep_linear,
    ),
    Rule(
        "certified",
        "closed form, certified by duality or a lower bound",
        loss="is_quadratic",
        layers="1",
        biases=("none",),
        width=SHOWN,
        family=weighted_mse,
    ),
    CONVEX,
    Rule(
        "searched",
        "certified where the minimiser without `dim` fits, else best of many starts, "
        "**not certified**",
        features="real",
        layers="1",
        width=NARROW,
        reason=_TOO_NARROW,
    ),
    Rule(
        "searched",
        "best of many starts and the closed forms, **not certified**",
        features="real",
        layers="2 or more",
        reason="depth {p.depth} is certified for MSE with bias 'none' or 'free' only{weighted}",
    ),
    Rule(
        "searched",
        "certified where a lower bound closes and the axes fit, as nearly always without `dim` "
        "(up to 100 groups of equal classes), else best of many starts, **not certified**",
        features="nonnegative",
        layers="1",
        reason="non-negative features with {p.loss}, bias {p.bias!r} and dim {p.dim} have no "
        "closed form for these counts, and the lower bound without dim leaves a gap{axes}",
    ),
    Rule(
        "refused",
        "refused",
        loss="is_quadratic",
        features="nonnegative",
        reason="non-negative features with MSE and several layers are solved for bias 'none'"
        "{weighted}",
    ),
    Rule(
        "refused",
        "refused",
        features="nonnegative",
        reason="non-negative features with {p.loss!r} are solved for depth 1, got {p.depth}",
    ),
)

#: For which problems thresholds are known; ``reason`` begins with the argument that is at fault.
THRESHOLD_RULES = (
    *SOFT_LABELS,
    Rule(
        "refused",
        layers="2 or more",
        scaled=True,
        reason="{scales}: thresholds are known for one linear layer, got depth {p.depth}",
    ),
    Rule(
        "refused",
        features="nonnegative",
        scaled=True,
        reason="{scales}: thresholds are known for real features",
    ),
    Rule(
        "certified",
        loss="is_quadratic",
        features="nonnegative",
        biases=("none",),
        equal_weights=True,
    ),
    Rule(
        "refused",
        features="nonnegative",
        layers="2 or more",
        reason="depth: got {p.depth}; thresholds for non-negative features with several layers are "
        "known for MSE with bias 'none' and equal class weights",
    ),
    Rule(
        "refused",
        features="nonnegative",
        biases=("free", "decayed"),
        reason="bias: thresholds for non-negative features are known for bias 'none'",
    ),
    Rule("certified", features="nonnegative", layers="1", without_adjustment=True),
    Rule(
        "refused",
        features="nonnegative",
        layers="1",
        reason="logit_adjustment: thresholds for non-negative features are known without",
    ),
    Rule("certified", features="real", layers="1"),
    Rule("certified", loss="is_quadratic", biases=("none", "free"), equal_weights=True),
    Rule("certified", loss="is_softmax", layers="1"),
    Rule(
        "refused",
        layers="2 or more",
        reason="depth: got {p.depth}; thresholds with several layers are known for MSE with "
        "bias 'none' or 'free'",
    ),
    Rule(
        "refused",
        reason="features: thresholds for non-negative ones are not known with loss {p.loss!r}",
    ),
)


@dataclass(frozen=True)
class Coverage:
    """What becomes of one problem: the rule that it falls under."""

    problem: Problem
    rule: Rule

    @property
    def outcome(self) -> str:
        """``"certified"``, ``"searched"`` or ``"refused"``."""
        return self.rule.outcome

    @property
    def is_certified(self) -> bool:
        """Whether the convex form or a closed form certifies the solution."""
        return self.rule.outcome == "certified"

    @property
    def family(self) -> Any:
        """The closed form that gives the minimiser (a module), or None."""
        return self.rule.family

    @property
    def reason(self) -> str:
        """Why nothing certifies the problem; empty where something does."""
        soft = "label_smoothing" if self.problem.label_smoothing else "class_margins"
        weighted = "" if self.problem.has_equal_weights else " and equal class weights"
        return self.rule.reason.format(
            p=self.problem,
            least=least_dim(self.problem),
            weighted=weighted,
            axes=self._axes,
            scales=given_scales(self.problem),
            soft=soft,
        )

    @property
    def _axes(self) -> str:
        """With how many axes non-negative features have a closed form, if that is what lacks."""
        wide = None if self.problem.dim is None else coverage(self.problem.replace(dim=None))
        if wide is None or wide.family not in (relu, weighted_mse):
            return ""
        return f"; dim of at least {wide.family.num_axes(self.problem)}, or none, has one"


def coverage(problem: Problem) -> Coverage:
    """Return what `solve` does with a problem, and why.

    Examples
    --------
    >>> found = coverage(Problem("500x5,100x5", depth=2, weight_decay=5e-3, feature_decay=1e-3))
    >>> found.outcome, found.reason
    ('searched', "depth 2 is certified for MSE with bias 'none' or 'free' only")
    """
    return _first(RULES, problem)


def _first(rules: Iterable[Rule], problem: Problem) -> Coverage:
    require_no_targets(problem, "this")
    return Coverage(problem, next(rule for rule in rules if rule.covers(problem)))


def is_convex(problem: Problem) -> bool:
    """Tell whether the problem has the convex form: one layer, real features, wide enough."""
    return CONVEX.covers(problem)


def has_compact_form(problem: Problem) -> bool:
    """Tell whether the geometry of a solution is known without writing all classes out.

    One layer, and real features that are wide enough or non-negative ones with a closed form: their
    class means are orthogonal.
    """
    if problem.features == "nonnegative":
        return problem.depth == 1 and coverage(problem).family is not None
    return is_convex(problem)


def require_covered(problem: Problem) -> None:
    """Refuse a problem whose solution nothing would certify."""
    found = coverage(problem)
    if not found.is_certified:
        raise ValueError(f"problem: {found.reason}")


def require_convex(problem: Any, what: str) -> None:
    """Refuse what is no problem of the convex form; ``what`` needs it."""
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    require_no_targets(problem, what)
    if not is_convex(problem):
        raise ValueError(
            f"problem: {what} needs one layer, real features and dim of at least "
            f"{least_dim(problem)}, or none"
        )


def require_thresholds(problem: Problem) -> None:
    """Refuse a problem whose thresholds are not known."""
    found = _first(THRESHOLD_RULES, problem)
    if not found.is_certified:
        about_problem = "problem: " if found.rule in SOFT_LABELS else ""
        raise ValueError(about_problem + found.reason)


# -- for readers -----------------------------------------------------------------------------------

_HEAD = ("loss", "features", "layers", "bias", "`dim`", "counts", "how")
#: Label distributions: `solve` looks for targets before it asks for a rule.
_WITH_TARGETS = (
    "cross-entropy with `targets`",
    *("real", "1", "any", "at least the rank", "any, of contexts"),
    "certified splitting, by duality",
)
_FEATURES = {"real": "real", "nonnegative": "non-negative (ReLU)", None: "any"}


def coverage_table() -> str:
    """Return the table of what `solve` does as Markdown; the first row that fits decides.

    The README and docs/guide/solve.md have it, word for word.
    """
    rows = [_HEAD, ("---",) * len(_HEAD), _WITH_TARGETS]
    rows += [_cells(rule) for rule in RULES if rule.outcome != "refused"]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(rule: Rule) -> tuple[str, ...]:
    known = LOSSES.values()
    losses = [loss.title for loss in known if rule.loss is None or getattr(loss, rule.loss)]
    return (
        "any" if rule.loss is None else ", ".join(losses),
        _FEATURES[rule.features],
        rule.layers or "any",
        "any" if rule.biases == BIASES else ", ".join(rule.biases),
        rule.width.text if rule.width else "any",
        _classes(rule),
        rule.how,
    )


def _classes(rule: Rule) -> str:
    needed = [
        "equal" if rule.equal_counts else "any",
        *(["equal class weights"] if rule.equal_weights else []),
        *(["no logit adjustment"] if rule.without_adjustment else []),
        *(["scaled logits or feature weights"] if rule.scaled else []),
    ]
    return ", ".join(needed)
