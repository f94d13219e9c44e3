"""Where the files of a data set are looked for, and what an error says when they are not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tightframe.data.dataset import Samples

#: Environment variable that names a folder of data sets.
VARIABLE = "TIGHTFRAME_DATA"


@dataclass(frozen=True)
class Layout:
    """One form in which a data set lies on disk: files that belong together, in one folder.

    Attributes
    ----------
    folders : tuple of str
        The folder's name inside a folder of data sets, and other names that it goes by.
    files : tuple of str
    read : callable
        Called with the paths of ``files``, returns training and test samples.
    endings : tuple of str
        What may follow every file's name; the first one there is taken.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Sequence[Path]], tuple[Samples, Samples]]
    endings: tuple[str, ...] = ("",)

    def find(self, folder: Path) -> tuple[Path, ...] | None:
        """Return the paths of all files in a folder, or None if one is missing."""
        paths = []
        for file in self.files:
            candidates = (folder / (file + ending) for ending in self.endings)
            path = next((path for path in candidates if path.is_file()), None)
            if path is None:
                return None
            paths.append(path)
        return tuple(paths)


def find_files(
    layouts: Sequence[Layout],
    root: str | os.PathLike[str] | None,
    system: Sequence[Path] = (),
) -> tuple[Layout, tuple[Path, ...]] | None:
    """Look for a data set: in ``root``, `VARIABLE`, the cache, and where the system keeps it.

    Parameters
    ----------
    layouts : sequence of Layout
        In order of preference within one place.
    root : path-like, optional
        A folder of data sets, or the very folder of the files.
    system : sequence of Path
        Folders where packages of the operating system put the files.

    Returns
    -------
    tuple of Layout and its paths, or None
    """
    for folder in folders(root):
        for layout in layouts:
            for inner in layout.folders:
                if (paths := layout.find(folder / inner)) is not None:
                    return layout, paths
            # Only there: MNIST and Fashion-MNIST have files of the same names.
            if root is not None and folder == _given(root) and (paths := layout.find(folder)):
                return layout, paths
    for folder in system:
        for layout in layouts:
            if (paths := layout.find(folder)) is not None:
                return layout, paths
    return None


def folders(root: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders of data sets, in the order in which they are searched.

    ``root`` if given, the one that `VARIABLE` names, and the user's cache:
    ``$XDG_CACHE_HOME/tightframe`` or ``~/.cache/tightframe``. Downloads go to the first.
    """
    found = [] if root is None else [_given(root)]
    if variable := os.environ.get(VARIABLE):
        found.append(Path(variable).expanduser())
    # The standard says that a relative path is to be ignored.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return [*found, base / "tightframe"]


def missing(
    name: str,
    layouts: Sequence[Layout],
    root: str | os.PathLike[str] | None,
    package: str | None = None,
) -> ValueError:
    """Return the error that says which files belong where, and how to download them."""
    first = folders(root)[0]
    choices = " or ".join(_files(layout) for layout in layouts)
    searched = ", ".join(str(folder) for folder in folders(root))
    return ValueError(
        f"data: {name} is not on this machine (searched {searched}). "
        f"Put {choices} into {first / name}; or name their folder by root or by the environment "
        f"variable {VARIABLE}; or download them with load({name!r}, download=True)"
        + (f"; or install the package {package} on Debian or Ubuntu" if package else "")
    )


def _files(layout: Layout) -> str:
    names = layout.files
    plain, packed = "" in layout.endings, ".gz" in layout.endings
    text = ", ".join(names) if len(names) <= 4 else f"{names[0]}, ..., {names[-2]}, {names[-1]}"
    return text + (" (or each with .gz)" if plain and packed else "")


def _given(root: str | os.PathLike[str]) -> Path:
    return Path(root).expanduser()
