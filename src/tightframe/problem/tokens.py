"""Which token follows which: counts of next tokens after every context of some length."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import detached, is_unordered, shortened, whole_number
from tightframe.shown import record

if TYPE_CHECKING:
    from scipy.sparse import csc_array

#: Tokens counted at a time.
CHUNK = 2**20

#: Longest context.
MAX_CONTEXT = 32

#: How tokens that nobody sees are shown.
_SEEN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\xa0": "⍽"}

IDs = NDArray[np.int64]


@record
@dataclass(frozen=True, eq=False)
class NextTokens:
    """How often every token followed every context.

    Attributes
    ----------
    counts : scipy.sparse.csc_array, shape (V, m), int64
        Entry (v, j): how often token v followed context j. No row and no column is empty.
    labels : tuple of str
        The V tokens that follow.
    contexts : tuple of tuple of str
        The tokens of every context, in the order of the text.
    left_out : int
        Occurrences of contexts that were seen fewer than ``min_count`` times.
    """

    counts: csc_array
    labels: tuple[str, ...]
    contexts: tuple[tuple[str, ...], ...]
    left_out: int

    @property
    def occurrences(self) -> IDs:
        """How often every context was seen, shape (m,)."""
        totals: IDs = self.counts.sum(axis=0)
        return totals

    @property
    def targets(self) -> csc_array:
        """Law of the next token after every context, shape (V, m)."""
        laws = self.counts.astype(np.float64)
        laws.data /= np.repeat(self.occurrences, np.diff(laws.indptr))
        return laws


def next_tokens(tokens: Any, context: int = 1, min_count: int = 1) -> NextTokens:
    """Count next tokens.

    Parameters
    ----------
    tokens : str, sequence of str or int, or iterable of such
        One text: its characters, words or token numbers, in order. Or several texts, no context of
        which reaches into another; an iterator of texts is gone through once, text by text. Strings
        in a sequence are tokens, sequences in it are texts.
    context : int
        How many tokens a context has, from 1 to 32; ``context`` tokens at a text's beginning follow
        none.
    min_count : int
        Contexts that were seen less often are left out.

    Returns
    -------
    NextTokens
        Tokens and contexts are sorted, numbers as numbers. Takes memory of
        ``8 (context + 2)`` bytes for every different context with its next token, twice that while
        it counts, and a chunk of tokens.

    Raises
    ------
    ValueError
        If an argument is out of range, tokens are neither all text nor all whole numbers, or
        nothing is left.

    Examples
    --------
    >>> found = next_tokens("abab aba", context=1)
    >>> found.labels, found.contexts
    ((' ', 'a', 'b'), ((' ',), ('a',), ('b',)))
    >>> found.counts.toarray().tolist()
    [[0, 0, 1], [1, 0, 2], [0, 3, 0]]
    """
    length = whole_number("context", context)
    if length > MAX_CONTEXT:
        raise ValueError(f"context: got {length}, need at most {MAX_CONTEXT}")
    least = whole_number("min_count", min_count)
    numbered = _Numbered()
    rows, times = np.empty((0, length + 1), dtype=np.int64), np.empty(0, dtype=np.int64)
    for block in _in_chunks(windows(numbered.text(text), length) for text in _texts(tokens)):
        rows, times = _counted(np.concatenate([rows, block]), times)
    if not len(rows):
        raise ValueError(f"tokens: no text is longer than the context of {length}")
    names, ranks = numbered.in_order()
    rows = ranks[rows]
    order = np.lexsort(rows.T[::-1])
    rows, times = rows[order], times[order]
    begins = np.ones(len(rows), dtype=np.bool_)
    begins[1:] = (rows[1:, :-1] != rows[:-1, :-1]).any(axis=1)
    places = np.cumsum(begins) - 1
    totals = np.bincount(places, times).astype(np.int64)
    kept = (totals >= least)[places]
    if not kept.any():
        raise ValueError(
            f"min_count: got {least}, and the most frequent context was seen {totals.max()} times"
        )
    labels, index = np.unique(rows[kept, -1], return_inverse=True)
    _, columns = np.unique(places[kept], return_inverse=True)
    from scipy.sparse import csc_array

    shape = len(labels), int(columns[-1]) + 1
    heads = rows[kept][np.flatnonzero(np.diff(columns, prepend=-1)), :-1]
    return NextTokens(
        csc_array((times[kept], (index, columns)), shape=shape),
        tuple(names[k] for k in labels),
        tuple(tuple(names[k] for k in head) for head in heads.tolist()),
        int(totals[totals < least].sum()),
    )


def windows(text: IDs, length: int) -> IDs:
    """Return every context with its next token as a row, shape (T - length, length + 1)."""
    if len(text) <= length:
        return np.empty((0, length + 1), dtype=np.int64)
    return np.lib.stride_tricks.sliding_window_view(text, length + 1)


def shown(token: str) -> str:
    """Return a token as reports show it: a space is ␣, a newline ⏎."""
    return "".join(
        _SEEN.get(character, f"U+{ord(character):04X}" if _is_unseen(character) else character)
        for character in token
    )


def shown_context(tokens: Sequence[str]) -> str:
    """Return a context as reports show it: letters side by side, words apart."""
    apart = "" if all(len(token) == 1 for token in tokens) else " "
    return apart.join(map(shown, tokens))


# -- inside --------------------------------------------------------------------------------------


def _texts(tokens: Any) -> Iterator[Any]:
    """Yield the texts one by one."""
    tokens = detached(tokens)
    if is_unordered(tokens) or isinstance(tokens, (bytes, dict)):
        raise ValueError(
            f"tokens: got {type(tokens).__name__}, need tokens in the order of the text"
        )
    if isinstance(tokens, str) or getattr(tokens, "ndim", None) == 1:
        yield tokens
        return
    if getattr(tokens, "ndim", 1) == 2:
        yield from tokens
        return
    if not isinstance(tokens, Iterable):
        raise ValueError(f"tokens: got {shortened(repr(tokens))}, need text or token numbers")
    items = iter(tokens)
    first = next(items, None)
    if first is None:
        raise ValueError("tokens: got none")
    if isinstance(first, (str, int, np.integer)):
        yield [first, *items]
        return
    yield from itertools.chain([first], items)


def _in_chunks(blocks: Iterable[IDs]) -> Iterator[IDs]:
    """Join small blocks of rows and part large ones, so that many short texts take few sorts."""
    waiting: list[IDs] = []
    held = 0
    for block in blocks:
        for start in range(0, len(block), CHUNK):
            part = block[start : start + CHUNK]
            waiting.append(part)
            held += len(part)
            if held >= CHUNK:
                yield np.concatenate(waiting)
                waiting, held = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _counted(rows: IDs, times: IDs) -> tuple[IDs, IDs]:
    """Return different rows and how often each occurs; the first ones already as often as given."""
    weights = np.ones(len(rows), dtype=np.int64)
    weights[: len(times)] = times
    order = np.lexsort(rows.T)
    rows = rows[order]
    begins = np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]).any(axis=1)])
    return rows[begins], np.add.reduceat(weights[order], begins)


class _Numbered:
    """Tokens as numbers, in the order in which they are first seen."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._kind: type | None = None

    def text(self, text: Any) -> IDs:
        """Return the numbers of a text's tokens."""
        items = self._items(detached(text))
        numbers, found = self._numbers, np.empty(len(items), dtype=np.int64)
        for place, token in enumerate(items):
            if type(token) is not self._kind:
                self._require_kind(token)
            found[place] = numbers.setdefault(token, len(numbers))
        return found

    def _items(self, text: Any) -> Sequence[Any]:
        if isinstance(text, str):
            return text
        array = np.asarray(text) if hasattr(text, "dtype") else None
        if array is not None:
            if array.ndim != 1 or array.dtype.kind not in "iuUO":  # pandas has text as objects
                raise ValueError(
                    f"tokens: got an array {array.shape} of {array.dtype}, need texts of tokens or "
                    "of whole numbers"
                )
            return list(array.tolist())
        if not isinstance(text, Iterable) or is_unordered(text):
            raise ValueError(f"tokens: got {shortened(repr(text))}, need text or token numbers")
        return list(text)

    def _require_kind(self, token: Any) -> None:
        kind = int if isinstance(token, np.integer) else type(token)
        if kind not in (str, int):
            raise ValueError(f"tokens: got {shortened(repr(token))}, need text or token numbers")
        if self._kind not in (None, kind):
            raise ValueError("tokens: got text and numbers, need one kind")
        self._kind = kind

    def in_order(self) -> tuple[list[str], IDs]:
        """Return the sorted tokens as text, and the rank of every number."""
        tokens = sorted(self._numbers)
        ranks = np.empty(len(tokens), dtype=np.int64)
        ranks[[self._numbers[token] for token in tokens]] = np.arange(len(tokens))
        return [str(token) for token in tokens], ranks


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character)[0] in "CZ" or bool(unicodedata.combining(character))
