"""The SVG backend: wheels and merge trees on pages, seen before any other script has loaded.

A figure is drawn here once, for its last moment, and can be read without a script. `svg.js` moves
what is there: it plays, follows a slider and says what is pointed at.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from tightframe.figures.diagrams import (
    LINE_HEIGHT,
    NAME_AT,
    RIM,
    TREE_WIDTH,
    MergeTree,
    Moment,
    Run,
    Wheel,
    text_width,
)
from tightframe.figures.style import DARK, LIGHT, STATES, Ink, log_ticks, state_variables
from tightframe.figures.words import in_words

#: Shapes of points at a radius of one; of a cross, lines.
_SHAPES = {
    "circle": '<circle r="1"/>',
    "diamond": '<path d="M0-1.25 1.25 0 0 1.25-1.25 0Z"/>',
    "right": '<path d="M-.85-1.1 1.2 0-.85 1.1Z"/>',
    "cross": '<path class="tf-lines" d="M-.85-.85.85.85M.85-.85-.85.85"/>',
    "half": '<path d="M0-1A1 1 0 0 0 0 1Z"/><circle class="tf-lines" r=".9"/>',
}

#: Pixels of a ring beyond its mark, of a few and of many marks.
_RING, _NARROW_RING = 4.0, 2.5

#: Pixels right of a tree's axes and below them.
_RIGHT, _BELOW = 26.0, 52.0

#: On a narrow screen letters are so much larger, relative to the picture.
_NARROW_LETTERS = 1.75


def draw(
    panel: Wheel | MergeTree,
    name: str = "",
    *,
    key: bool = True,
    bare: bool = False,
    drawn: bool = True,
) -> str:
    """Return a picture as HTML; a page needs `head` once besides.

    Parameters
    ----------
    panel : Wheel or MergeTree
        Of several moments of a wheel the last is seen; a button plays them, a slider chooses.
    name : str
        The figure's id. A wheel follows a tree's slider if both are in one element of the class
        ``tf-together``.
    key : bool
        Whether it is said below what the marks mean.
    bare : bool
        Whether the page has title, key and what moves a wheel at another place.
    drawn : bool
        False leaves out the marks of a wheel, for a page that copies those of another one of the
        same classes when its script is read.
    """
    if panel.empty:
        return f'<figure class="tf">{escape(in_words(panel))}</figure>'
    own = f' id="{escape(name)}"' if name else ""
    if isinstance(panel, Wheel):
        kind, marks, data = "wheel", _wheel(panel) if drawn else "", _wheel_data(panel)
        moves = len(panel.moments) > 1 and not bare
        controls = _PLAYER.format(len(panel.moments) - 1) if moves else ""
        ring = panel.ring_label if any(m.rings is not None for m in panel.moments) else ""
    else:
        kind, marks, data, ring = "tree", _tree(panel), _tree_data(panel), ""
        controls = _slider(panel)
    below = state_key(panel.shown_states, ring) if key and not bare else ""
    titled = panel.title and not bare
    title = f'<div class="tf-title">{escape(panel.title)}</div>' if titled else ""
    note = f'<div class="tf-note">{escape(panel.note)}</div>' if panel.note else ""
    stored = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<figure class="tf tf-{kind}"{own}>{title}{marks}{controls}<figcaption>{below}{note}'
        f'</figcaption><div class="tf-tip" role="status" hidden=""></div>'
        f'<script type="application/json">{stored}</script></figure>'
    )


def head() -> str:
    """Return styles, shapes and script for a page with pictures; nothing is asked of the network.

    The script connects the figures that are there when it is read, and has ``tightframe.connect``
    for those that come later.
    """
    return f"<style>{style_sheet()}</style>{symbols()}<script>{script()}</script>"


@cache
def style_sheet() -> str:
    """Return the styles of all pictures: colours of states and ink, on light and dark pages."""

    def colors(ink: Ink) -> str:
        rest = "".join(f"--tf-{name}:{value};" for name, value in asdict(ink).items())
        return f".tf{{{state_variables(ink)}{rest}}}"

    states = "".join(f".tf .{state}{{color:var(--tf-{state})}}" for state in STATES)
    dark = f"@media(prefers-color-scheme:dark){{{colors(DARK)}}}"
    rest = files("tightframe.figures").joinpath("svg.css").read_text(encoding="utf-8")
    return f"{colors(LIGHT)}{dark}{states}{rest}"


@cache
def symbols() -> str:
    """Return the shapes of states, which pictures refer to."""
    shapes = "".join(
        f'<symbol id="tf-{state}" overflow="visible">{_SHAPES[look.marker]}</symbol>'
        for state, look in STATES.items()
    )
    return f'<svg width="0" height="0" style="position:absolute" aria-hidden="true">{shapes}</svg>'


@cache
def script() -> str:
    """Return the script that moves pictures."""
    return files("tightframe.figures").joinpath("svg.js").read_text(encoding="utf-8")


_PLAYER = (
    '<div class="tf-player"><button type="button">▶ Play</button>'
    '<input type="range" min="0" max="{0}" step="any" value="{0}" aria-label="moment"/>'
    "<output></output></div>"
)


def state_key(states: Sequence[str], ring: str = "", meanings: Mapping[str, str] = {}) -> str:
    """Return what marks mean: states, with more words where there are some, and rings."""
    more = {state: f": {escape(meanings[state])}" for state in states if state in meanings}
    entries = [f"<span>{sign(state)}{state}{more.get(state, '')}</span>" for state in states]
    if ring:
        entries.append(
            '<span><svg class="tf-sign" viewBox="-8 -8 16 16" aria-hidden="true">'
            f'<circle class="tf-ring" r="6.5"/></svg>{escape(ring)}</span>'
        )
    return f'<div class="tf-key">{"".join(entries)}</div>'


def sign(state: str) -> str:
    """Return the mark of a state as large as letters, for inside of ``.tf``."""
    return (
        f'<svg class="tf-sign {state}" viewBox="-1.6 -1.6 3.2 3.2" aria-hidden="true">'
        f'<use href="#tf-{state}"/></svg>'
    )


# -- wheel -----------------------------------------------------------------------------------------


def _wheel(wheel: Wheel) -> str:
    moment, (across, up) = wheel.moments[-1], wheel.reach
    box = [round(value * RIM, 1) for value in (-across, -up, 2 * across, 2 * up)]
    parts = [
        f'<svg viewBox="{" ".join(map(str, box))}" role="img" aria-label="'
        f'{escape(in_words(wheel))}" style="max-width:{box[2] * 1.6:.0f}px">',
        f'<circle class="tf-rim" r="{RIM:g}"/>',
        f'<path class="tf-cross" d="M-8 0H8M0-8V8" transform="translate({_at(moment.cross)})"/>',
    ]
    few = "" if len(wheel.names) <= 30 else " tf-many"
    order = sorted(range(len(wheel.names)), key=lambda i: -wheel.sizes[i])
    if wheel.joined:
        parts.append(f'<g class="tf-spokes{few}">{"".join(_spokes(wheel, moment))}</g>')
    parts.append('<g class="tf-takers"></g>')
    parts.append(f'<g class="tf-marks">{"".join(_marks(wheel, moment, order))}</g>')
    if any(m.rings is not None for m in wheel.moments):
        extra = _NARROW_RING if few else _RING
        rings = moment.rings or moment.places
        parts.append('<g class="tf-rings">')
        parts += [
            f'<circle class="tf-ring" data-i="{i}" r="{wheel.sizes[i] * RIM + extra:.1f}" '
            f'transform="translate({_at(rings[i])})"/>'
            for i in order
        ]
        parts.append("</g>")
    parts += ['<g class="tf-names">', *_names(wheel), '</g><g class="tf-callouts">']
    parts += [
        f'<text class="{c.state}" x="{RIM * c.x:.1f}" y="{-RIM * c.y:.1f}">{escape(c.text)}</text>'
        for c in moment.callouts
    ]
    return "".join([*parts, "</g></svg>"])


def _spokes(wheel: Wheel, moment: Moment) -> Iterator[str]:
    for i, (home, place, state) in enumerate(
        zip(wheel.homes, moment.places, moment.states, strict=True)
    ):
        (x, y), (x2, y2) = _pixels(home), _pixels(place if state else home)
        yield f'<line class="{state}" data-i="{i}" x1="{x}" y1="{y}" x2="{x2}" y2="{y2}"/>'
        yield f'<circle class="{state}" data-i="{i}" cx="{x}" cy="{y}" r="2.8"/>'


def _marks(wheel: Wheel, moment: Moment, order: Sequence[int]) -> Iterator[str]:
    for i in order:
        state = moment.states[i]
        shape = f'href="#tf-{state}"' if state else 'display="none"'
        yield (
            f'<use class="{state}" {shape} data-i="{i}" transform="translate('
            f'{_at(moment.places[i])}) scale({wheel.sizes[i] * RIM:.1f})"/>'
        )


def _names(wheel: Wheel) -> Iterator[str]:
    for i in wheel.named:
        x, y = (value * (1 + NAME_AT / RIM) for value in wheel.homes[i])
        yield (
            f'<text data-i="{i}" x="{RIM * x:.1f}" y="{-RIM * y:.1f}" text-anchor="'
            f'{_anchor(wheel.homes[i][0], 0.25)}">{escape(wheel.names[i])}</text>'
        )
    for x, y, text in wheel.captions:
        yield (
            f'<text class="tf-caption" x="{RIM * x:.1f}" y="{-RIM * y:.1f}" text-anchor="'
            f'{_anchor(x, 0.7)}">{escape(text)}</text>'
        )


def _anchor(x: float, middle: float) -> str:
    return "middle" if abs(x) < middle else "start" if x > 0 else "end"


def _pixels(place: Sequence[float]) -> tuple[float, float]:
    return round(RIM * place[0], 1), round(-RIM * place[1], 1)


def _at(place: Sequence[float]) -> str:
    return "{} {}".format(*_pixels(place))


def _wheel_data(wheel: Wheel) -> dict[str, Any]:
    """Return what the script moves: pixels, states by number."""
    number = {state: i for i, state in enumerate(STATES)} | {"": -1}
    return {
        "states": list(STATES),
        "names": list(wheel.names),
        "homes": [_pixels(home) for home in wheel.homes],
        "radii": [round(RIM * size, 1) for size in wheel.sizes],
        "moments": [
            {
                "label": moment.label,
                "value": moment.value,
                "places": [_pixels(place) for place in moment.places],
                "states": [number[state] for state in moment.states],
                "rings": None if moment.rings is None else [_pixels(r) for r in moment.rings],
                "cross": _pixels(moment.cross),
                "callouts": [
                    [*_pixels((c.x, c.y)), c.text, number[c.state]] for c in moment.callouts
                ],
                "tips": list(moment.tips),
                "takers": moment.takers,
            }
            for moment in wheel.moments
        ],
    }


# -- merge tree ------------------------------------------------------------------------------------


def _tree(tree: MergeTree) -> str:
    left = _left(tree)
    wide, high = left + TREE_WIDTH + _RIGHT, tree.top + tree.height + _BELOW
    parts = [
        f'<svg viewBox="{-left:g} {-tree.top:g} {wide:g} {high:g}" role="img" aria-label="'
        f'{escape(in_words(tree))}"><path class="tf-axis" d="M0 {tree.height:g}H{TREE_WIDTH:g}"/>',
        *_ticks(tree),
        *_changes(tree),
    ]
    for i, lane in enumerate(tree.lanes):
        parts.append(f'<g data-i="{i}" stroke-width="{lane.width:.2f}">')
        parts += [f'<path class="tf-lane {r.state}" d="{_path(tree, r)}"/>' for r in lane.runs]
        parts.append("</g>")
        if lane.name:
            y = lane.runs[0].y[0] if lane.runs else lane.ends[0][1]
            parts.append(
                f'<text class="tf-name" x="-8" y="{y:.1f}" text-anchor="end">'
                f"{escape(lane.name)}</text>"
            )
    parts += [
        f'<use class="vanished" href="#tf-vanished" transform="translate({_x(tree, x) + 7:.1f} '
        f'{y:.1f}) scale({size / 2:.1f})"/>'
        for x, y, size in tree.crosses
    ]
    for height, text in tree.captions:
        place = f"{-left + 12:.1f} {height:.1f}"
        parts.append(
            f'<text class="tf-caption" text-anchor="middle" transform="translate({place}) '
            f'rotate(-90)">{escape(text)}</text>'
        )
    for network in tree.networks:
        x = round(_x(tree, network.value), 1)
        parts.append(f'<path class="tf-now" d="M{x} -4V{tree.height:g}"/>')
        for lane, state in zip(tree.lanes, network.states, strict=bool(network.states)):
            found = lane.at(network.value)
            y = found[1] if found else lane.ends[-1][1]
            size = 3 + 0.75 * lane.width
            parts.append(
                f'<use class="{state}" href="#tf-{state}" transform="translate({x} {y:.1f}) '
                f'scale({size:.1f})"/>'
            )
        parts.append(
            f'<circle class="tf-letter" cx="{x}" cy="{tree.height:g}" r="9"/><text '
            f'class="tf-letter" x="{x}" y="{tree.height:g}" text-anchor="middle">'
            f"{escape(network.letter)}</text>"
        )
    parts.append('<g class="tf-here"></g></svg>')
    return "".join(parts)


def _left(tree: MergeTree) -> float:
    """Return the pixels left of the axes, with room for the letters of narrow screens."""
    return tree.left + (_NARROW_LETTERS - 1) * tree.name_width


def _ticks(tree: MergeTree) -> Iterator[str]:
    places = log_ticks(tree.low, tree.high)
    if places is None:
        first, last = (math.log10(end) for end in (tree.low, tree.high))
        places = [10.0**e for e in range(math.ceil(first), math.floor(last) + 1)]
    for place in places:
        x = _x(tree, place)
        yield (
            f'<path class="tf-axis" d="M{x:.1f} {tree.height:g}v5"/><text class="tf-tick" '
            f'x="{x:.1f}" y="{tree.height + 15:g}" text-anchor="middle">{place:.12g}</text>'
        )
    yield (
        f'<text class="tf-caption" x="{TREE_WIDTH / 2:g}" y="{tree.height + 40:g}" '
        f'text-anchor="middle">{escape(tree.x_label)}</text>'
    )


def _changes(tree: MergeTree) -> Iterator[str]:
    end = -math.inf  # of the last label that a narrow screen has room for
    for change in tree.changes:
        x = _x(tree, change.value)
        yield f'<path class="tf-change {change.state}" d="M{x:.1f} -4V{tree.height:g}"/>'
        if change.label:
            half = _NARROW_LETTERS * text_width(change.label) / 2
            wide = x - half < end
            end = end if wide else x + half
            yield (
                f'<text class="tf-label {change.state}{" tf-wide" if wide else ""}" x="{x:.1f}" '
                f'y="{-4 - LINE_HEIGHT * (change.row + 0.4):.1f}" text-anchor="middle">'
                f"{escape(change.label)}</text>"
            )


def _x(tree: MergeTree, decay: float) -> float:
    return TREE_WIDTH * math.log(decay / tree.low) / math.log(tree.high / tree.low)


def _path(tree: MergeTree, run: Run) -> str:
    x = [_x(tree, value) for value in run.x]
    parts = [f"M{x[0]:.1f} {run.y[0]:.1f}"]
    for i in range(1, len(x)):
        if run.y[i] == run.y[i - 1]:
            parts.append(f"H{x[i]:.1f}")
            continue
        middle = (x[i - 1] + x[i]) / 2
        parts.append(
            f"C{middle:.1f} {run.y[i - 1]:.1f} {middle:.1f} {run.y[i]:.1f} {x[i]:.1f} "
            f"{run.y[i]:.1f}"
        )
    return "".join(parts)


def _slider(tree: MergeTree) -> str:
    # Its thumb, 16 pixels wide, stands exactly under the axis.
    whole = _left(tree) + TREE_WIDTH + _RIGHT
    left, width = 100 * _left(tree) / whole, 100 * TREE_WIDTH / whole
    value = TREE_WIDTH / 2 if tree.now is None else _x(tree, tree.now)
    return (
        f'<input type="range" class="tf-decay" min="0" max="1000" step="1" aria-label="λ" value="'
        f'{1000 * value / TREE_WIDTH:.0f}" style="margin-left:calc({left:.3f}% - 8px);width:calc('
        f'{width:.3f}% + 16px)"/>'
    )


def _tree_data(tree: MergeTree) -> dict[str, Any]:
    number = {state: i for i, state in enumerate(STATES)}
    return {
        "states": list(STATES),
        "low": tree.low,
        "high": tree.high,
        "now": tree.now,
        "width": TREE_WIDTH,
        "height": tree.height,
        "changes": [change.value for change in tree.changes],
        "lanes": [
            {
                "radius": round(min(3 + 0.75 * lane.width, 6), 1),
                "runs": [
                    [
                        number[run.state],
                        [round(_x(tree, x), 2) for x in run.x],
                        [round(y, 1) for y in run.y],
                    ]
                    for run in lane.runs
                ],
            }
            for lane in tree.lanes
        ],
    }
