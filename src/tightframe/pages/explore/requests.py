"""What the page asks its server for: a callback's request in the one form that it has.

Dash goes through a request as it comes, and what does not have the form ends in a traceback in its
depths. So the form is checked before, against what the callbacks were registered with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tightframe.pages.explore.state import VIEWS, State

#: Where the browser sends its callbacks.
CALLBACK = "/_dash-update-component"


def require_callback(body: Any, callbacks: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a callback's request that the page would not send.

    Parameters
    ----------
    body : object
        The request's JSON.
    callbacks : mapping
        Dash's ``callback_map``.

    Raises
    ------
    ValueError
        With what is wrong.
    """
    if not isinstance(body, dict):
        raise ValueError(f"got {type(body).__name__}, need an object")
    output = body.get("output")
    known = callbacks.get(output) if isinstance(output, str) else None
    if known is None or "callback" not in known:  # the others run in the browser
        raise ValueError("output: there is no such callback")
    outputs = body.get("outputs")
    listed = outputs if isinstance(outputs, list) else [outputs]
    _require_places("outputs", listed, _places_of(str(output)), set())
    for name in ("inputs", "state"):
        given = body.get(name, [])
        wanted = [(place["id"], place["property"]) for place in known[name]]
        _require_places(name, given, wanted, {"value"})
        for place in given:
            _require_value((place["id"], place["property"]), place.get("value"))
    changed = body.get("changedPropIds", [])
    if not (isinstance(changed, list) and all(isinstance(name, str) for name in changed)):
        raise ValueError("changedPropIds: need a list of names")


def _places_of(output: str) -> list[tuple[str, str]]:
    """Return ids and properties of an output's name, ``"..a.data...b.value.."`` or ``"a.data"``."""
    names = output[2:-2].split("...") if output.startswith("..") else [output]
    places = [name.rpartition(".") for name in names]
    return [(place, prop) for place, _, prop in places]


def _require_places(
    name: str, given: Any, wanted: list[tuple[str, str]], optional: set[str]
) -> None:
    needed = {"id", "property"}
    if not isinstance(given, list) or not all(
        isinstance(place, dict) and needed <= place.keys() <= needed | optional for place in given
    ):
        raise ValueError(f"{name}: need a list of places")
    if [(place["id"], place["property"]) for place in given] != wanted:
        raise ValueError(f"{name}: not those of the callback")


def _require_value(place: tuple[str, str], value: Any) -> None:
    """Refuse a value of another kind than the component gives."""
    if place == ("later", "data"):
        _require_later(value)
    elif isinstance(value, str):
        _require_text(place[0], value)
    elif value is not None and not isinstance(value, (int, float)):
        raise ValueError(f"{place[0]}: got {type(value).__name__}, need text or a number")
    elif place[1] in ("data", "search") and value is not None:
        raise ValueError(f"{place[0]}: got a number, need text")


def _require_later(value: Any) -> None:
    state = value.get("state") if isinstance(value, dict) else None
    if not (
        isinstance(state, dict)
        and value.keys() == {"state", "theme"}
        and state.keys() == {field.name for field in fields(State)}
    ):
        raise ValueError("later: not a state and a theme")
    for name, text in [*state.items(), ("theme", value["theme"])]:
        if not isinstance(text, str):
            raise ValueError(f"{name}: got {type(text).__name__}, need text")
        _require_text(name, text)
    if state["view"] not in VIEWS:
        raise ValueError("view: there is no such view")


def _require_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: half a character") from None
