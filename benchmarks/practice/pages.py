"""The tables that are committed: CSV for programs, one page for people."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.practice.criteria import (
    ADJUSTED_HEAD,
    BALANCED_HEAD,
    POST_HOC,
    Criterion,
    Evidence,
    Judged,
    criteria,
    evidence,
)
from benchmarks.practice.networks import REMEDIES
from tightframe.files import replacing

#: Remedies in the columns of the table of networks.
TRIED = (POST_HOC, ADJUSTED_HEAD, BALANCED_HEAD, *REMEDIES)


def write(rows: Sequence[Judged], out: Path, about: Mapping[str, Any]) -> list[Criterion]:
    """Write the tables of judged networks; return the criteria."""
    found, remedies = criteria(rows), evidence(rows)
    _write_csv(out / "practice.csv", map(network_row, rows))
    _write_csv(out / "practice_remedies.csv", map(evidence_row, remedies))
    with replacing(out / "practice.md") as temporary:
        temporary.write_text(page(rows, found, remedies, about), encoding="utf-8")
    return found


def network_row(row: Judged) -> dict[str, Any]:
    """Return a network's line: what it does, what is said of it, accuracies after remedies."""
    facts, said = row.facts, row.said
    line = {
        "network": row.network.name,
        "small_margin": _rounded(facts.margins[facts.small].mean()) if facts.small.any() else "",
        "lost": int(facts.lost.sum()),
        "said_lost_from_moments": sum(map(bool, said["lost_from_moments"])),
        "theory_open": int(bool(said["theory"]["open"])),
        "theory_error": _rounded(said["theory"].get("error")),
        "first_advice": said["first"],
        "balanced_accuracy": _rounded(facts.balanced_accuracy),
    }
    return line | {
        name: _rounded(row.accuracy(name)) if name in row.recalls else "" for name in TRIED
    }


def evidence_row(line: Evidence) -> dict[str, Any]:
    """Return a line of the evidence for remedies."""
    return {
        name: _rounded(value) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(line).items()
    }


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(float(value), 4) + 0.0


def _write_csv(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    lines = list(lines)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]) if lines else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


# -- the page --------------------------------------------------------------------------------------


def page(
    rows: Sequence[Judged],
    found: Sequence[Criterion],
    remedies: Sequence[Evidence],
    about: Mapping[str, Any],
) -> str:
    """Return the text of ``practice.md``."""
    again = sum(name in REMEDIES for row in rows for name in row.recalls)
    text = [
        "# Ordinary networks, judged by the library alone\n",
        "Written by `python -m benchmarks.practice`; every number is computed from the networks, "
        "of which `practice.csv` has one a line.\n",
        f"{len(rows)} of {about['networks']} networks, and {again} of {about['retrained']} "
        f"trained again with a remedy. {about['machine']}.\n",
        "| criterion | asked | figure | holds |\n|---|---|---|---|",
        *(
            f"| {c.name} | {c.asked} | {c.figure} | "
            f"{ {True: 'yes', False: '**no**', None: '-'}[c.holds] } |"
            for c in found
        ),
        "\n## Remedies\n",
        "Held-out balanced accuracy after a remedy minus before, and the change of held-out recall "
        "of the large classes (worst in parentheses) and of the small ones (at most a fifth of the "
        "largest). *Behind* is the distance to the best of all that was tried on the same "
        "network.\n",
        "| state | remedy | networks | mean gain | worst gain | mean behind | worst behind | "
        "large classes | small classes |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {e.state} | {e.remedy} | {e.networks} | {e.mean_gain:+.3f} | {e.worst_gain:+.3f} | "
            f"{e.mean_behind:.3f} | {e.worst_behind:.3f} | {e.large_mean:+.3f} "
            f"({e.large_worst:+.3f}) | {e.small_mean:+.3f} |"
            for e in remedies
        ),
    ]
    return "\n".join(text) + "\n"
