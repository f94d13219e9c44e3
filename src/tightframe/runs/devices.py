"""Train a run on several devices, in a program of its own: Lightning starts that once a device.

python -m tightframe.runs.devices CONFIG.json FOLDER [UNTIL]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tightframe.files import read_json, write_json
from tightframe.runs.config import RunConfig
from tightframe.runs.limit import TimeIsUp

#: Exit code of a program that has left the run for later, as of sysexits.h: try again.
_TIME_IS_UP = 75


def train_apart(config: RunConfig, folder: Path, until: float | None = None) -> None:
    """Train a run, or go on with it, where this program must not be started again itself.

    Raises
    ------
    ValueError
        With what the other program said last, if it fails.
    TimeIsUp
        As `tightframe.runs.train.run`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / "devices.json"
    write_json(file, config.to_dict())
    limit = [] if until is None else [repr(until)]
    done = subprocess.run(
        [sys.executable, "-m", __name__, os.fspath(file), os.fspath(folder), *limit],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode == _TIME_IS_UP:
        raise TimeIsUp
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(lines[-1] if lines else f"devices: ended with code {done.returncode}")


def main() -> None:
    """Train what the arguments name."""
    file, folder, *limit = sys.argv[1:]
    config = RunConfig.from_dict(read_json(Path(file)))
    from lightning.pytorch.utilities import rank_zero_only  # takes seconds

    from tightframe.runs.train import run

    try:
        run(config, Path(folder), resume=True, until=float(limit[0]) if limit else None)
    except TimeIsUp:
        # A code from one of the others would have Lightning end the first before it has one.
        sys.exit(_TIME_IS_UP if getattr(rank_zero_only, "rank", 0) == 0 else 0)


if __name__ == "__main__":
    main()
