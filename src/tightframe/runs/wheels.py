"""Wheels of trained networks beside their predictions, and merge trees with networks on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from tightframe.changes import StateChanges, state_changes
from tightframe.checks import array_of, choice, positive_float
from tightframe.figures.diagrams import Wheel
from tightframe.geometry.states import STATES, States
from tightframe.metrics.report import CollapseReport
from tightframe.metrics.wheels import network_view, sent_by_network
from tightframe.problem.problem import Problem, require_no_targets
from tightframe.runs.class_records import ClassEpochs, class_epochs
from tightframe.runs.store import SettingRecord
from tightframe.shown import plot
from tightframe.solution import Solution
from tightframe.views.merge_tree import merge_tree as tree_of
from tightframe.views.wheel import (
    View,
    class_homes,
    decay_label,
    sent_by_solution,
    solution_wheel,
)
from tightframe.views.wheel import wheel as wheel_of


def wheel(
    solution: Solution,
    measured: CollapseReport | tuple[ArrayLike, ArrayLike | None] | None = None,
    *,
    ax: Any = None,
) -> tuple[Any, Any]:
    """Draw where every class is sent: as predicted, or as measured with rings where predicted.

    Every class has a home on the rim and lies at the mean of all homes, weighted with the shares of
    its prediction at the class mean (of squared errors: with the logits, what is missing from a sum
    of one spread evenly). On the rim: certain; at the cross: no decision; in one place: told apart
    no more. Colour and shape are states by `Solution.states` or
    `tightframe.geometry.states.measured_states`, never by the picture: a plane can't hold all
    distances of K predictions.

    Parameters
    ----------
    solution : Solution
        The prediction.
    measured : CollapseReport or pair (logits, bias), optional
        A network: mean logits without bias, shape (K, K), column k of class k, and its bias, shape
        (K,), or None.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    fig, ax
        See `tightframe.shown.plot`, as for ``ax`` and what is raised without Matplotlib.

    Raises
    ------
    ValueError
        If it is no Solution of one class a context, or logits and bias don't fit it.

    Examples
    --------
    >>> import tightframe as tf
    >>> problem = tf.Problem("100x5,10x5", weight_decay=0.08, feature_decay=0.0008)
    >>> fig, ax = tf.report.wheel(tf.solve(problem))
    """
    if not isinstance(solution, Solution):
        raise ValueError(f"solution: got {type(solution).__name__}, need a tightframe.Solution")
    require_no_targets(solution.problem, "a wheel")
    if measured is None:
        return plot(lambda: solution_wheel(solution), ax, name="wheel")
    logits, bias = _measured(measured)

    def panel() -> Wheel:
        homes = class_homes(solution.problem)
        rings, label = sent_by_solution(solution, homes).places, decay_label(solution.problem)
        view = network_view(solution.problem, logits, bias, homes, rings, label)
        return wheel_of(solution.problem, [view], homes, title=f"Measured, {label}")

    return plot(panel, ax, name="wheel")


def _measured(
    given: CollapseReport | tuple[ArrayLike, ArrayLike | None],
) -> tuple[ArrayLike, ArrayLike | None]:
    if isinstance(given, CollapseReport):
        own = given.geometry.logits
        return own, (given.logits - own)[:, 0]
    if not isinstance(given, tuple) or len(given) != 2:
        raise ValueError(
            f"measured: got {type(given).__name__}, need a CollapseReport or a pair (logits, bias)"
        )
    logits, bias = given
    for name, value in (("logits", logits), ("bias", bias)):
        if value is not None and array_of(name, value).dtype.kind not in "fiu":
            raise ValueError(f"{name}: got {array_of(name, value).dtype} entries, need numbers")
    return array_of("logits", logits), None if bias is None else array_of("bias", bias)


def merge_tree(
    problem: Problem | StateChanges,
    networks: Mapping[str, tuple[float, Sequence[str] | States | None]] | None = None,
    *,
    ax: Any = None,
) -> tuple[Any, Any]:
    """Draw which class joins, is taken for another, or vanishes along the decay.

    Every class has a line, the largest on top. Where curves end is exact, to 1e-9; heights are not
    to scale. Siblings that merge run on as a cable, lost classes run below what they are taken for,
    a cross ends what vanishes.

    Parameters
    ----------
    problem : Problem or StateChanges
        The latter, of `tightframe.state_changes`, saves following the states again.
    networks : mapping, optional
        A letter to the decay of a trained network and its measured states, one a class (None: only
        its line is drawn).
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    fig, ax
        See `tightframe.shown.plot`, as for ``ax`` and what is raised without Matplotlib.

    Raises
    ------
    ValueError
        As `tightframe.state_changes`, or if states are not one a class.

    Examples
    --------
    >>> import tightframe as tf
    >>> problem = tf.Problem("100x5,10x5", weight_decay=0.08, feature_decay=0.0008)
    >>> fig, ax = tf.report.merge_tree(problem)
    """
    if not isinstance(problem, (Problem, StateChanges)):
        raise ValueError(
            f"problem: got {type(problem).__name__}, need a tightframe.Problem or StateChanges"
        )
    known = problem if isinstance(problem, StateChanges) else None
    asked = problem.problem if isinstance(problem, StateChanges) else problem
    shown = _networks({} if networks is None else networks, asked.num_classes)
    return plot(
        lambda: tree_of(known or state_changes(asked), networks=shown), ax, name="merge_tree"
    )


def _networks(
    given: Mapping[str, tuple[float, Sequence[str] | States | None]], num_classes: int
) -> list[tuple[float, str, list[str]]]:
    if not isinstance(given, Mapping):
        raise ValueError(f"networks: got {type(given).__name__}, need a mapping from letters")
    found = []
    for letter, pair in given.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"networks: got {pair!r} for {letter!r}, need a pair (decay, states)")
        decay, states = pair
        own = states.state.tolist() if isinstance(states, States) else list(states or [])
        if own and len(own) != num_classes:
            raise ValueError(
                f"networks: got {len(own)} states of {letter!r}, need one for each of "
                f"{num_classes} classes"
            )
        for state in dict.fromkeys(own):
            choice("networks", state, STATES)
        found.append((positive_float("networks", decay), str(letter), own))
    return found


def setting_wheel(setting: SettingRecord, found: ClassEpochs | None = None) -> Wheel | None:
    """Return where a run's network sends its classes over the epochs, its prediction as rings.

    None on text, and before there is a network.

    Parameters
    ----------
    setting : SettingRecord
    found : ClassEpochs, optional
        Its `class_epochs`, by default all of them.
    """
    problem, predicted = setting.problem, setting.prediction_arrays
    if problem is None or predicted is None or setting.on_text:
        return None
    homes = class_homes(problem)
    found = class_epochs(setting, homes) if found is None else found
    if found is None:
        return None
    rings = sent_by_network(problem, predicted["logits"], predicted["bias"], homes).places
    last = len(found.epochs) - 1
    # They stand still: the last moment has them for all.
    views = [
        View(f"epoch {epoch}", sent, rings if i == last else None, epoch)
        for i, (epoch, sent) in enumerate(zip(found.epochs, found.sent, strict=True))
    ]
    return wheel_of(problem, views, homes, title=f"Measured, {decay_label(problem)}")
