"""Names that are loaded on first use: what a folder hands on, and packages that may be missing."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

#: Extra that brings a package which may be missing, by the name that is imported.
EXTRAS = {
    "torch": "torch",
    "torchmetrics": "torch",
    "safetensors": "torch",
    "lightning": "lightning",
    "sklearn": "lightning",
    "transformers": "hf",
    "matplotlib": "report",
    "plotly": "report",
    "pandas": "report",
    "pyarrow": "report",
    "jinja2": "report",
    "markupsafe": "report",
    "joblib": "distributed",
    "dask": "distributed",
    "distributed": "distributed",
    "dash": "explore",
}


def handed_on(
    package: str,
    homes: Mapping[str, Iterable[str]],
    around: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that imports names from their homes on first use.

    Parameters
    ----------
    package : str
        The module's ``__name__``.
    homes : mapping
        Full module names, and the names that each has; none where it is the module itself that is
        handed on, by the last part of its name.
    around : callable
        Takes a module's name and gives what it is imported in: whoever waits may want to know.
    """
    home_of = {name: module for module, names in homes.items() for name in names}
    modules = {module.rpartition(".")[2]: module for module, names in homes.items() if not names}

    def load(name: str) -> Any:
        home = home_of.get(name) or modules.get(name)
        if home is not None:
            with around(home), _explained(f"{package}.{name}"):
                module = importlib.import_module(home)
                return module if name in modules else getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load


def loaded(name: str) -> Any:
    """Return what a full name means, ``"package.module.name"``; its module is imported for that."""
    module, _, own = name.rpartition(".")
    return getattr(importlib.import_module(module), own)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say how to get a package of any extra if an import inside fails for want of it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise ModuleNotFoundError(_how_to_get(what, package), name=package) from None


@contextlib.contextmanager
def needed(what: str, package: str) -> Iterator[None]:
    """Say how to get a package of `EXTRAS` if an import inside fails.

    Raises
    ------
    ImportError
        With ``what`` needs it.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(_how_to_get(what, package)) from error


def _how_to_get(what: str, package: str) -> str:
    return f"{what} needs {package}: pip install 'tightframe[{EXTRAS[package]}]'"
