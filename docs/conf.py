"""Settings of Sphinx; what is this project's own is in `engine`."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
os.environ["COLUMNS"] = "80"  # of what the command prints in notebooks

from engine import notebooks  # noqa: E402

from tightframe import __version__  # noqa: E402

project = "tightframe"
author = "The tightframe developers"
release = version = __version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "engine.mathml",
    "engine.pictures",
    "engine.reference",
    "engine.reproductions",
]
exclude_patterns = ["engine", "notebooks/*.ipynb", "notebooks/*.py"]
nitpicky = True

# -- pages -----------------------------------------------------------------

myst_enable_extensions = ["alert", "attrs_inline", "dollarmath"]
myst_heading_anchors = 4  # as GitHub has them
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = (
    "div:not(.highlight-text):not(.highlight-none) > div.highlight pre"
)
sphinx_gallery_conf = notebooks.SETTINGS

# -- reference -------------------------------------------------------------

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # the parameters' own list has them, with shapes
python_maximum_signature_line_length = 72
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True

# -- look ------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"
html_title = "tightframe"
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Pages without others below them need no navigation of their own.
ALONE = [
    "changelog",
    "cite",
    "compare",
    "glossary",
    "limits",
    "speed",
    "theory",
]
html_sidebars = {page: [] for page in ALONE}
html_search_scorer = str(DOCS / "engine" / "scorer.js")
html_show_sourcelink = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "tightframe"},
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": True,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
