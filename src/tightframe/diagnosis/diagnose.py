"""`diagnose`: what a trained network does with its classes, and what helps, in that order.

First what is, from its features; then what its head alone can do; then remedies with their evidence
from other networks; then what another weight decay would do, if asked; last the theory, which
speaks only of networks that it describes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.advice.advise import wanted_of
from tightframe.advice.blocks import advice_blocks
from tightframe.checks import first_few
from tightframe.diagnosis.head import HeadAnswer, HeadRow, ask_head
from tightframe.diagnosis.larger_decay import KNOWN_OF_NETWORK, LargerDecay, ask_decay
from tightframe.diagnosis.remedies import Remedies, remedies
from tightframe.diagnosis.theory import TheoryAnswer, ask_theory
from tightframe.diagnosis.training import Training
from tightframe.figures.table import Column, Table
from tightframe.heads.last_layer import LastLayer
from tightframe.metrics.classes import ClassTable, class_table
from tightframe.problem.class_names import listed
from tightframe.problem.counts import PerClass
from tightframe.problem.labels import require_several_classes
from tightframe.problem.problem import Problem
from tightframe.problem.scripts import told_loss
from tightframe.problem.settings import Configuration
from tightframe.saved import Saved
from tightframe.shown import Block, Shown

if TYPE_CHECKING:
    import pandas as pd

#: Most rows of a printed comparison of margins.
MOST_ROWS = 20

#: Most names of classes in a sentence, and in a cell of a table.
MOST_NAMES, MOST_COSTS = 10, 5

CAVEAT = (
    "Evidence from small networks: MLPs and small convolutional ones, mostly 10 classes, at most "
    "100 times as many samples in the largest class as in the smallest."
)


@dataclass(frozen=True, eq=False)
class Diagnosis(Shown, Saved):
    """What `diagnose` found.

    Attributes
    ----------
    classes : ClassTable
        What the network does with every class, worst first.
    head : HeadAnswer
        Whether its head is at its optimum, and what others do on the same features.
    remedies : Remedies
        What to do, the best first, with evidence.
    larger_decay : LargerDecay or None
        Margins at other decays; None if none was asked about.
    theory : TheoryAnswer
        Margins of the unconstrained feature model beside the network's, and its advice where it
        describes the network.
    """

    classes: ClassTable
    head: HeadAnswer
    remedies: Remedies
    larger_decay: LargerDecay | None
    theory: TheoryAnswer

    @property
    def headline(self) -> str:
        """One sentence: which classes are lost, taken for which, and which are weak."""
        lost = [row for row in self.classes.lost if row.rival_name is not None]
        shown = self.classes.shown
        taken = first_few(
            [f"{shown(row.name)} for {shown(str(row.rival_name))}" for row in lost], MOST_NAMES
        )
        return self.classes.headline + (f" Mostly taken: {taken}." if lost else "")

    @property
    def warnings(self) -> list[str]:
        """What must not be overlooked, a sentence each."""
        found = [self.remedies.first] if self.remedies.first else []
        if self.classes.lost or self.classes.weak:
            found.append(self.headline)
        found += [
            f"class {self.classes.shown(row.name)}: {row.warning}"
            for row in self.classes
            if row.warning
        ]
        if not self.theory.describes:
            found.append(undescribed(self.theory))
        found += _unidentified(self.theory)
        if self.theory.advice is not None:
            found += self.theory.advice.warnings
        return found

    @property
    def converged(self) -> bool:
        """Whether everything that was solved reached its tolerance."""
        advice = self.theory.advice
        solved = advice is None or advice.now.status == "optimal"
        return self.head.converged and solved

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready; where the theory describes the network, its advice too.

        Keys of the advice are those of `Advice.to_dict`.
        """
        theory = self.theory
        advice = {} if theory.advice is None else theory.advice.to_dict()
        return advice | {
            "warnings": self.warnings,
            "classes": self.classes.to_dict(),
            "head": self.head.to_dict(),
            "remedies": self.remedies.to_dict(),
            "larger_decay": None if self.larger_decay is None else self.larger_decay.to_dict(),
            "theory": theory.to_dict(),
            "calibration": None if theory.calibration is None else theory.calibration.to_dict(),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row a class as a pandas DataFrame, worst first."""
        return self.classes.to_frame()

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the accuracies of the worst classes, see `tightframe.shown.plot`."""
        return self.classes.plot(ax)

    def blocks(self) -> Iterator[Block]:
        """Yield sentences and tables in reading order."""
        yield self.headline
        yield self.classes.to_table(remarks=False)
        yield from self.classes.remarks[1:]
        yield from _head_blocks(self.head, self.classes)
        yield from _remedy_blocks(self.remedies, self.classes)
        if self.larger_decay is not None:
            yield "\nWhat another weight decay would do"
            yield from self.larger_decay.blocks()
        yield from theory_blocks(self.theory, self.classes)

    _blocks = blocks

    def __repr__(self) -> str:
        described = "describes" if self.theory.describes else "does not describe"
        headline = self.classes.headline.rstrip(".")
        return f"Diagnosis({headline}; the theory {described} the network)"


def diagnose(
    layer: LastLayer,
    *,
    weight_decay: float | None = None,
    class_weights: PerClass | None = None,
    logit_adjustment: PerClass | None = None,
    label_smoothing: float | None = None,
    smoothing_weights: str = "own",
    class_margins: PerClass | None = None,
    logit_scale: PerClass | None = None,
    feature_weights: PerClass = "samples",
    sampler: PerClass | None = None,
    optimizer: str | None = None,
    config: Any = None,
    loss: str = "cross_entropy",
    bias: str | None = None,
    bias_decay: float | None = None,
    features: str = "real",
    problem: Problem | None = None,
    recorded: bool = False,
    margin: float | None = None,
    angle: float | None = None,
    feature_decay_of: str = "sample",
    history: Sequence[Any] | None = None,
    at_weight_decay: float | Iterable[float] | None = None,
    notice: Callable[[str], Any] | None = None,
    progress: Callable[[str], Any] | None = None,
    **network: Any,
) -> Diagnosis:
    """Tell what a trained network does with its classes, and what helps.

    Parameters
    ----------
    layer : LastLayer
        Of the training samples; with held-out samples, recalls are given for them too.
    weight_decay : float, optional
        Of the training, 0 if there was none. Without it the ridge that fits the head is used.
    class_weights, logit_adjustment, label_smoothing, smoothing_weights : optional
        Of the training's loss, as in `Problem`.
    class_margins, logit_scale, feature_weights : optional
        The same; feature weights are for the theory.
    sampler : "balanced", str, iterable of float, or mapping, optional
        How often samples of every class were drawn: ``"balanced"``, or shares as ``class_weights``.
    optimizer : {"sgd", "adamw"}, optional
        ``"adamw"``, or any other whose decay is no term of the objective: the ridge is fitted too.
        ``"sgd"`` by default.
    config : optional
        The training's configuration, see `tightframe.problem.settings.training_settings`: gives
        weight decay, optimiser and what is known of the loss where those are left out.
    loss, bias, bias_decay, features : optional
        Of the training, as in `Problem`, for the theory. The bias is ``"free"`` by default where
        the head has one.
    problem : Problem, optional
        What the network was trained as, in place of these.
    recorded : bool
        Whether ``problem`` is the training's own record: then no other loss is looked for that
        explains the network as well.
    margin, angle, feature_decay_of : optional
        As in `tightframe.advise`, where the theory describes the network.
    history : sequence, optional
        Earlier measurements, see `tightframe.metrics.classes.class_table`: since when classes are
        lost.
    at_weight_decay : float or iterable of float, optional
        Other decays to ask about; needs ``weight_decay``.
    notice : callable, optional
        Called with one sentence, what was read from ``config``.
    progress : callable, optional
        Called as ``progress(what)`` with what is done next, in words: of a thousand classes the
        heads take half a minute.
    **network
        Then, what `tightframe.diagnosis.larger_decay.larger_decay` has to know: ``layers``,
        ``batch_norm``, ``convolutional``, ``lr``, ``momentum``, ``full_batch``, ``layer_norms``.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1, 2], [200, 200, 10])
    >>> means = np.array([[3.0, 0.0], [0.0, 3.0], [0.5, 3.5]])
    >>> layer = LastLayer.of(means[labels] + rng.normal(size=(410, 2)), labels, means)
    >>> found = diagnose(layer)
    >>> [row.name for row in found.classes.lost]
    ['1']
    >>> found.remedies.advised[0].name
    'smaller decay + logit adjustment'
    """
    if progress is not None and not callable(progress):
        raise ValueError(f"progress: got {progress!r}, need a function, or None")
    say = progress or (lambda _: None)
    require_several_classes(layer.counts)
    if not isinstance(problem, Problem | None):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    known_bias = bias if problem is None else problem.bias
    told: dict[str, Any] = {
        "weight_decay": weight_decay,
        "optimizer": optimizer,
        "class_weights": class_weights,
        "logit_adjustment": logit_adjustment,
        "label_smoothing": label_smoothing,
        "class_margins": class_margins,
        "logit_scale": logit_scale,
    }
    told = {name: value for name, value in told.items() if value is not None}
    if config is not None:
        if problem is not None:
            raise ValueError("config: given with a problem, which says what it would")
        others = {"loss": loss} if loss != "cross_entropy" else {}
        told |= _read_config(config, layer, told | others, notice or (lambda _: None))
    told.setdefault("optimizer", "sgd")
    decay = told.pop("weight_decay", None)
    coupling, class_weights = told.pop("optimizer"), told.pop("class_weights", None)
    logit_adjustment = told.pop("logit_adjustment", None)
    soft: dict[str, Any] = {"smoothing_weights": smoothing_weights, **told}
    if problem is not None:
        decay = problem.weight_decays[0]
        loss, class_weights = problem.loss, problem.class_weights
        logit_adjustment = problem.logit_adjustment
        soft = {
            "label_smoothing": problem.label_smoothing,
            "smoothing_weights": problem.smoothing_weights,
            "class_margins": problem.margin_runs or None,
            "logit_scale": problem.scale_runs or None,
        }
    training = Training.of(
        layer,
        weight_decay=decay,
        class_weights=class_weights,
        logit_adjustment=logit_adjustment,
        sampler=sampler,
        optimizer=coupling,
        weighted_mean=problem is None,
        **soft,
    )
    if sampler is not None and training.terms.smoothing is not None and smoothing_weights != "own":
        raise ValueError(
            f"sampler: got one with smoothing_weights {smoothing_weights!r}, by which labels have "
            "weights that are not the draws'; no problem here has both"
        )
    wanted_of(loss, margin, angle, feature_decay_of)  # wrong whether or not theory is asked
    if at_weight_decay is not None:
        say("what another weight decay would do")
    larger = _larger(layer, training, at_weight_decay, network)
    if problem is None and layer.counts.all():
        has_bias = layer.bias is not None and bool(layer.bias.any())
        problem = Problem(
            layer.counts,
            loss,
            weight_decay=1.0,
            feature_decay=1.0,
            bias=bias or ("free" if has_bias else "none"),
            bias_decay=bias_decay,
            features=features,
            class_weights=None if training.natural else training.weights,
            logit_adjustment=training.adjustment if training.adjustment.any() else None,
            feature_weights=feature_weights,
            **soft,
            class_names=layer.class_names,
        )
    head = ask_head(
        layer,
        training,
        other_loss=None if loss == "cross_entropy" else "is not cross-entropy",
        bias=known_bias,
        progress=progress,
    )
    say("what the network does with every class")
    table = class_table(layer, separable=head.separable, history=history, problem=problem)
    counts = layer.counts[layer.counts > 0]
    say("what the theory says")
    return Diagnosis(
        table,
        head,
        remedies(head.some_lost, bool(np.ptp(counts) == 0), training, head),
        larger,
        ask_theory(
            layer,
            problem,
            head.rows[0].training.recalls,
            recorded=recorded,
            margin=margin,
            angle=angle,
            feature_decay_of=feature_decay_of,
        ),
    )


def _read_config(
    config: Any, layer: LastLayer, told: Mapping[str, Any], notice: Callable[[str], Any]
) -> dict[str, Any]:
    """Return what a configuration says of a training beside what is told."""
    found, read = Configuration.of(config), dict[str, Any]()
    if "weight_decay" not in told and (decay := found.weight_decay()) is not None:
        read["weight_decay"] = decay
    if "optimizer" not in told and found.decoupled_by() is not None:
        read["optimizer"] = "adamw"
    terms, said = told_loss(found, np.maximum(layer.counts, 1), told)
    numbers = [f"{name} {value}" for name, value in read.items()]
    notice(f"config: read {', '.join(numbers + said) or 'nothing of what is missing'}")
    return read | terms


def _larger(
    layer: LastLayer,
    training: Training,
    at: float | Iterable[float] | None,
    network: Mapping[str, Any],
) -> LargerDecay | None:
    unknown = sorted(set(network) - set(KNOWN_OF_NETWORK))
    if unknown:
        raise TypeError(f"diagnose() got an unexpected keyword argument {unknown[0]!r}")
    if at is None:
        if network:
            raise ValueError(f"{min(network)}: given without at_weight_decay, for which it is")
        return None
    return ask_decay(layer, training, at=at, argument="at_weight_decay", **network)


# -- sections --------------------------------------------------------------------------------------


def _head_blocks(head: HeadAnswer, classes: ClassTable) -> Iterator[Block]:
    yield "\nWhat the head alone can do"
    yield head.verdict
    if head.suboptimality is not None and head.note:
        yield head.note
    if len(head.rows) == 1:
        return
    held = head.rows[0].held_out is not None
    columns: list[str | Column] = ["head"]
    kinds = ("training", "held-out") if held else ("training",)
    for kind in kinds:
        columns += [_share(f"{kind} balanced accuracy"), _share(f"{kind} smallest class", True)]
    columns.append(_share("large classes", True))
    remarks = [_remark(row, classes) for row in head.rows]
    if any(remarks):
        columns.append(Column("remark", wrapped=True))
    rows = []
    for row, remark in zip(head.rows, remarks, strict=True):
        scores = [row.training, row.held_out] if held else [row.training]
        cells = [value for s in scores if s is not None for value in (s.balanced, s.smallest)]
        rows.append([row.name, *cells, row.large, remark][: len(columns)])
    yield Table("Heads on the same features", columns, rows, head.caption, missing="-")
    if classes.absent:
        yield "Fitted heads know no samples of the absent classes, and hardly answer with them."


def _share(name: str, spare: bool = False) -> Column:
    return Column(name, align="right", format=".3f", spare=spare)


def _remark(row: HeadRow, classes: ClassTable) -> str:
    parts = ["harmful"] if row.harmful else []
    if row.costs:
        parts.append(f"costs {listed([classes.of(k).name for k in row.costs], MOST_COSTS)}")
    return "; ".join(parts)


def _remedy_blocks(found: Remedies, classes: ClassTable) -> Iterator[Block]:
    few = [
        classes.shown(row.name) for row in classes if row.warning and row.held_out_recall is None
    ]
    yield "\nWhat to do"
    if found.first:
        yield found.first
    if _is_fine(classes):
        if not found.advised:
            if not found.first:
                yield "Every class is distinct and has many samples: nothing has to change."
            return
        yield "Every class is distinct. What may still help:"
    for number, remedy in enumerate(found.advised, start=1):
        note = f" {_capital(remedy.note)}." if remedy.note else ""
        yield f"{number}. {remedy.text} Evidence: {remedy.evidence.text}.{note}"
    for remedy in found.against:
        note = f" {_capital(remedy.note)}." if remedy.note else ""
        yield f"Not {remedy.name}: {remedy.evidence.text}.{note}"
    if few:
        names = first_few(few, MOST_NAMES)
        yield f"Few samples ({names}): hold some out, or collect more, to know more."
    yield CAVEAT


def _is_fine(classes: ClassTable) -> bool:
    """Tell whether no class is lost, weak, or has few samples."""
    return not (classes.lost or classes.weak or any(row.warning for row in classes))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def theory_blocks(theory: TheoryAnswer, classes: ClassTable) -> Iterator[Block]:
    """Yield what the theory says of a network, in reading order."""
    yield "\nTheory: the unconstrained feature model with decays fitted to this network"
    predicted, measured = theory.predicted, theory.measured
    if predicted is not None and measured is not None:
        order = np.argsort(-np.abs(predicted - measured), kind="stable")[:MOST_ROWS].tolist()
        rows = [
            [classes.of(k).name, classes.of(k).count, float(predicted[k]), float(measured[k])]
            for k in order
        ]
        columns: list[str | Column] = [Column("class", align="left", names=True), "samples"]
        columns += [
            Column(name, "nats", align="right", format=".3f")
            for name in ("predicted margin", "measured margin")
        ]
        more = len(predicted) - len(rows)
        note = f"{more} more classes are nearer" if more else ""
        yield Table("Margins at the class means", columns, rows, note)
    if not theory.describes:
        yield undescribed(theory)
        yield from _unidentified(theory)
        return
    assert theory.calibration is not None  # it describes the network
    assert theory.advice is not None
    fitted = theory.calibration
    yield from _unidentified(theory)
    yield (
        f"as predicted: every margin is within {theory.error:.2g} nats; fitted to the network: "
        f"weight_decay {fitted.weight_decay:.4g}, feature_decay {fitted.feature_decay:.4g}. What "
        "follows holds at the present settings."
    )
    yield from advice_blocks(theory.advice, is_all=_is_fine(classes))


def _unidentified(theory: TheoryAnswer) -> list[str]:
    """Say that another loss explains the network too, where that is not said yet and matters."""
    fitted = theory.calibration
    if fitted is None:
        return []
    found = [f"{_capital(text)}." for text in fitted.warnings]
    matters = theory.describes or any(one.better for one in fitted.alternatives or ())
    return found if matters and theory.reason not in fitted.warnings else []


def undescribed(theory: TheoryAnswer) -> str:
    """Say that the theory does not describe a network, and why."""
    return (
        "The unconstrained feature model does not describe this network: "
        f"{theory.reason}. No thresholds and no safety factors."
    )
