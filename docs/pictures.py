"""Draw the pictures of the guides again, on light and on dark pages.

``python docs/pictures.py`` writes all of them into ``docs/images/remedies``,
``python docs/pictures.py mixup rank`` those two. Every number is solved for.
``python docs/pictures.py hero`` draws what ``make demo`` trained.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

import tightframe as tf
from tightframe.advice.prediction import outlook
from tightframe.figures.diagrams import Callout, Wheel
from tightframe.figures.model import (
    Block,
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Matrix,
    Note,
    Sheet,
    Stack,
)
from tightframe.figures.mpl import draw, save_figure
from tightframe.figures.style import DARK, LIGHT
from tightframe.runs.outcome import ending_of, percent, rare_classes
from tightframe.runs.store import SettingRecord, load_run
from tightframe.runs.wheels import setting_wheel
from tightframe.views.merge_tree import merge_tree

IMAGES = Path(__file__).parent / "images"
FOLDER = IMAGES / "remedies"
DEMO = Path(__file__).parent.parent / "demo-run"
WIDTH = 6.8

#: Large and small classes, and the logit decays that the pictures reach over.
COUNTS = "500x5,100x5"
DECAYS = np.geomspace(1e-4, 1e-2, 60)
LAMBDA = "λ = √(weight decay · feature decay)"


def problem(decay: float = 1e-3, counts: str = COUNTS, **terms) -> tf.Problem:
    """Return a problem whose two decays are one number."""
    return tf.Problem(counts, weight_decay=decay, feature_decay=decay, **terms)


# -- remedies: margins along the decays ------------------------------------


def remedies() -> Sheet:
    """Return the margins of both groups with every remedy."""
    terms = {
        "no remedy": {},
        "balanced weights": {"class_weights": "balanced"},
        "logit adjustment": {"logit_adjustment": "prior"},
        "label smoothing 0.1": {"label_smoothing": 0.1},
        "CDT 0.6": {"logit_scale": "1x5,0.6x5"},
        "LDT 1.6": {"feature_weights": f"500x5,{100 / 1.6**2}x5"},
        "LDAM 0.5": {"class_margins": "0.334x5,0.5x5"},
    }
    # Logits of LDT's problem are 1.6 times the network's in small classes.
    return both_groups(
        {name: problem(**term) for name, term in terms.items()},
        {"LDT 1.6": 1.6},
    )


def weights() -> Sheet:
    """Return what weights and copies do to both groups."""
    return both_groups(
        {
            "no remedy": problem(),
            "balanced weights": problem(class_weights="balanced"),
            "small classes 5 times": problem(counts="500x10"),
        },
    )


def logit_adjustment() -> Sheet:
    """Return what the adjustment does to both groups."""
    return both_groups(
        {
            "no remedy": problem(),
            "log prior": problem(logit_adjustment="prior"),
            "half of it": problem(logit_adjustment="0.5*prior"),
        },
    )


def ldam() -> Sheet:
    """Return small classes' margins with a margin asked of them."""
    problems = {"no margin": problem()} | {
        f"margin {margin}": problem(class_margins=f"0x5,{margin}x5")
        for margin in (0.5, 1, 2)
    }
    return siblings(problems, np.geomspace(5e-4, 5e-3, 60))


def ldt() -> Sheet:
    """Return small classes' margins with their features decayed less."""
    curves, marks = [], []
    for i, factor in enumerate((1, 0.6, 1.6)):
        one = problem(feature_weights=f"500x5,{100 / factor**2}x5")
        limit = tf.thresholds(one).groups[1].logit_decay
        line = along(one, np.geomspace(1e-6, 1e-2, 80), [limit])
        margins = np.array([s.group_margins[1] for s in line.solutions])
        names = {1: "no factor"}.get(factor, f"feature weights n/{factor}²")
        curves.append(until(names, line.logit_decay, margins, limit, i))
        marks.append(threshold(limit, i))
        if i:
            own = margins / factor
            name = f"LDT loss, κ = {factor}"
            loss = until(name, line.logit_decay, own, limit, i)
            curves.append(replace(loss, style="dashed"))
    return sibling_sheet(curves, marks)


def label_smoothing() -> Sheet:
    """Return small classes' margins, which smoothing bounds."""
    problems = {"no smoothing": problem()} | {
        f"ε = {share}": problem(label_smoothing=share)
        for share in (0.02, 0.1, 0.3)
    }
    return siblings(problems, np.geomspace(1e-6, 1e-2, 80))


def logit_scales() -> Sheet:
    """Return small classes' margins with logits scaled down and up."""
    problems = {"no scale": problem()} | {
        f"{name} of small classes": problem(logit_scale=f"1x5,{name}x5")
        for name in ("0.6", "0.8", "1.5")
    }
    return siblings(problems, np.geomspace(1e-6, 1e-2, 80))


def both_groups(
    problems: Mapping[str, tf.Problem], factors: Mapping[str, float] = {}
) -> Sheet:
    """Draw decision margins of small classes above those of large ones.

    The small ones' are divided by a problem's factor.
    """
    curves: list[list[Curve]] = [[], []]
    marks: list[list[Mark]] = [[], []]
    for i, (name, one) in enumerate(problems.items()):
        limits = [group.logit_decay for group in tf.thresholds(one).groups]
        line = along(one, DECAYS, limits)
        found = [outlook(solution).groups for solution in line.solutions]
        for g in range(2):
            own = -1 if g == 0 else 0  # copies make one group of both
            factor = 1 if g else factors.get(name, 1)
            margins = [x[own].decision_margin / factor for x in found]
            curves[g].append(
                until(name, line.logit_decay, margins, limits[own], i)
            )
            marks[g].append(threshold(limits[own], i))
    axes = {"log_x": True, "x_range": (DECAYS[0], DECAYS[-1] * 1.03)}
    charts = [
        Chart(
            f"{name} samples each",
            LAMBDA if g else "",
            "decision margin (nats)",
            curves[g],
            marks[g],
            y_range=(0, None),
            legend="below" if g else "none",
            **axes,
        )
        for g, name in enumerate(
            ("Small classes: five of 100", "Large classes: five of 500")
        )
    ]
    return Sheet("", [Block([Stack("", charts, [1, 1])], 1, 6.4)], WIDTH)


def siblings(
    problems: Mapping[str, tf.Problem], decays: NDArray[np.float64]
) -> Sheet:
    """Draw the margins of small classes to each other."""
    curves, marks = [], []
    for i, (name, one) in enumerate(problems.items()):
        limit = tf.thresholds(one).groups[1].logit_decay
        line = along(one, decays, [limit])
        margins = [s.group_margins[1] for s in line.solutions]
        curves.append(until(name, line.logit_decay, margins, limit, i))
        marks.append(threshold(limit, i))
    return sibling_sheet(curves, marks)


def sibling_sheet(curves: Sequence[Curve], marks: Sequence[Mark]) -> Sheet:
    """Draw margins of small classes along the decays."""
    chart = Chart(
        "Small classes: five of 100 samples each, beside five of 500",
        LAMBDA,
        "sibling margin (nats)",
        curves,
        marks,
        log_x=True,
        y_range=(0, None),
    )
    return Sheet("", [Block([chart], 1, 4.2)], WIDTH)


def along(
    one: tf.Problem, decays: NDArray[np.float64], limits: Sequence[float]
) -> tf.Path:
    """Solve along the decays and near the limits, where curves fall to zero."""
    steep = np.outer(limits, 1 - np.array([0, 1e-4, 1e-3, 0.01, 0.03]))
    places = np.union1d(decays, steep)
    return tf.path(one, weight_decay=places, feature_decay=places)


def until(
    name: str,
    decays: NDArray[np.float64],
    margins: Sequence[float],
    limit: float,
    i: int,
) -> Curve:
    """Return margins up to a threshold; the first curve is what was before."""
    kept = decays <= limit
    return Curve(
        name,
        decays[kept],
        np.array(margins)[kept],
        look(i),
        width=1 if i else 1.5,
    )


def threshold(limit: float, i: int) -> Mark:
    """Return the mark of a threshold on the axis."""
    return Mark(limit, "merge from here on", "x", look(i), "triangle", True)


def look(i: int) -> str | int:
    """Return a colour: ink for what there is without a remedy."""
    return i - 1 if i else "ink"


# -- label distributions ---------------------------------------------------


def cosines() -> Sheet:
    """Return classifier cosines of labels that a teacher or noise mixes."""
    pairs = np.kron(np.eye(3), np.array([[0.8, 0.2], [0.2, 0.8]]))
    laws = {
        "one label": np.eye(6),
        "0.2 to all": 0.8 * np.eye(6) + 0.2 / 6,
        "0.2 to the twin": pairs,
    }
    maps = []
    for name, law in laws.items():
        solution = tf.solve(problem(1e-3, "100x6", targets=law))
        maps.append(Matrix(name, cosines_of(solution.weights[0])))
    panel = HeatMaps(
        "",
        maps,
        "class",
        "class",
        limit=1.0,
        ticks=[(i, str(i)) for i in range(6)],
        scale_label="cosine of classifier rows",
    )
    return Sheet("", [Block([panel], 3, 2.9)], 8.0)


def mixup() -> Sheet:
    """Return where mixed samples of three classes lie, and what they get."""
    shares = np.linspace(0, 1, 21)
    law = np.zeros((3, 3, len(shares)))
    for i in range(3):
        law[i, i] = shares
        law[(i + 1) % 3, i] = 1 - shares
    maps, answers = [], []
    for k, name in enumerate(("0.003", "0.001", "0.0001")):
        one = problem(float(name), "10x63", targets=law.reshape(3, -1))
        logits = tf.solve(one).logits
        points = plane(logits)
        points = (points / np.abs(points).max()).reshape(3, len(shares), 2)
        for i, part in enumerate(points):
            label = "" if i else f"λ = {name}"
            look = {"style": "line+points", "size": 0.6}
            maps.append(Curve(label, *part.T, k, **look))
        odds = np.exp(logits[:, : len(shares)])
        answers.append(Curve("", shares, (odds / odds.sum(axis=0))[0], k))
    corners = plane(np.eye(3))
    where = Chart(
        "Logits, drawn to one size",
        "",
        "",
        maps,
        notes=[outside(f"class {i}", *c) for i, c in enumerate(corners)],
        **MAP | {"x_range": (-1.6, 1.6), "y_range": (-1.1, 1.4)},
    )
    what = Chart(
        "What a mixed sample gets",
        "share of the class in the sample",
        "its predicted probability",
        [*answers, Curve("equal", [0, 1], [0, 1], "ink", "dashed")],
        x_range=(0, 1),
        y_range=(0, 1),
        legend="inside",
    )
    return Sheet("", [Block([where, what], 2, 4.1)], 8.0)


def several_labels() -> Sheet:
    """Return features of samples with one label and with two."""
    sets = [[0], [1], [2], [0, 1], [1, 2], [0, 2]]
    law = np.zeros((3, 6))
    for j, members in enumerate(sets):
        law[members, j] = 1 / len(members)
    charts = []
    for title, counts in {
        "a, b, c: 100 samples each": "100x3,20x3",
        "a, b, c: 1000, 100 and 10 samples": "1000,100,10,20x3",
    }.items():
        sizes = [len(members) for members in sets]
        one = problem(1e-3, counts, targets=law, class_weights=sizes)
        points = plane(tf.solve(one).logits)
        points /= np.linalg.norm(points, axis=1).max()
        curves = [
            Curve(
                {0: "one label", 3: "two labels"}.get(j, ""),
                *np.stack([[0, 0], point]).T,
                sizes[j] - 1,
                "line+points",
            )
            for j, point in enumerate(points)
        ]
        for j, members in enumerate(sets[3:], 3):
            total = points[members].sum(axis=0)
            total *= np.linalg.norm(points[j]) / np.linalg.norm(total)
            name = "along the sum of both" if j == 3 else ""
            ends = np.stack([[0, 0], total]).T
            curves.append(Curve(name, *ends, "ink", "dotted"))
        names = [" + ".join("abc"[k] for k in members) for members in sets]
        notes = [
            outside(name, *point)
            for name, point in zip(names, points, strict=True)
        ]
        charts.append(Chart(title, "", "", curves, notes=notes, **MAP))
    return Sheet("", [Block(charts, 2, 4.1)], 8.0)


#: A map has no scale, and names around it.
MAP = {
    "x_range": (-1.4, 1.4),
    "y_range": (-1.4, 1.4),
    "x_ticks": (),
    "y_ticks": (),
}


def outside(text: str, x: float, y: float) -> Note:
    """Return a name centred a little farther out than its point."""
    out = np.array([x, y]) / np.hypot(x, y)
    half = 0.035 * len(text)
    return Note(
        x + (0.12 + half) * out[0] + half, y + 0.17 * out[1] - 0.13, text
    )


# -- next tokens -----------------------------------------------------------


def letters(context: int, decay: float, **terms) -> tf.Problem:
    """Return next letters after the letters of this package's licence."""
    text = distribution("tightframe").read_text("licenses/LICENSE")
    return tf.Problem.from_tokens(
        re.sub("[^a-z]+", "_", text.lower()),
        context=context,
        weight_decay=decay,
        feature_decay=decay,
        **terms,
    )


def rank() -> Sheet:
    """Return the width that the text needs along the decays."""
    decays = np.geomspace(1e-5, 1e-2, 40)
    curves = []
    for i, (name, terms) in enumerate(
        {
            "decay of every occurrence": {},
            "decay of every context": {"feature_weights": "contexts"},
        }.items()
    ):
        one = letters(2, 1.0, min_count=10, **terms)
        ranks = [
            tf.solve(one.replace(weight_decay=d, feature_decay=d)).rank
            for d in decays
        ]
        curves.append(Curve(name, decays, ranks, i, "line+points", size=0.6))
    chart = Chart(
        "Next letter after two, Apache licence: 27 labels, 191 contexts",
        LAMBDA,
        "rank: the width that the data need",
        curves,
        [Mark(26, "labels less one", "y", "muted", "dashed")],
        log_x=True,
        y_range=(0, 29),
    )
    return Sheet("", [Block([chart], 1, 3.8)], WIDTH)


def contexts() -> Sheet:
    """Return letters as contexts and as labels, where the rank is two."""
    one = letters(1, 1.4e-3)
    solution = tf.solve(one)
    if solution.rank != 2:
        raise ValueError(f"rank: got {solution.rank}, a map shows 2")
    charts, rows = [], solution.weights[0]
    # An axis may be turned round; the farthest letter is on the right, above.
    turn = np.sign(rows[np.abs(rows).argmax(axis=0), [0, 1]])
    for title, points in {
        "What was read": turn * solution.class_means.T,
        "What comes next": turn * rows,
    }.items():
        ends = np.vstack([points, [[0, 0]]])
        low, size = ends.min(axis=0), np.ptp(ends, axis=0)
        points, origin = (points - low) / size, -low / size
        charts.append(
            Chart(
                title,
                "",
                "",
                [
                    Curve("", *points.T, len(charts), "points", size=0.7),
                    Curve(
                        "", *origin[:, None], "muted", "points", marker="cross"
                    ),
                ],
                notes=readable(one, points),
                legend="none",
                x_range=(-0.1, 1.05),
                y_range=(-0.05, 1.1),
                x_ticks=(),
                y_ticks=(),
            )
        )
    return Sheet("", [Block(charts, 2, 4.1)], 8.0)


def readable(one: tf.Problem, points: NDArray[np.float64]) -> list[Note]:
    """Return names, of the most frequent first, that cover nothing."""
    notes: list[Note] = []
    for j in np.argsort(-one.counts, kind="stable"):
        x, y = points[j]
        far = [max(abs(x - n.x) / 0.04, abs(y - n.y) / 0.06) for n in notes]
        over = points - [x - 0.01, y + 0.045]
        hidden = (np.abs(over) < [0.03, 0.03]).all(axis=1).any()
        if min(far, default=1) >= 1 and not hidden:
            notes.append(Note(x, y, one.class_names[j]))
    return notes


# -- the README's ----------------------------------------------------------


def hero() -> Sheet:
    """Return the demo's merge tree, with its networks' wheels beside it."""
    settings = load_run(DEMO).settings
    wheels = [setting_wheel(setting) for setting in settings]
    networks = [
        (setting.problem.logit_decay, letter, wheel.moments[-1].states)
        for setting, letter, wheel in zip(settings, "AB", wheels, strict=True)
    ]
    tree = merge_tree(
        tf.state_changes(settings[0].problem),
        networks=networks,
        title="Predicted before training: which classes stay apart",
    )
    named = [
        replace(with_rare(wheel, setting), title=f"{letter}: {wheel.title}")
        for letter, wheel, setting in zip("AB", wheels, settings, strict=True)
    ]
    return Sheet("", [Block([tree, *named], 3, 5.0, widths=(2.1, 1, 1))], 13.5)


def with_rare(wheel: Wheel, setting: SettingRecord) -> Wheel:
    """Return a wheel that says below how many of the rare are right."""
    ending = ending_of(setting)
    rare = rare_classes(setting.problem)
    (state,) = set(ending.states.state[rare].tolist())
    number = percent(ending.accuracy_of(rare))
    said = "test accuracy of the rare classes"
    end = wheel.moments[-1]
    callouts = [*end.callouts, Callout(0, -1.72, number, state)]
    return replace(
        wheel,
        moments=[replace(end, callouts=callouts)],
        captions=[*wheel.captions, (0, -1.48, said), (0, -1.8, " ")],
    )


def with_large_numbers(figure: Figure) -> Figure:
    """Return a figure whose shares are what is seen first."""
    for text in figure.findobj(Text):
        if re.fullmatch(r"[\d.]+ %", text.get_text()):
            text.set_fontsize(19)
    return figure


# -- all -------------------------------------------------------------------


def cosines_of(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosines of all pairs of rows."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def plane(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return three logits a column in the plane where they sum to zero."""
    angles = np.pi / 2 + 2 * np.pi / 3 * np.arange(3)
    return logits.T @ np.stack([np.cos(angles), np.sin(angles)], axis=1)


#: Name of a picture to what draws it.
PICTURES = {
    "remedies": remedies,
    "weights": weights,
    "logit-adjustment": logit_adjustment,
    "label-smoothing": label_smoothing,
    "ldam": ldam,
    "logit-scales": logit_scales,
    "ldt": ldt,
    "cosines": cosines,
    "mixup": mixup,
    "several-labels": several_labels,
    "rank": rank,
    "contexts": contexts,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        folder = IMAGES if name == "hero" else FOLDER
        sheet = hero() if name == "hero" else PICTURES[name]()
        for page, ink in {"light": LIGHT, "dark": DARK}.items():
            path = folder / f"{name}.{page}.svg"
            print(save_figure(with_large_numbers(draw(sheet, ink)), path))
