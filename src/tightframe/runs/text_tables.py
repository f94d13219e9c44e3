"""What a report says of a run on text in words and tables; no plotting library is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import number_of
from tightframe.figures.table import Column, Table, format_number
from tightframe.problem.class_names import listed
from tightframe.problem.label_law import LabelLaw
from tightframe.problem.problem import Problem
from tightframe.problem.tokens import shown, shown_context
from tightframe.runs.store import RunRecord, SettingRecord
from tightframe.runs.tables import certified, first_and_last, setting_title, verdicts

Array = NDArray[np.float64]
Whole = NDArray[np.intp]

#: Rows of a table, at most: the most frequent tokens and contexts, and the nearest pairs.
MOST_TOKENS, MOST_CONTEXTS, MOST_PAIRS = 60, 40, 15

#: Next tokens that are named of a context.
_LIKELIEST = 3

#: Tokens or contexts among which the nearest is looked for, at most: the most frequent ones.
_NEAR_AMONG = 2000

_METRICS = {
    "objective": "training objective",
    "relative_excess": "objective above the certified bound, relative",
    "divergence": "divergence from the text's law, nats",
    "train_accuracy": "likeliest token right",
    "logits_to_predicted": "logits, distance to predicted",
    "classifier_to_predicted": "classifier, distance to predicted",
    "means_to_predicted": "context features, distance to predicted",
    "classifier_to_etf": "classifier, distance to the ETF",
    "directions": "directions used",
    "beyond_rank": "logits beyond the predicted rank, share",
}


@dataclass(frozen=True, eq=False)
class Vectors:
    """A classifier, features and a bias: predicted, or the network's.

    Attributes
    ----------
    classifier : ndarray, shape (V, d)
    features : ndarray, shape (m, d)
    bias : ndarray, shape (V,)
    """

    classifier: Array
    features: Array
    bias: Array

    def laws(self, contexts: Whole) -> Array:
        """Return the laws of the next token after some contexts, a row a context."""
        scores = self.features[contexts] @ self.classifier.T + self.bias
        scores -= scores.max(axis=1, keepdims=True)
        shares: Array = np.exp(scores)
        shares /= shares.sum(axis=1, keepdims=True)
        return shares


@dataclass(frozen=True, eq=False)
class TextSetting:
    """A setting of a run on text that has been predicted, with names for people.

    Attributes
    ----------
    problem : Problem
    tokens, contexts : list of str
        Names as reports show them.
    predicted : Vectors
    measured : Vectors or None
        None before it has been trained to the end.
    merged : tuple of ndarray
        For every token, and for every context, a number that those with equal logits share.
    """

    problem: Problem
    tokens: list[str]
    contexts: list[str]
    predicted: Vectors
    measured: Vectors | None
    merged: tuple[Whole, Whole]

    @classmethod
    def of(cls, setting: SettingRecord) -> TextSetting | None:
        """Return what there is of a setting; None before its prediction is there."""
        problem, arrays, final = setting.problem, setting.prediction_arrays, setting.final
        if problem is None or arrays is None or setting.prediction is None:
            return None
        measured = None
        if final is not None:
            kept = [final[name].astype(np.float64) for name in ("weight", "features", "bias")]
            measured = Vectors(*kept)
        return cls(
            problem,
            [shown(token) for token in problem.class_names or ()],
            [shown_context(context) for context in setting.prediction["contexts"]],
            Vectors(arrays["weight"], arrays["features"].T, arrays["bias"]),
            measured,
            (arrays["label_of"], arrays["context_of"]),
        )

    @cached_property
    def law(self) -> LabelLaw:
        """The text's own laws."""
        return LabelLaw.read(self.problem.targets)

    @cached_property
    def token_counts(self) -> Array:
        """How often every token follows a context, shape (V,)."""
        every = self.problem.counts[self.law.contexts] * self.law.probabilities
        return np.bincount(self.law.labels, every, len(self.tokens)).astype(np.float64)

    def frequent_tokens(self, most: int) -> Whole:
        """Return the numbers of the most frequent tokens, most frequent first."""
        return np.argsort(-self.token_counts, kind="stable")[:most]

    def frequent_contexts(self, most: int) -> Whole:
        """Return the numbers of the most frequent contexts, most frequent first."""
        return np.argsort(-self.problem.counts, kind="stable")[:most]

    def data_laws(self, contexts: Whole) -> Array:
        """Return the text's laws after some contexts, a row a context."""
        assert self.problem.targets is not None
        rows: Array = self.problem.targets.by_context[contexts].toarray()
        return rows


def token_table(setting: SettingRecord) -> Table | None:
    """Return the tokens, most frequent first: their rows of the classifier and the nearest ones."""
    view = TextSetting.of(setting)
    if view is None:
        return None
    order = view.frequent_tokens(MOST_TOKENS)
    shares = view.token_counts / view.token_counts.sum()
    sides = [side for side in (view.predicted, view.measured) if side is not None]
    lengths = [np.linalg.norm(side.classifier, axis=1) for side in sides]
    among = np.sort(view.frequent_tokens(_NEAR_AMONG))
    near = [_Nearest.of(side.classifier, among) for side in sides]
    rows = []
    for v in order.tolist():
        found = [n.told(v, view.tokens) for n in near]
        rows.append(
            [view.tokens[v], 100 * shares[v]]
            + [own[v] for own in lengths]
            + [part for pair in found for part in pair]
        )
    names = ("predicted", "network")[: len(sides)]
    columns: list[str | Column] = [
        "token",
        Column("share", align="right", format=".2f", suffix=" %"),
        *(Column(f"length, {name}", align="right", format=".4g") for name in names),
    ]
    for name in names:
        columns += [Column(f"nearest, {name}", align="left"), _COSINE]
    title = _with_most("Tokens", len(order), len(view.tokens))
    return Table(title, columns, rows, missing="")


def context_table(setting: SettingRecord) -> Table | None:
    """Return the contexts, most frequent first: what follows in the text and by the network."""
    view = TextSetting.of(setting)
    if view is None:
        return None
    order = view.frequent_contexts(MOST_CONTEXTS)
    among = np.sort(view.frequent_contexts(_NEAR_AMONG))
    data = view.data_laws(order)
    sides = {"predicted": view.predicted}
    if view.measured is not None:
        sides["network"] = view.measured
    laws = {"text": data} | {name: side.laws(order) for name, side in sides.items()}
    near = {name: _Nearest.of(side.features, among) for name, side in sides.items()}
    last = laws[next(reversed(laws))]
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(data > 0, data * np.log(data / last), 0.0).sum(axis=1)
    rows = []
    for place, j in enumerate(order.tolist()):
        likeliest = [_likeliest(law[place], view.tokens) for law in laws.values()]
        nearest = [part for n in near.values() for part in n.told(j, view.contexts)]
        row = [view.contexts[j], int(view.problem.counts[j]), *likeliest, divergence[place]]
        rows.append(row + nearest)
    columns: list[str | Column] = [
        "after",
        Column("seen", align="right", format=",d"),
        *(Column(f"next, {n}", align="left", spare=n == "predicted") for n in laws),
        Column("divergence", align="right", format=".3f"),
    ]
    for name in near:
        columns += [Column(f"nearest, {name}", align="left", spare=True), _COSINE]
    title = _with_most("Contexts", len(order), len(view.contexts))
    return Table(title, columns, rows, missing="")


def pair_table(setting: SettingRecord) -> Table | None:
    """Return the pairs of contexts whose predicted features are the nearest: which laws merge."""
    view = TextSetting.of(setting)
    if view is None:
        return None
    among = np.sort(view.frequent_contexts(_NEAR_AMONG))
    cosines = cosines_of(view.predicted.features[among])
    own = np.zeros(0) if view.measured is None else cosines_of(view.measured.features[among])
    i, j = np.triu_indices(len(among), 1)
    values = np.nan_to_num(cosines[i, j], nan=-2.0)
    best = np.argsort(-values, kind="stable")[:MOST_PAIRS]
    first, second = among[i[best]], among[j[best]]
    apart = np.abs(view.data_laws(first) - view.data_laws(second)).sum(axis=1) / 2
    laws = view.predicted.laws(first), view.predicted.laws(second)
    left = np.abs(laws[0] - laws[1]).sum(axis=1) / 2
    rows = []
    for place in range(len(best)):
        a, b = int(first[place]), int(second[place])
        row: list[Any] = [
            view.contexts[a],
            view.contexts[b],
            _likeliest(view.data_laws(np.array([a]))[0], view.tokens),
            _likeliest(view.data_laws(np.array([b]))[0], view.tokens),
            apart[place],
            left[place],
            cosines[i[best[place]], j[best[place]]],
        ]
        rows.append(row + ([own[i[best[place]], j[best[place]]]] if own.size else []))
    variation = [
        Column(f"laws apart, {name}", align="right", format=".3f") for name in ("text", "predicted")
    ]
    columns: list[str | Column] = [
        "after",
        Column("and after", align="left"),
        Column("next", align="left"),
        Column("and next", align="left"),
        *variation,
        Column("cosine, predicted", align="right", format=".4f"),
    ]
    columns += [Column("cosine, network", align="right", format=".4f")] if own.size else []
    note = "How far laws are apart: total variation, 0 for equal ones, 1 for no token in common."
    return Table("Contexts nearest to each other", columns, rows, note, missing="")


def merged_table(setting: SettingRecord) -> Table | None:
    """Return which tokens and contexts have equal logits, exactly; None without a prediction."""
    view = TextSetting.of(setting)
    if view is None:
        return None
    rows = []
    kinds = (("tokens", view.tokens, view.merged[0]), ("contexts", view.contexts, view.merged[1]))
    for kind, names, number in kinds:
        sizes = np.bincount(number)
        for k in np.argsort(-sizes, kind="stable").tolist():
            if sizes[k] > 1:
                members = [names[i] for i in np.flatnonzero(number == k)]
                rows.append([kind, int(sizes[k]), listed(members, 8)])
    return Table("What merges exactly", ["of", "how many", "which"], rows[:MOST_PAIRS])


def text_metric_table(setting: SettingRecord, digits: int = 5) -> Table:
    """Return what was measured at the start and at the end, beside what is predicted."""
    first, last = first_and_last(setting)
    goal = dict.fromkeys(_METRICS, 0.0) | ((setting.prediction or {}).get("row") or {})
    numbers = [
        Column(name, align="right", format=f".{digits}g") for name in ("start", "end", "predicted")
    ]
    rows = [[label, first.get(k), last.get(k), goal.get(k)] for k, label in _METRICS.items()]
    return Table(setting_title(setting), ["metric", *numbers], rows)


def text_tables(setting: SettingRecord) -> dict[str, Table]:
    """Return all tables of a setting that have something to say, by name."""
    tables = {
        "tokens": token_table(setting),
        "contexts": context_table(setting),
        "pairs": pair_table(setting),
        "merged": merged_table(setting),
    }
    found = {name: table for name, table in tables.items() if table is not None and table.rows}
    return {"metrics": text_metric_table(setting)} | found if found else {}


def text_headline(setting: SettingRecord) -> str:
    """Return one sentence on how a setting ended, or how far it came."""
    if setting.prediction is None:
        return "Not started: there is no prediction yet."
    _, last = first_and_last(setting)
    if not last:
        return "Unfinished: predicted, but nothing measured yet."
    excess, bound = last.get("relative_excess"), setting.prediction.get("lower_bound")
    text = (
        f"the objective {'ends' if setting.finished else 'is'} {format_number(excess, 2)} above "
        f"the certified bound {format_number(bound)}, relative to it; the classifier's Gram matrix "
        f"at distance {format_number(last.get('classifier_to_predicted'), 2)} from the predicted "
        f"and {format_number(last.get('classifier_to_etf'), 2)} from the ETF's"
    )
    found = verdicts(setting)
    if found and setting.finished:
        agreeing = sum(verdict.get("agrees") is True for verdict in found)
        text += f"; {agreeing} of {len(found)} as predicted"
    if not certified(setting):
        text += "; the prediction is not certified"
    if setting.finished:
        return f"{text[0].upper()}{text[1:]}."
    return f"Unfinished, measured up to epoch {format_number(last.get('epoch'))}: {text}."


def text_sentence(setting: SettingRecord) -> str:
    """Return in a sentence which text it was, and how much of it."""
    about = (setting.prediction or {}).get("text") or {}
    problem = setting.problem
    if problem is None or not about:
        return ""
    kind = "token" if about.get("context") == 1 else "tokens"
    return (
        f"{_capital(about['source'])}: {about['characters']:,} characters, as "
        f"{about['tokens']:,} {about['kind']}. Contexts of {about['context']} {kind} that are seen "
        f"{about['min_count']} times or more: {problem.num_contexts:,}, in "
        f"{about['occurrences']:,} places; {about['left_out']:,} places are left out. "
        f"{problem.num_classes:,} different tokens follow."
    )


def text_overview(run: RunRecord) -> str:
    """Return one paragraph in plain language on what a run did and found."""
    count = len(run.settings)
    times = "once" if count == 1 else f"{count} times with different decays"
    text = (
        f"A small network was trained {times} to tell which token of a text comes next. Before "
        "that the theory stated where the last layer must end, from the counts of next tokens "
        "alone: the logits, the classifier, the width that is needed, and a certified lower bound "
        "that the training objective of no network can pass. "
    )
    done = [setting for setting in run.settings if setting.finished]
    if not done:
        return text + "No setting is finished yet."
    right = sum(all(v.get("agrees") is True for v in verdicts(s)) for s in done)
    return text + (f"In {right} of {number_of(len(done), 'finished setting')} all is as predicted.")


def limit_sentences(setting: SettingRecord) -> list[str]:
    """Return what is known of the limit of vanishing decays, and how far this prediction is."""
    limit: Mapping[str, Any] = (setting.prediction or {}).get("limit") or {}
    if not limit:
        return []
    found = [
        "Inside the tokens that a context has, the predicted differences of logits are on average "
        f"{format_number(limit['log_ratio_error'], 2)} nats from the log ratios of the text's law, "
        "their limit.",
    ]
    if not limit["stays_finite"]:
        found.append(
            "The logits' direction is at distance "
            f"{format_number(limit['distance_to_direction'], 2)} from the max-margin direction, "
            f"their limit, and {format_number(limit['distance_to_supports'], 2)} from the centred "
            "support matrix, which the literature takes for it."
        )
    return [*found, str(limit["note"])]


# -- inside ----------------------------------------------------------------------------------------

_COSINE = Column("cosine", align="right", format=".3f", spare=True)


@dataclass(frozen=True, eq=False)
class _Nearest:
    """The nearest other vector of some, by the cosine."""

    place: dict[int, tuple[int, float]]

    @classmethod
    def of(cls, vectors: Array, among: Whole) -> _Nearest:
        cosines = cosines_of(vectors[among])
        np.fill_diagonal(cosines, -np.inf)
        cosines[np.isnan(cosines)] = -np.inf
        best = cosines.argmax(axis=1)
        values = cosines[np.arange(len(among)), best]
        pairs = zip(among.tolist(), among[best].tolist(), values.tolist(), strict=True)
        return cls({i: (j, c) for i, j, c in pairs if np.isfinite(c)})

    def told(self, i: int, names: Sequence[str]) -> tuple[str | None, float | None]:
        """Return the name of the one nearest to the i-th, and the cosine."""
        found = self.place.get(i)
        return (None, None) if found is None else (names[found[0]], found[1])


def cosines_of(vectors: Array) -> Array:
    """Return the cosines between vectors, the rows; NaN in the row of a zero vector."""
    lengths = np.linalg.norm(vectors, axis=1)
    lengths[lengths <= 1e-12 * lengths.max(initial=0.0)] = np.nan
    unit = vectors / lengths[:, None]
    cosines: Array = unit @ unit.T
    return cosines


def _likeliest(law: Array, names: Sequence[str]) -> str:
    """Return the likeliest tokens of a law: ``"e 62% / a 20%"``."""
    order = np.argsort(-law, kind="stable")[:_LIKELIEST]
    # No line ends between a token and its share.
    return " / ".join(f"{names[v]}\xa0{law[v]:.0%}" for v in order.tolist() if law[v] >= 5e-3)


def _with_most(title: str, here: int, there: int) -> str:
    return title if here == there else f"{title}: the {here} most frequent of {there:,}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
