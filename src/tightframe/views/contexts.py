"""What solutions, thresholds and limits of label distributions show: tables and heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import HeatMaps, Matrix, Tick
from tightframe.figures.table import Column, Table
from tightframe.problem.class_names import listed
from tightframe.problem.targets import Targets
from tightframe.problem.tokens import shown

if TYPE_CHECKING:
    import pandas as pd

    from tightframe.context_solution import ContextSolution
    from tightframe.label_limits import LabelLimits
    from tightframe.theory.contexts.thresholds import ContextThresholds

#: Contexts, or sets of labels, that have a row in a table, at most.
MOST_ROWS = 12

#: Labels and contexts that are drawn, at most.
MOST_LABELS, MOST_CONTEXTS = 16, 32

#: Entries that are worked on at a time.
BLOCK = 400_000

Array = NDArray[np.float64]
Whole = NDArray[np.intp]


class ContextRows(NamedTuple):
    """A number or label a context, shape (m,) each.

    Attributes
    ----------
    entropy : ndarray
        Of its label distribution, in nats.
    label, share : ndarray
        Its most frequent label, and that one's probability.
    predicted, probability : ndarray
        The label of the largest logit, bias included, and what the softmax gives it.
    kl : ndarray
        From the label distribution to the softmax, in nats.
    norm : ndarray
        Length of its feature.
    """

    entropy: Array
    label: Whole
    share: Array
    predicted: Whole
    probability: Array
    kl: Array
    norm: Array


def context_rows(solution: ContextSolution) -> ContextRows:
    """Return what a solution says of every context, worked out once for equal ones."""
    targets = solution.problem.targets
    assert targets is not None
    _, first = np.unique(solution.context_of, return_index=True)
    label, share = _tops(targets)
    entropy = _entropies(targets)
    merged = np.bincount(solution.label_of)
    _, first_label = np.unique(solution.label_of, return_index=True)
    v, m = len(merged), len(first)
    predicted, probability, cross = np.empty(m, dtype=np.intp), np.empty(m), np.empty(m)
    size = max(1, BLOCK // v)
    for start in range(0, m, size):
        part = slice(start, min(start + size, m))
        scores = (solution.classifier @ solution.features[:, part]).T + solution.label_bias
        scores -= scores.max(axis=1, keepdims=True)
        total = np.log(np.exp(scores) @ merged)
        top = scores.argmax(axis=1)
        predicted[part] = first_label[top]
        probability[part] = np.exp(-total)  # the largest score is 0
        cross[part] = total - _target_dot(targets, solution.label_of, first[part], scores)
    back = solution.context_of
    norm = np.linalg.norm(solution.features, axis=0)
    return ContextRows(
        entropy,
        label,
        share,
        predicted[back],
        probability[back],
        np.maximum(cross[back] - entropy, 0.0),
        norm[back],
    )


def _target_dot(targets: Targets, label_of: Whole, contexts: Whole, scores: Array) -> Array:
    """Return the mean score of every one of some contexts under its label distribution."""
    rows = targets.by_context[contexts]
    at = np.repeat(np.arange(len(contexts)), np.diff(rows.indptr))
    products = rows.data * scores[at, label_of[rows.indices]]
    sums: Array = np.bincount(at, products, minlength=len(contexts)).astype(np.float64)
    return sums


def _tops(targets: Targets) -> tuple[Whole, Array]:
    """Return every context's most frequent label, the first of equal ones, and its share."""
    starts = targets.starts[:-1]
    share = np.maximum.reduceat(targets.shares, starts)
    at = np.repeat(np.arange(len(starts)), np.diff(targets.starts))
    places = np.flatnonzero(targets.shares == share[at])
    _, first = np.unique(at[places], return_index=True)
    return targets.labels[places[first]].astype(np.intp), share


def _entropies(targets: Targets) -> Array:
    terms = -targets.shares * np.log(targets.shares)
    entropies: Array = np.maximum(np.add.reduceat(terms, targets.starts[:-1]), 0.0)
    return entropies


def context_names(names: Sequence[str] | None, size: int) -> list[str] | None:
    """Return names of contexts as a list.

    Raises
    ------
    ValueError
        If there is not one a context.
    """
    if names is None:
        return None
    if isinstance(names, str) or len(names) != size:
        got = repr(names) if isinstance(names, str) else f"{len(names)}"
        raise ValueError(f"context_names: got {got}, need one for each of {size} contexts")
    return [str(name) for name in names]


def contexts_frame(solution: ContextSolution, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row a context."""
    import pandas as pd

    problem, rows = solution.problem, context_rows(solution)
    m = len(rows.label)
    given = context_names(names, m)
    called = np.array([problem.name(v) for v in range(problem.num_classes)], dtype=object)
    named = problem.class_names is not None
    return pd.DataFrame(
        {
            "context": np.arange(m) if given is None else given,
            "count": problem.counts,
            "feature_weight": problem.feature_weights,
            "entropy": rows.entropy,
            "label": called[rows.label] if named else rows.label,
            "share": rows.share,
            "predicted": called[rows.predicted] if named else rows.predicted,
            "probability": rows.probability,
            "kl": rows.kl,
            "norm": rows.norm,
        }
    )


def contexts_table(
    solution: ContextSolution, names: Sequence[str] | None = None, most: int = MOST_ROWS
) -> Table:
    """Return the contexts of most samples as a table."""
    problem, rows = solution.problem, context_rows(solution)
    given = context_names(names, len(rows.label))
    counts = problem.counts
    shown = np.argsort(-counts, kind="stable")[:most].tolist()
    cells = [
        [
            str(j) if given is None else visible(given[j]),
            int(counts[j]),
            visible(problem.name(int(rows.label[j]))),
            rows.share[j],
            visible(problem.name(int(rows.predicted[j]))),
            rows.probability[j],
            rows.kl[j],
            rows.entropy[j],
            rows.norm[j],
        ]
        for j in shown
    ]
    columns = [
        Column("context", align="left", names=True),
        Column("count"),
        Column("label", align="left"),
        Column("share", format=".3f", spare=True),
        Column("predicted", align="left"),
        Column("probability", format=".3f", spare=True),
        Column("KL", format=".2g", spare=True),
        Column("entropy", format=".3f", spare=True),
        Column("norm", format=".4g", spare=True),
    ]
    more = len(counts) - len(shown)
    note = f"{more} more contexts." if more else ""
    return Table("Predicted labels of contexts", columns, cells, note, missing="-")


def thresholds_table(found: ContextThresholds) -> Table:
    """Return which labels share their logits from which decay on, a set a row."""
    problem, own = found.problem, found.logit_decay

    def names(labels: Sequence[int]) -> str:
        return listed([visible(problem.name(label)) for label in labels])

    said = {True: "yes", False: "no", None: None}
    rows: list[list[Any]] = [
        [names(labels), len(labels), "always", None] for labels in found.equal_labels
    ]
    rows += [
        [names(each.labels), len(each.labels), each.logit_decay, said[each.collapsed]]
        for each in found.sets
    ]
    if found.alone:
        rows.append([names(found.alone), len(found.alone), "not known", None])
    columns = [
        Column("labels", align="left"),
        Column("number", spare=True),
        Column("share logits from", format=".6g", align="right"),
        Column("now", spare=True),
    ]
    if own is None:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    more = len(rows) - MOST_ROWS
    title = "lambda = sqrt(weight_decay feature_decay)" + ("" if own is None else f" = {own:.6g}")
    note = f"{more} more sets." if more > 0 else ""
    return Table(title, columns, rows[:MOST_ROWS], note, missing="-")


def visible(name: str) -> str:
    """Return a name, with signs for what would not be seen: blanks at its ends, line breaks."""
    return name if name.isprintable() and name.strip() == name else shown(name)


# -- pictures --------------------------------------------------------------------------------------


def solution_map(solution: ContextSolution) -> HeatMaps:
    """Return the logits, bias included, of the labels and contexts of most samples."""
    problem, rows = solution.problem, context_rows(solution)
    weights = problem.class_weights * problem.counts
    labels, contexts = _shown(problem.targets, weights, rows.predicted)
    z = (
        solution.classifier[solution.label_of[labels]]
        @ (solution.features[:, solution.context_of[contexts]])
    )
    names = [visible(problem.name(v)) for v in labels.tolist()]
    z += solution.bias[labels][:, None]
    return _map(z, "Predicted logits", names, len(problem.counts), "predicted")


def limits_map(limits: LabelLimits) -> HeatMaps:
    """Return the max-margin direction, or the finite limit of the logits."""
    law = limits.law
    targets = Targets(law.num_labels, law.starts, law.labels.astype(np.int32), law.probabilities)
    tops, _ = _tops(targets)
    labels, contexts = _shown(targets, limits.counts, tops)
    names = [str(v) for v in labels.tolist()]
    title = "What the logits tend to" if limits.stays_finite else "Max-margin direction"
    return _map(limits.part(labels, contexts), title, names, law.num_contexts, "most frequent")


def limits_table(limits: LabelLimits) -> Table:
    """Return what is known of the limit as a table."""
    law = limits.law
    said = {True: "yes", False: "no", None: "not known"}
    rows: list[list[Any]] = [
        ["labels x contexts", f"{law.num_labels} x {law.num_contexts}"],
        ["all logits stay finite", said[limits.stays_finite]],
        ["least norm with margins of one", f"{limits.norm:.9g}"],
        ["certified gap", f"{limits.gap:.2g}"],
        ["norm of the support matrix", f"{limits.support_norm:.9g}"],
        ["that is the max-margin direction", said[limits.is_max_margin]],
        ["rank", str(limits.rank)],
        ["entropy, what the objective tends to", f"{limits.entropy:.9g}"],
    ]
    columns = [Column(""), Column("value", align="right")]
    return Table("Limit of vanishing decays", columns, rows, limits.note)


def _shown(targets: Targets | None, weights: Array, tops: Whole) -> tuple[Whole, Whole]:
    """Choose labels and contexts of most weight; contexts of one top label side by side."""
    assert targets is not None
    marginal = targets.by_context.T @ weights
    labels = np.argsort(-marginal, kind="stable")[:MOST_LABELS]
    contexts = np.argsort(-weights, kind="stable")[:MOST_CONTEXTS]
    place = np.full(targets.num_labels, len(labels))
    place[labels] = np.arange(len(labels))
    return labels, contexts[np.argsort(place[tops[contexts]], kind="stable")]


def _map(values: Array, title: str, names: list[str], num_contexts: int, which: str) -> HeatMaps:
    ticks: list[Tick] = [(float(i), name) for i, name in enumerate(names)]
    m = values.shape[1]
    title += "" if m == num_contexts else f", {m} of {num_contexts} contexts"
    return HeatMaps(
        title,
        [Matrix(title, values)],
        x_label=f"context, by its {which} label",
        y_label="logit of label",
        ticks=ticks,
        names_below=False,
        scale_label="logit",
    )
