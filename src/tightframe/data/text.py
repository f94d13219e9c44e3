"""Real text: what ships with Debian or Python, or a file; parted into tokens."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tightframe.checks import choice
from tightframe.data.places import given_folder
from tightframe.files import read_text as read_file
from tightframe.shown import record

#: Name of the text that ships; before a colon also of a file of one's own.
TEXT = "text"

#: Where Debian's base-files has licences, and which are taken: long ones, of different families.
LICENCES = Path("/usr/share/common-licenses")
LICENCE_NAMES = ("Apache-2.0", "Artistic", "GFDL-1.3", "GPL-3", "MPL-2.0")

#: What a text can be parted into.
TOKENS = ("letters", "characters", "words")

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")  # noqa: RUF001


@record
@dataclass(frozen=True, eq=False)
class Text:
    """One or several texts.

    Attributes
    ----------
    source : str
        In words, where it is from.
    parts : tuple of str
        The texts; no context reaches from one into another.
    """

    source: str
    parts: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of the parts' SHA-256: equal for equal texts."""
        whole = "\0".join(self.parts)
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def num_characters(self) -> int:
        """Characters of all parts together."""
        return sum(map(len, self.parts))

    def tokens(self, kind: str = "letters") -> list[list[str]]:
        """Part the text into tokens, a list for every part: what `Problem.from_tokens` takes.

        Parameters
        ----------
        kind : {"letters", "characters", "words"}
            Letters: small letters of any alphabet, with one space for whatever is between them
            (Shannon's 27 symbols of English). Characters: all as they are. Words: in small
            letters, and every punctuation mark as a word.

        Raises
        ------
        ValueError
            If the kind is unknown, or there is none in the text.
        """
        choice("tokens", kind, TOKENS)
        part = _PARTS[kind]
        found = [part(text) for text in self.parts]
        if not any(found):
            raise ValueError(f"data: {self.source} has no {kind}")
        return found


def is_text(name: object) -> bool:
    """Tell whether the name of a data set is that of a text, see `read_text`."""
    if not isinstance(name, (str, os.PathLike)):
        return False
    path = os.fspath(name)
    return isinstance(path, str) and (
        path == TEXT or path.startswith(f"{TEXT}:") or path.lower().endswith(".txt")
    )


def read_text(
    name: str | os.PathLike[str] = TEXT, *, root: str | os.PathLike[str] | None = None
) -> Text:
    """Read a text.

    Parameters
    ----------
    name : str or path-like
        ``"text"``: five licences of Debian's base-files (Apache-2.0, Artistic, GFDL-1.3, GPL-3,
        MPL-2.0) where they are all in ``/usr/share/common-licenses``, else the topics of Python's
        ``help()``, which are part of every Python. Or a file in UTF-8 or UTF-16: a path that ends
        in ``.txt``, any other one after ``"text:"``.
    root : path-like, optional
        Folder that a relative path is taken from.

    Returns
    -------
    Text

    Raises
    ------
    ValueError
        If the name is no text's, or the file is missing, empty or no text; the message names it.

    Examples
    --------
    >>> read_text().source[:5] in ("five ", "the t")
    True
    """
    if not is_text(name):
        raise ValueError(f"data: got {name!r}, need 'text', 'text:FILE' or a .txt file")
    path = os.fspath(name)
    if path == TEXT:
        return _licences() or _topics()
    path = path.removeprefix(f"{TEXT}:")
    if not path:
        raise ValueError("data: got 'text:' without a file")
    return _file(given_folder(path, "data") if root is None else given_folder(root) / path)


def _letters(text: str) -> list[str]:
    kept = "".join(character if character.isalpha() else " " for character in text.lower())
    return list(" ".join(kept.split()))


def _words(text: str) -> list[str]:
    words: list[str] = _WORD.findall(text.lower())
    return words


#: Text to tokens, by kind.
_PARTS: dict[str, Callable[[str], list[str]]] = {
    "letters": _letters,
    "characters": list,
    "words": _words,
}


def _file(path: Path) -> Text:
    try:
        text = read_file(path)
    except ValueError as error:
        raise ValueError(f"data: {error}") from None
    if not text:
        raise ValueError(f"data: {path} is empty")
    return Text(f"the file {path.name}", (text,))


def _licences() -> Text | None:
    try:
        parts = tuple((LICENCES / name).read_text(encoding="utf-8") for name in LICENCE_NAMES)
    except (OSError, UnicodeDecodeError):
        return None
    names = ", ".join(LICENCE_NAMES)
    return Text(f"five licences of Debian's base-files ({names})", parts)


def _topics() -> Text:
    from pydoc_data.topics import topics

    parts = tuple(topics[name] for name in sorted(topics))
    return Text("the topics of Python's help(), pydoc_data.topics", parts)
