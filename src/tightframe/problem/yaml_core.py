"""YAML as version 1.2 reads it (its core schema), by PyYAML, which reads version 1.1 by itself.

So ``5e-4``, ``1e3`` and ``.5`` are numbers and ``0o17`` is 15; ``yes``, ``no``, ``on``, ``off``,
``1:30``, ``1_000``, ``0b11`` and dates are text, and ``010`` is ten. One thing of 1.1 stays,
because PyYAML's other users rely on it: the key ``<<`` merges another mapping.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

#: Where a file that nobody wrote by hand is refused: values in it, and how deep they are nested.
MAX_VALUES = 20_000
MAX_DEPTH = 100

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Plain values, mappings and lists; every other tag is refused."""

    # Own tables, so that nothing of version 1.1 is inherited.
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012
    yaml_constructors: dict[Any, Any] = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Count while the file is read: nothing is built of one that is too large."""
        line = self.peek_event().start_mark.line + 1
        self._values += 1
        if self._values > MAX_VALUES:
            raise ValueError(f"line {line}: more than {MAX_VALUES} values")
        if self._depth == MAX_DEPTH:
            raise ValueError(f"line {line}: nested more than {MAX_DEPTH} deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def mapping(self, node: Any) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{_line(node)}: !!map of what is no mapping")
        own: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            is_merge = key_node.tag == _MERGE
            if not (is_merge or isinstance(key_node, yaml.ScalarNode)):
                raise ValueError(f"{_line(key_node)}: a key is no plain value")
            key = "<<" if is_merge else self.construct_object(key_node, deep=True)
            if key in lines:
                raise ValueError(
                    f"{_line(key_node)}: the key {key!r} is given twice, first on line {lines[key]}"
                )
            lines[key] = key_node.start_mark.line + 1
            value = self.construct_object(value_node, deep=True)
            if is_merge:
                for part in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(part, dict):
                        raise ValueError(f"{_line(value_node)}: << of what is no mapping")
                    merged |= part
            else:
                own[key] = value
        return merged | own

    def sequence(self, node: Any) -> list[Any]:
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError(f"{_line(node)}: !!seq of what is no list")
        return [self.construct_object(item, deep=True) for item in node.value]


def _line(node: Any) -> str:
    return f"line {node.start_mark.line + 1}"


# -- plain values ----------------------------------------------------------------------------------


def _read_int(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    try:
        return int(text, base)
    except ValueError:  # Python reads no longer ones
        raise ValueError(f"a number of {len(text)} digits") from None


def _read_special(text: str) -> float:
    return float(text.replace(".", ""))


#: The core schema: for each tag its patterns and what reads them, and the characters that begin
#: them. Only what the patterns describe is a value of the tag, written out (!!int) or not.
_SCHEMA: dict[str, tuple[str, list[tuple[str, Callable[[str], Any]]]]] = {
    "null": ("~nN", [(r"null|Null|NULL|~|", lambda text: None)]),
    "bool": ("tTfF", [(r"true|True|TRUE|false|False|FALSE", lambda t: t.lower() == "true")]),
    "int": ("-+0123456789", [(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _read_int)]),
    "float": (
        "-+.0123456789",
        [
            (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
            (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", _read_special),
        ],
    ),
    "str": ("", [(r"(?s:.*)", str)]),
}


def _reader(tag: str) -> Callable[[_Loader, Any], Any]:
    _, forms = _SCHEMA[tag]

    def construct(loader: _Loader, node: Any) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise ValueError(f"{_line(node)}: !!{tag} of what is no plain value")
        for pattern, read in forms:
            if re.fullmatch(pattern, node.value):
                try:
                    return read(node.value)
                except ValueError as error:
                    raise ValueError(f"{_line(node)}: {error}") from None
        raise ValueError(f"{_line(node)}: {node.value[:40]!r} is no !!{tag}")

    return construct


def _unknown(loader: _Loader, node: Any) -> Any:
    tag = node.tag.replace(_TAG, "!!")
    raise ValueError(f"{_line(node)}: the tag {tag[:80]} is not read, only plain values are")


for _name, (_first, _forms) in _SCHEMA.items():
    _Loader.add_constructor(_TAG + _name, _reader(_name))
    if _first:
        _any = "|".join(pattern for pattern, _ in _forms)
        # An empty value has no first character; PyYAML looks it up under "".
        _firsts = [*_first, ""] if _name == "null" else [*_first]
        _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_any})\Z"), _firsts)
_Loader.add_implicit_resolver(_MERGE, re.compile(r"<<\Z"), ["<"])
_Loader.add_constructor(_TAG + "map", _Loader.mapping)
_Loader.add_constructor(_TAG + "seq", _Loader.sequence)
_Loader.add_constructor(None, _unknown)


def load(text: str) -> Any:
    """Read the one document of a YAML text.

    Raises
    ------
    ValueError
        With the line, where the text is no YAML, has a key twice in one mapping, a tag that is
        not in the core schema or no fitting value for one, contains itself, or has more than
        `MAX_VALUES` values or `MAX_DEPTH` levels. What aliases and merges repeat is shared, not
        copied.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{place}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
