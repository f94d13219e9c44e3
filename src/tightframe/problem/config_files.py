"""Configuration files of training scripts, YAML, JSON or TOML: what is unclear is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Files larger than this are refused as configurations.
_MAX_BYTES = 2**20


def read_config(path: Path) -> Mapping[Any, Any]:
    """Read a configuration; ``.toml`` is TOML, anything else is JSON or else YAML 1.2.

    Raises
    ------
    ValueError
        If the file is none of these, gives a key twice in one mapping, or is larger, deeper or
        otherwise more than a configuration; the message has the file's name and, where it is
        known, the line.
    """
    try:
        is_file = path.is_file()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ValueError(f"config: {str(path)[:200]}: {error.strerror}") from None
    if not is_file:
        raise ValueError(f"config: {path} is no file")
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"config: {path} is larger than a configuration, 1 MiB")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"config: {path} is no UTF-8 text") from None
    try:
        config = _read_toml(text) if path.suffix == ".toml" else _read_json_or_yaml(text)
    except RecursionError:
        raise ValueError(f"config: {path} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"config: {path} {_line(str(error))}") from None
    if not isinstance(config, Mapping):
        raise ValueError(f"config: {path} holds {type(config).__name__}, need names and values")
    return config


def _line(message: str) -> str:
    return " ".join(message.split())[:300]


def _read_json_or_yaml(text: str) -> Any:
    try:
        return _read_json(text)
    except json.JSONDecodeError:
        pass
    try:
        from tightframe.problem import yaml_core
    except ImportError:
        raise ValueError("is not JSON, and YAML needs PyYAML (pip install pyyaml)") from None
    try:
        return yaml_core.load(text)
    except ValueError as error:
        raise ValueError(f"is neither JSON nor YAML as it is read here ({error})") from None


def _read_toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise ValueError(f"is no TOML ({error})") from None


# -- JSON ------------------------------------------------------------------------------------------


def _read_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(
                f"gives the key {json.dumps(twice)} twice in one object; it stands on the lines "
                + ", ".join(map(str, _lines_of(twice, text)))
            )
        return found

    return json.loads(
        text,
        object_pairs_hook=unique,
        parse_int=_read_int,
        parse_constant=_refuse_constant,
    )


def _lines_of(key: str, text: str) -> list[int]:
    """Return the lines on which a key stands, in whichever object."""
    spelled = "|".join(re.escape(json.dumps(key, ensure_ascii=ascii)) for ascii in (True, False))
    return [text.count("\n", 0, m.start()) + 1 for m in re.finditer(rf"(?:{spelled})\s*:", text)]


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python reads no longer ones
        raise ValueError(f"has a number of {len(text)} digits") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"has {name}, which JSON does not know")
