"""Damages to files: bits, lengths, numbers and structure, drawn from a generator."""

import json
import re
import struct


def damaged(rng, content):
    """Return a file's bytes with one kind of damage."""
    kind = _DAMAGES[int(rng.integers(len(_DAMAGES)))]
    return kind(rng, content) if content else b"x"


def _bits(rng, content):
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _head_bits(rng, content):
    return _bits(rng, content[:200]) + content[200:]


def _cut(rng, content):
    return content[: int(rng.integers(len(content)))]


def _longer(rng, content):
    place = int(rng.integers(len(content) + 1))
    return content[:place] + rng.bytes(int(rng.integers(1, 50))) + content[place:]


def _twice(rng, content):
    start, end = sorted(int(i) for i in rng.integers(len(content) + 1, size=2))
    return content[:end] + content[start:end] + content[end:]


def _zeros(rng, content):
    start, end = sorted(int(i) for i in rng.integers(len(content) + 1, size=2))
    return content[:start] + bytes(end - start) + content[end:]


def _number(rng, content):
    """Replace one of the numbers that stand as text, also in the headers of arrays."""
    places = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", content[:100_000]))
    if not places:
        return _bits(rng, content)
    place = places[int(rng.integers(len(places)))]
    new = rng.choice(
        [b"NaN", b"1e400", b"-1", b"0", b"99999999999999999999", b'"x"', b"null", b"[]", b"{}", b""]
    )
    return content[: place.start()] + bytes(new) + content[place.end() :]


def _word(rng, content):
    places = list(re.finditer(rb"[A-Za-z_]{3,}", content[:100_000]))
    if not places:
        return _cut(rng, content)
    place = places[int(rng.integers(len(places)))]
    new = rng.choice([b"x", b"NaN", b"", b"\xff\xfe", b"../../etc/passwd", b"<script>"])
    return content[: place.start()] + bytes(new) + content[place.end() :]


def _structure(rng, content):
    """Change one value of a JSON text, or remove it; other files are taken for another kind."""
    try:
        value = json.loads(content)
    except ValueError:
        return bytes(rng.choice([b"{}", b"[]", b"null", b"PK\x05\x06" + bytes(18), b"\x93NUMPY"]))
    holders = [h for h in _holders(value) if h]
    if not holders:
        return b"null"
    holder = holders[int(rng.integers(len(holders)))]
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = keys[int(rng.integers(len(keys)))]
    choices = [None, True, -1, 0, 1.5, 1e308, 10**25, "x", "", [], {}, [[]], {"a": 1}, "deep"]
    new = choices[int(rng.integers(len(choices)))]
    if rng.random() < 0.2:
        del holder[key]
        return json.dumps(value).encode()
    holder[key] = new
    text = json.dumps(value)
    return text.replace('"deep"', "[" * 10**5 + "]" * 10**5).encode()


def _holders(value):
    if isinstance(value, (dict, list)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def _lengths(rng, content):
    """Overwrite eight bytes with a number that announces much, as in binary headers."""
    place = int(rng.integers(max(len(content) - 8, 1)))
    number = (2**63 - 1, 2**40, 2**31, 0, 2**64 - 1)[int(rng.integers(5))]
    return content[:place] + struct.pack("<Q", number) + content[place + 8 :]


_DAMAGES = [
    *(_bits, _head_bits, _cut, _longer, _twice, _zeros, _number, _word, _structure, _structure),
    _lengths,
]
