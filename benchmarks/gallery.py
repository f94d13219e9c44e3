"""Keep the records of reproductions in ``reproductions/``, with a page that shows them all.

    python -m benchmarks.gallery FOLDER ... [--out reproductions]

Copies of each folder that ``tightframe reproduce`` wrote what tables, verdicts and pictures need,
not the single runs, into ``<out>/<scale>-<papers>``; then writes ``<out>/README.md`` from all that
is there. ``tightframe report <out>/<scale>-<papers>`` makes the interactive page again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from pyarrow import parquet

from tightframe.files import read_json, replacing, write_json
from tightframe.reproduce.folder import FigureRecord, Reproduction, load_reproduction
from tightframe.reproduce.spec import NOT_REPRODUCED, OUTCOMES, REPRODUCED, UNDECIDED, papers
from tightframe.runs.folder import cores, processor

HOME = Path(__file__).parent.parent / "reproductions"

#: Colours of a stored picture: a third of the bytes, and no difference to be seen.
_COLORS = 128
_SIGNS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", UNDECIDED: "!"}

_HEAD = """\
# The five papers, reproduced

Written by `python -m benchmarks.gallery` from the records in this folder: for every claim the
verdict, what was found, and the criterion that decided. `tightframe reproduce PAPER/FIGURE` makes
each again; `tightframe report reproductions/FOLDER` makes the interactive page of a record.
`verdicts.json` beside each picture has what was predicted and measured, with all tasks and their
settings; `results.parquet` has their rows. Minutes are those of all tasks of a figure added up, on
a machine that mostly had other work meanwhile; alone, some tasks take an eighth of that.
"""


def collect(source: Path, home: Path = HOME) -> Path:
    """Copy a reproduction's records; return the folder they are in now.

    Raises
    ------
    ValueError
        If the source holds no reproduction, or one that is not finished.
    """
    found = load_reproduction(source)
    open_figures = [record.name for record in found.figures if not record.finished]
    if open_figures:
        raise ValueError(f"source: {source} is not finished: {', '.join(open_figures)}")
    papers = dict.fromkeys(record.name.partition("/")[0] for record in found.figures)
    target = home / f"{found.config['scale']}-{'+'.join(papers)}"
    if target.exists():
        shutil.rmtree(target)
    for record in found.figures:
        own = target / record.folder.relative_to(source)
        own.mkdir(parents=True)
        shutil.copyfile(record.folder / "verdicts.json", own / "verdicts.json")
        # What programs alone read takes little more than half of its bytes so.
        panels = json.dumps(read_json(record.folder / "panels.json"), separators=(",", ":"))
        (own / "panels.json").write_text(panels, encoding="utf-8")
        rows = parquet.read_table(record.folder / "results.parquet")
        small_rows = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
        parquet.write_table(rows, own / "results.parquet", **small_rows)
        picture = f"{own.name}.png"
        if (record.folder / picture).exists():
            with Image.open(record.folder / picture) as image:
                small = image.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
            small.save(own / picture, optimize=True)
    record_file = read_json(source / "reproduce.json")
    # Records of before they were kept: made on this machine.
    record_file["environment"] = {
        "processor": processor(),
        "cores": cores(),
    } | record_file["environment"]
    write_json(target / "reproduce.json", record_file)
    return target


def page(home: Path = HOME) -> str:
    """Return the text of ``README.md``."""
    records = [load_reproduction(file.parent) for file in sorted(home.glob("*/reproduce.json"))]
    return "\n".join([_HEAD, _summary(records), *(_section(home, record) for record in records)])


def write_page(home: Path = HOME) -> Path:
    """Write ``README.md`` and return its path."""
    path = home / "README.md"
    with replacing(path) as temporary:
        temporary.write_text(page(home), encoding="utf-8")
    return path


def _summary(records: Sequence[Reproduction]) -> str:
    lines = [
        "| record | machine | " + " | ".join(OUTCOMES) + " |",
        "|---" * (2 + len(OUTCOMES)) + "|",
    ]
    for record in records:
        about = record.environment
        outcomes = Counter(v.outcome for figure in record.figures for v in figure.verdicts)
        numbers = " | ".join(str(outcomes[outcome]) for outcome in OUTCOMES)
        machine = f"{about['processor']}, {about['cores']} cores, {record.config['device']}"
        lines.append(f"| {record.folder.name} | {machine} | {numbers} |")
    return "\n".join(lines) + "\n"


def _section(home: Path, record: Reproduction) -> str:
    text, paper = [], None
    # Papers one after the other, figures as the paper's specification lists them.
    known = [f"{p.name}/{figure.name}" for p in papers().values() for figure in p.figures]
    places = {name: i for i, name in enumerate(known)}
    for figure in sorted(record.figures, key=lambda figure: places.get(figure.name, len(known))):
        if figure.about["citation"] != paper:
            paper = figure.about["citation"]
            versions = record.environment["versions"]
            text += [
                f"## {paper}\n",
                f"<{figure.about['url']}>. Scale `{record.config['scale']}`, seed "
                f"{record.config['seed']}, commit `{str(record.environment.get('commit'))[:7]}`, "
                f"torch {versions['torch']}, NumPy {versions['numpy']}.\n",
            ]
        text.append(_figure(home, figure))
    return "\n".join(text)


def _figure(home: Path, figure: FigureRecord) -> str:
    about = figure.about
    seconds = sum(task["seconds"] or 0.0 for task in figure.tasks)
    text = [
        f"### {about['title']}\n",
        f"`{figure.name}` ({about['source']}; {seconds / 60:.1f} minutes). {about['claim']}\n",
    ]
    text += [
        f"- {_SIGNS.get(v.outcome, '?')} **{v.outcome}**: {v.sentence} *Criterion:* {v.criterion}."
        for v in figure.verdicts
    ]
    text += [f"- a run failed, {run['task']}: {run['reason']}" for run in figure.failed]
    picture = figure.folder / f"{figure.folder.name}.png"
    if picture.exists():
        text.append(f"\n![{about['title']}]({picture.relative_to(home).as_posix()})\n")
    text.append(f"{about['caption']}\n")
    if about["note"]:
        text.append(f"{about['note']}\n")
    return "\n".join(text)


def main() -> None:
    """Collect the folders named and write the page."""
    parser = argparse.ArgumentParser(description="Keep the records of reproductions.")
    parser.add_argument("folders", nargs="*", type=Path, help="what `reproduce` wrote")
    parser.add_argument("--out", type=Path, default=HOME)
    given = parser.parse_args()
    for folder in given.folders:
        print(collect(folder, given.out))
    print(write_page(given.out))


if __name__ == "__main__":
    main()
