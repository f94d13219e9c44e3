"""Settings of the gallery of notebooks, and how their pictures get on light and on dark pages."""

import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tightframe.figures.mpl import save_figure
from tightframe.figures.style import DARK, DARK_COLORS, LIGHT

ROOT = Path(__file__).parents[2]

#: What replaces a colour on a dark page.
ON_DARK = DARK_COLORS | {
    getattr(LIGHT, name): getattr(DARK, name)
    for name in ("text", "muted", "grid", "paper")
}

PICTURES = """
.. image:: /{light}
   :class: only-light
   :alt: {words}

.. image:: /{dark}
   :class: only-dark
   :alt: {words}
"""


def pictures(
    _: Any, variables: dict[str, Any], settings: dict[str, Any]
) -> str:
    """Write what a cell ends in, if that is a picture, for both grounds; return its text."""
    value = variables["example_globals"].get("___")
    figure = getattr(value, "figure", value)
    if not isinstance(figure, Figure):
        return ""
    variables["example_globals"]["___"] = (
        None  # the next cell may end in nothing
    )
    path = Path(next(variables["image_path_iterator"]))
    light = save_figure(figure, path.with_suffix(".svg"))
    drawn = light.read_text(encoding="utf-8")
    dark = light.with_suffix(".dark.svg")
    dark.write_text(on_dark(drawn), encoding="utf-8")
    titles = [
        figure.get_suptitle(),
        *(axis.get_title() for axis in figure.axes),
    ]
    return PICTURES.format(
        light=light.relative_to(settings["src_dir"]).as_posix(),
        dark=dark.relative_to(settings["src_dir"]).as_posix(),
        words=" ".join(". ".join(filter(None, titles)).split()) or "Picture",
    )


def on_dark(svg: str) -> str:
    """Return a picture with the colours of a dark page."""
    pattern = "|".join(map(re.escape, ON_DARK))
    return re.sub(pattern, lambda match: ON_DARK[match[0]], svg)


#: From a plan to its proof.
ORDER = (
    "predict_a_head",
    "advise_before_training",
    "measure_a_saved_network",
    "diagnose_a_network",
    "train_two_settings",
    "reproduce_a_figure",
)


class InOrder:
    """The key by which the gallery sorts its files; one that is not in `ORDER` is an error."""

    def __init__(self, folder: str) -> None:
        """Take what Sphinx-Gallery gives."""

    def __call__(self, name: str) -> int:
        """Return a file's place."""
        return ORDER.index(Path(name).stem)


#: Of Sphinx-Gallery: every script of a folder is run, and kept as notebook.
SETTINGS: dict[str, Any] = {
    "examples_dirs": str(ROOT / "examples" / "notebooks"),
    "gallery_dirs": "notebooks",
    "filename_pattern": r"\.py$",
    "run_stale_examples": True,
    "image_scrapers": ("engine.notebooks.pictures",),
    "reset_modules": (),
    "capture_repr": ("_repr_html_", "__repr__"),
    "ignore_repr_types": "Drawn|Picture",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "within_subsection_order": "engine.notebooks.InOrder",
    "copyfile_regex": "",
}
