"""Train a run on several devices, in a program of its own: Lightning starts that once a device.

python -m tightframe.runs.devices CONFIG.json FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tightframe.files import read_json, write_json
from tightframe.runs.config import RunConfig


def train_apart(config: RunConfig, folder: Path) -> None:
    """Train a run, or go on with it, where this program must not be started again itself.

    Raises
    ------
    ValueError
        With what the other program said last, if it fails.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / "devices.json"
    write_json(file, config.to_dict())
    done = subprocess.run(
        [sys.executable, "-m", __name__, os.fspath(file), os.fspath(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(lines[-1] if lines else f"devices: ended with code {done.returncode}")


def main() -> None:
    """Train what the arguments name."""
    config = RunConfig.from_dict(read_json(Path(sys.argv[1])))
    from tightframe.runs.train import run  # takes seconds

    run(config, Path(sys.argv[2]), resume=True)


if __name__ == "__main__":
    main()
