"""Where the files of a data set are looked for, and what an error says when they are not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tightframe.data.dataset import Samples

#: Environment variable that names a folder of data sets.
VARIABLE = "TIGHTFRAME_DATA"

_NO_HOME = (
    "this user has no home folder, and so no cache: name a folder of data sets by root or by the "
    f"environment variable {VARIABLE}"
)


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
    also : callable, optional
        Returns other names that a file goes by, folders in them included; of these come later.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Sequence[Path]], tuple[Samples, Samples]]
    endings: tuple[str, ...] = ("",)
    also: Callable[[str], tuple[str, ...]] = lambda file: ()

    def find(self, folder: Path) -> tuple[Path, ...] | None:
        """Return the paths of all files in a folder, or None if one is missing."""
        paths = []
        for file in self.files:
            names = (file, *self.also(file))
            candidates = (folder / (name + ending) for name in names for ending in self.endings)
            # Not `Path.is_file`, which raises where the folder may not be looked into.
            path = next((path for path in candidates if os.path.isfile(path)), None)
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
            if root is not None and folder == given_folder(root) and (paths := layout.find(folder)):
                return layout, paths
    for folder in system:
        for layout in layouts:
            if (paths := layout.find(folder)) is not None:
                return layout, paths
    return None


def folders(root: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders of data sets, in the order in which they are searched.

    ``root`` if given, the one that `VARIABLE` names, and the user's cache:
    ``$XDG_CACHE_HOME/tightframe`` or ``~/.cache/tightframe``; a user without a home folder has
    none. Downloads go to the first.
    """
    found = [] if root is None else [given_folder(root)]
    if variable := os.environ.get(VARIABLE):
        found.append(given_folder(variable, VARIABLE))
    # The standard says that a relative path is to be ignored.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):
        found.append(Path(cache) / "tightframe")
    else:
        with contextlib.suppress(RuntimeError):
            found.append(Path.home() / ".cache" / "tightframe")
    return found


def given_folder(root: str | os.PathLike[str], name: str = "root") -> Path:
    """Return a folder that is named by a path, where ``~`` is a user's home folder.

    Raises
    ------
    ValueError
        If that user has none; it begins with ``name``.
    """
    try:
        return Path(root).expanduser()
    except RuntimeError:
        raise ValueError(f"{name}: got {os.fspath(root)!r}, but there is no such home") from None


def download_folder(root: str | os.PathLike[str] | None, name: str) -> Path:
    """Return where the files of a data set are downloaded to.

    Raises
    ------
    ValueError
        If there is no place, because the user has no home folder and nothing else is named.
    """
    if not (found := folders(root)):
        raise ValueError(f"data: {name} can be downloaded to no place; {_NO_HOME}")
    return found[0] / name


def missing(
    name: str,
    layouts: Sequence[Layout],
    root: str | os.PathLike[str] | None,
    package: str | None = None,
) -> ValueError:
    """Return the error that says which files belong where, and how to download them."""
    places = folders(root)
    choices = " or ".join(_files(layout) for layout in layouts)
    if not places:
        return ValueError(
            f"data: {name} is not on this machine; put {choices} into a folder; {_NO_HOME}"
        )
    first = places[0]
    searched = ", ".join(str(folder) for folder in places)
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
