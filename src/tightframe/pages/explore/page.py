"""The page: its layout and what happens when a control changes.

The first screen comes whole, by `stream`, and ``assets/scene.js`` moves it; Dash has the controls
and the tabs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, dcc, html, no_update
from dash import State as Held

from tightframe.figures.plotly import blank
from tightframe.figures.style import DARK, LIGHT, STATES, Ink
from tightframe.pages.explore import compute, views
from tightframe.pages.explore.code import python_code
from tightframe.pages.explore.figures import Picture
from tightframe.pages.explore.presets import PRESETS, SAMPLE, SAMPLE_FILE
from tightframe.pages.explore.state import VIEWS, State
from tightframe.pages.explore.stream import one_line
from tightframe.pages.explore.tables import attributes
from tightframe.pages.explore.upload import MAX_UPLOAD, Measured, Shelf
from tightframe.problem.problem import BIASES, FEATURES, LOSSES
from tightframe.solution import Solution

#: Every control's id is the name of a field of the state.
CONTROLS = tuple(field.name for field in fields(State))

#: Seconds of silence after which typed text counts.
DEBOUNCE = 0.04

#: Exponents of ten that the sliders of the decays reach.
SLIDER = (-6.0, 0.0)

#: Heights of the kinds of graphs, in pixels.
_HEIGHTS = {"small": 240, "flat": 420}

#: Two buttons only: more would cover the legend on a phone. None on the small heat maps.
_BUTTONS = {"flat": ["toImage", "resetScale2d"]}

#: Before any sentence about classes: whose they are.
_ABOUT = (
    "Predicted by the unconstrained features model, which describes none of 162 ordinary networks "
    "that were measured: for yours, see My network."
)


def layout(file: str | None = None) -> Any:
    """Return the page; the controls get their values from the link, and a file may be there."""
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            *(dcc.Store(id=name) for name in ("theme", "query", "later")),
            dcc.Store(id="file", data=file),
            html.Header(
                [html.H1("tightframe explore"), html.P(_ABOUT)],
                className="top",
            ),
            _presets(),
            # Always there, so that a screen reader speaks what changes in them.
            html.P(id="link-message", role="alert", className="message"),
            html.P(id="message", role="alert", className="message"),
            html.Main([_screen(), *_views()], id="main"),
        ],
        id="page",
    )


# -- layout ----------------------------------------------------------------------------------------


def _presets() -> Any:
    links = [
        html.A(
            preset.name,
            href=f"/?{preset.state.query()}",
            title=preset.about,
            className="preset",
            **attributes(data_state=json.dumps(asdict(preset.state))),
        )
        for preset in PRESETS
    ]
    return html.Nav(
        [
            *links,
            html.Details(
                [
                    html.Summary("+ your labels or run…", className="preset own"),
                    html.Div(_own(), className="card"),
                ],
                id="own",
            ),
        ],
        className="presets",
        **attributes(aria_label="Problems to begin with"),
    )


def _own() -> list[Any]:
    return [
        html.P(
            [
                html.B("Labels"),
                " (.txt with one a line, .csv, .npy, .npz) give the counts. ",
                html.B("Features"),
                " (.npz or .safetensors with features (N, D), labels (N,), weight (K, D) and "
                "perhaps bias (K,)) are laid over as well: up to 256 MiB, 512 MiB unpacked. "
                "Nothing leaves this computer.",
            ]
        ),
        html.Div(
            id="drop",
            **attributes(
                data_limit=str(MAX_UPLOAD),
                data_sample=SAMPLE_FILE,
                data_sample_state=json.dumps(asdict(SAMPLE)),
            ),
        ),  # the file field: Dash has none that the keyboard reaches
        html.P(id="upload-message", role="alert", className="message"),
        html.P(
            ["Your run: end this and start ", html.Code("tightframe explore RUN-FOLDER"), "."],
            className="note",
        ),
    ]


def _screen() -> Any:
    """Return the first screen, which the script fills."""
    return html.Div(
        [
            html.P(id="sentence", role="status", className="sentence"),
            html.Div(_key(), className="tf-key key"),
            html.P(id="note", role="status", className="note"),
            html.Div(
                [
                    html.Div(
                        [
                            html.Div(
                                [
                                    html.Span(["λ ", html.Strong(id="decay")]),
                                    html.Span(id="next", className="note"),
                                ]
                            ),
                            html.Button("▶ Raise λ", id="play", type="button", hidden=True),
                        ],
                        className="bar card",
                    ),
                    html.Div(
                        [
                            html.Div(id="wheel-place"),
                            html.P(id="state-counts", className="state-counts"),
                            html.P(_WHEEL_NOTE, className="note"),
                        ],
                        className="wheel-card card",
                    ),
                    html.Div(
                        [
                            html.Div(id="tree-place"),
                            html.P(id="progress", role="status", className="note"),
                            _controls(),
                        ],
                        className="tree-card card",
                    ),
                ],
                className="screen",
            ),
        ],
        id="scene",
        className="tf-together",
        **attributes(data_controls=json.dumps(CONTROLS)),
    )


_WHEEL_NOTE = (
    "On the rim: certain. At the cross: no decision. Marks in one place may still be of different "
    "predictions: whether they are, their colours say."
)


def _key() -> list[Any]:
    """Return what the marks of states mean."""
    entries = []
    for state, meaning in _MEANINGS.items():
        sign = html.Span(f"{STATES[state].sign}\ufe0e", **attributes(aria_hidden="true"))
        color = {"color": f"var(--tf-{state})"}
        words = html.Span([state, html.Span(meaning, className="meaning")])
        entries.append(html.Span([html.Span(sign, style=color), words]))
    return entries


_MEANINGS = {
    "distinct": "",
    "merged": ": one prediction for several classes",
    "lost": ": taken for another class",
    "vanished": ": no decision",
}


def _controls() -> Any:
    return html.Details(
        [
            html.Summary("Counts, decays, loss and the rest"),
            html.Form(
                [
                    _text("counts", "Samples per class", "500x5,100x5"),
                    _choice("loss", "Loss", LOSSES),
                    _decay("weight_decay", "Weight decay"),
                    _decay("feature_decay", "Feature decay"),
                    _choice("bias", "Bias", BIASES),
                    html.Div(_text("bias_decay", "Bias decay", "0.01"), id="bias_decay-field"),
                    _choice("features", "Features", FEATURES),
                    html.Div(
                        [
                            _text("depth", "Linear layers", "1"),
                            _text("dim", "Width of the features", "as needed"),
                        ],
                        className="pair",
                    ),
                    _text("class_weights", "Class weights", "1x5,5x5 or balanced"),
                    _text("logit_adjustment", "Logit adjustment", "0.5*prior"),
                    _text("label_smoothing", "Label smoothing", "0.1"),
                    _text("smoothing_weights", "Smoothed part weighed by", "own or labels"),
                    _text("class_margins", "Class margins", "0.2x5,0.5x5"),
                    _text("logit_scale", "Logit scale", "1x5,0.6x5"),
                    _text("feature_weights", "Feature weights", "samples or contexts"),
                ],
                id="controls",
            ),
        ],
        className="controls",
    )


def _text(name: str, label: str, hint: str) -> Any:
    return html.Div(
        [
            html.Label(label, htmlFor=name),
            dcc.Input(
                id=name,
                type="text",
                placeholder=hint,
                debounce=DEBOUNCE,
                spellCheck=False,
                value="",
            ),
        ],
        className="field",
    )


def _decay(name: str, label: str) -> Any:
    low, high = SLIDER
    return html.Div(
        [
            _text(name, label, "0.001"),
            html.Label(f"{label}, slider", htmlFor=f"{name}-slider", className="unseen"),
            dcc.Input(id=f"{name}-slider", type="range", min=low, max=high, step=0.02, value=low),
        ],
        className="decay",
    )


def _choice(name: str, label: str, values: tuple[str, ...]) -> Any:
    options = [{"label": value.replace("_", "-"), "value": value} for value in values]
    return html.Fieldset(
        [html.Legend(label), dcc.RadioItems(id=name, options=options, inline=True)],
        className="field",
    )


def _views() -> list[Any]:
    tabs = [{"label": label, "value": name} for name, label in VIEWS.items()]
    return [
        html.Fieldset(
            [html.Legend("Show", className="unseen"), dcc.RadioItems(tabs, id="view", inline=True)],
            className="tabs",
        ),
        html.Div(
            [
                _section("classes", _classes()),
                _section("advice", _advice()),
                _section("measured", _measured()),
                _section(
                    "margins",
                    [
                        _figure("path-graph"),
                        _figure("margins-graph"),
                        html.Div(id="margins-table"),
                    ],
                ),
                _section("geometry", _geometry()),
                _section("phase", [_figure("phase-graph")]),
                _section("code", _code()),
            ],
            id="views",
        ),
        html.P(id="headline", role="status", className="headline note"),
        html.P(["Link to this state: ", html.A(id="link", href="/")], className="link note"),
    ]


def _classes() -> list[Any]:
    return [
        html.Div(
            id="class-table",  # filled by the script
            className="scroll",
            tabIndex=0,
            role="region",
            **attributes(aria_label="Classes, worst first"),
        ),
        html.Button("Show all", id="all-classes", type="button", hidden=True),
    ]


def _code() -> list[Any]:
    return [
        html.P("All that this page shows, in Python.", className="note"),
        html.Button("Copy the code", id="copy", type="button"),
        html.Pre(html.Code(id="code"), tabIndex=0, className="scroll"),
    ]


def _section(name: str, children: list[Any]) -> Any:
    title = html.H2(VIEWS[name], id=f"{name}-title")
    return html.Section(
        [title, *children],
        id=f"{name}-view",
        className="card view",
        **attributes(aria_labelledby=f"{name}-title"),
    )


def _figure(name: str, kind: str = "flat") -> Any:
    buttons = _BUTTONS.get(kind)
    config: Any = {"displaylogo": False, "displayModeBar": buttons is not None}
    config["toImageButtonOptions"] = {"format": "svg", "filename": f"tightframe-{name}"}
    if buttons is not None:
        config["modeBarButtons"] = [buttons]
    graph = dcc.Graph(
        id=name,
        figure=blank(),
        config=config,
        responsive=True,
        style={"height": f"{_HEIGHTS[kind]}px"},
    )
    return html.Figure([graph, html.Figcaption(id=f"{name}-text")])


def _geometry() -> list[Any]:
    return [
        html.Div([_figure(part, "small") for part in views.PARTS], className="grid"),
        html.Div(
            [_figure(f"measured-{part}", "small") for part in views.PARTS],
            id="overlay",
            className="grid",
            hidden=True,
        ),
    ]


def _advice() -> list[Any]:
    return [
        html.Div(
            [
                _text("margin", "Margin wanted in every class", "1, for MSE 0.5"),
                _choice(
                    "feature_decay_of", "With more data, feature decay is per", ("sample", "mean")
                ),
            ],
            className="pair",
        ),
        html.Button("Advise", id="advise", type="button"),
        dcc.Loading(html.Div(id="advice", role="status"), delay_show=300),
    ]


def _measured() -> list[Any]:
    return [
        html.P(
            "A trained network's features and last layer, over the prediction: “+ your labels or "
            "run…” above takes a file. What it does, class by class:",
            id="measured-hint",
            className="note",
        ),
        html.Div(id="measured-report"),
    ]


# -- what happens ----------------------------------------------------------------------------------


def connect(app: Dash, shelf: Shelf) -> None:
    """Register all callbacks."""
    controls = [Input(name, "value") for name in CONTROLS]
    outputs = {name: Output(*place) for name, place in _places().items()}

    @app.callback(
        output=(Output("link-message", "children"), [Output(name, "value") for name in CONTROLS]),
        inputs=[Input("url", "search")],
    )
    def read_link(search: str | None) -> tuple[str, list[str]]:
        try:
            return "", list(asdict(State.from_query(search or "")).values())
        except ValueError as error:
            return one_line(error), list(asdict(State()).values())

    @app.callback(
        output=outputs,
        inputs={"texts": controls, "theme": Input("theme", "data"), "file": Input("file", "data")},
    )
    def show(texts: list[Any], theme: str | None, file: str | None) -> dict[str, Any]:
        result: dict[str, Any] = dict.fromkeys(outputs, no_update)
        return result | shown(_state(texts), _ink(theme), shelf.get(file))

    @app.callback(
        output={name: Output(*_places()[name], allow_duplicate=True) for name in _LATER},
        inputs={"request": Input("later", "data")},
        state={"file": Held("file", "data")},
        prevent_initial_call=True,
    )
    def show_later(request: dict[str, Any], file: str | None) -> dict[str, Any]:
        state = State(**request["state"])
        result: dict[str, Any] = dict.fromkeys(_LATER, no_update)
        try:
            return result | solved_later(state, _ink(request["theme"]), shelf.get(file))
        except (ValueError, MemoryError) as error:
            graph = "phase-graph" if state.view == "phase" else "path-graph"
            return result | {f"{graph}-text": one_line(error)}

    @app.callback(
        output=Output("advice", "children"),
        inputs={"clicks": Input("advise", "n_clicks")},
        state={"texts": [Held(name, "value") for name in CONTROLS], "file": Held("file", "data")},
        running=[(Output("advise", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    def show_advice(clicks: int, texts: list[Any], file: str | None) -> list[Any]:
        try:
            return views.advice(_state(texts), shelf.get(file))
        except (ValueError, MemoryError) as error:
            return [html.P(one_line(error), className="message")]

    _connect_browser(app)


def _places() -> dict[str, tuple[str, str]]:
    """Return what `shown` may change, by a name of its own: a component and its property."""
    places = {
        "message": ("message", "children"),
        "headline": ("headline", "children"),
        "note": ("note", "children"),
        "query": ("query", "data"),
        "code": ("code", "children"),
        "overlay": ("overlay", "hidden"),
        "margins-table": ("margins-table", "children"),
        "measured-report": ("measured-report", "children"),
        "later": ("later", "data"),
    }
    graphs = ["margins-graph", "path-graph", "phase-graph"]
    for graph in [*graphs, *views.PARTS, *(f"measured-{part}" for part in views.PARTS)]:
        places[graph] = (graph, "figure")
        places[f"{graph}-text"] = (f"{graph}-text", "children")
    return places


def shown(state: State, ink: Ink, measured: Measured | None) -> dict[str, Any]:
    """Return what the page shows of a state: only what the view needs is computed.

    The names are those of the components. Where the state cannot be shown, a message says why.
    """
    link: dict[str, Any] = {"query": state.query(), "headline": "", "note": ""}
    try:
        problem = state.problem()
        solution = compute.solve(problem)
        over = measured if measured is not None and measured.fits(problem) else None
        link["headline"] = views.headline(solution, over)
        code = python_code(state, solution, over.name if over else None)
        view = _VIEWS[state.view](state, solution, over, ink)
    except (ValueError, MemoryError) as error:
        return link | {"message": one_line(error), "code": f"# {one_line(error)}\n"}
    note = ""
    if measured is not None and over is None:
        note = (
            f"{measured.name} has {len(measured.report.counts)} classes and the problem "
            f"{problem.num_classes}: nothing is laid over it."
        )
    elif measured is not None and (measured.report.counts != problem.counts).any():
        note = f"{measured.name} has other counts: {measured.counts}."
    elif measured is not None:
        note = (
            f"{measured.name}, the marks: {measured.classes.headline} The sentence above and the "
            "dashed rings are what is predicted at these decays."
        )
    if state.view == "measured" and measured is not None and over is None:
        view = {"measured-report": views.measured_tables(measured, None)}
    return link | {"message": "", "note": note, "code": code} | view


# -- the views' components -------------------------------------------------------------------------


def _geometry_view(
    state: State, solution: Solution, measured: Measured | None, ink: Ink
) -> dict[str, Any]:
    maps, overlay = views.geometry(solution, measured, ink)
    found: dict[str, Any] = {"overlay": overlay is None}
    for part, picture in zip(views.PARTS, maps, strict=True):
        found |= _picture(part, picture)
    for part, picture in zip(views.PARTS, overlay or (), strict=overlay is not None):
        found |= _picture(f"measured-{part}", picture)
    return found


def _classes_view(
    state: State, solution: Solution, measured: Measured | None, ink: Ink
) -> dict[str, Any]:
    return {}  # by the script


def _margins_view(
    state: State, solution: Solution, measured: Measured | None, ink: Ink
) -> dict[str, Any]:
    picture, table = views.margins(solution, measured, ink)
    found = _picture("margins-graph", picture) | {"margins-table": table}
    try:
        line, solved = views.path_at_once(solution.problem, measured, ink)
    except ValueError as error:  # nothing certifies it: the margins here are there all the same
        return found | {"path-graph": blank(), "path-graph-text": one_line(error)}
    return found | _picture("path-graph", line) | ({} if solved else _later(state, ink))


def _phase_view(
    state: State, solution: Solution, measured: Measured | None, ink: Ink
) -> dict[str, Any]:
    picture, solved = views.phase_at_once(solution.problem, ink)
    return _picture("phase-graph", picture) | ({} if solved else _later(state, ink))


#: What may come in a second step: its second of solving is that of a callback of its own.
_LATER = ("path-graph", "path-graph-text", "phase-graph", "phase-graph-text")


def _later(state: State, ink: Ink) -> dict[str, Any]:
    return {"later": {"state": asdict(state), "theme": "dark" if ink is DARK else "light"}}


def solved_later(state: State, ink: Ink, measured: Measured | None) -> dict[str, Any]:
    """Return the picture of which `shown` gave the thresholds alone."""
    problem = state.problem()
    if state.view == "phase":
        return _picture("phase-graph", views.phase(problem, ink))
    over = measured if measured is not None and measured.fits(problem) else None
    return _picture("path-graph", views.path(problem, over, ink))


def _advice_view(
    state: State, solution: Solution, measured: Measured | None, ink: Ink
) -> dict[str, Any]:
    return {}  # on a button


def _measured_view(
    state: State, solution: Solution, measured: Measured | None, ink: Ink
) -> dict[str, Any]:
    if measured is None:
        return {"measured-report": []}
    return {"measured-report": views.measured_tables(measured, solution)}


_VIEWS: dict[str, Callable[[State, Solution, Measured | None, Ink], dict[str, Any]]] = {
    "classes": _classes_view,
    "advice": _advice_view,
    "measured": _measured_view,
    "margins": _margins_view,
    "geometry": _geometry_view,
    "phase": _phase_view,
    "code": _classes_view,
}


def _picture(name: str, picture: Picture) -> dict[str, Any]:
    return {name: picture.figure, f"{name}-text": picture.text}


def _state(texts: list[Any]) -> State:
    return State(*("" if text is None else str(text) for text in texts))


def _ink(theme: str | None) -> Ink:
    return DARK if theme == "dark" else LIGHT


# -- what the browser does by itself ---------------------------------------------------------------


def _connect_browser(app: Dash) -> None:
    """Register the functions of ``assets/explore.js``."""

    def in_browser(name: str, *places: Any, **options: Any) -> None:
        register: Any = app.clientside_callback
        register(ClientsideFunction("explore", name), *places, **options)

    in_browser("start", Output("theme", "data"), Input("url", "pathname"))
    for name in ("weight_decay", "feature_decay"):
        in_browser(
            "slide",
            Output(name, "value", allow_duplicate=True),
            Output(f"{name}-slider", "value"),
            Input(f"{name}-slider", "value"),
            Input(name, "value"),
            prevent_initial_call=True,
        )
    in_browser("choose", Output("views", "className"), Input("view", "value"))
    in_browser("need", Output("bias_decay-field", "className"), Input("bias", "value"))
    in_browser(
        "remember", Output("link", "href"), Output("link", "children"), Input("query", "data")
    )
    in_browser(
        "point", Output("views", "title"), Input("message", "children"), Held("view", "value")
    )
    in_browser(
        "follow",
        Output("scene", "title"),
        *(Input(name, "value") for name in CONTROLS),
        Input("file", "data"),
    )
    in_browser(
        "copy", Output("copy", "children"), Input("copy", "n_clicks"), Held("code", "children")
    )
    in_browser(
        "outdate",
        Output("advice", "children", allow_duplicate=True),
        Input("query", "data"),
        prevent_initial_call=True,
    )
