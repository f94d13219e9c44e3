"""
Reproduce a figure of a paper
=============================

Every figure of five papers is a specification: what runs, what is claimed, and
which number decides. At scale ``smoke`` one takes seconds.
"""

# %%
# What is claimed
# ---------------
#
# General orthogonal frames in deep linear models under imbalance (Dang et al.
# 2023): before anything runs, every claim has its criterion.

import tempfile
import textwrap
from pathlib import Path

from tightframe.reproduce.folder import reproduce
from tightframe.reproduce.spec import find_figures

NAME = "dang-2023/imbalanced-ufm"
((paper, figure),) = find_figures(NAME)
print(figure.title)
print(textwrap.fill(figure.claim, 80))

# %%
# Run and judge
# -------------

folder = Path(tempfile.mkdtemp()) / "reproduction"
(record,) = reproduce(NAME, folder)
for verdict in record.verdicts:
    for text in (
        f"{verdict.outcome}: {verdict.sentence}",
        f"    criterion: {verdict.criterion}",
    ):
        print(textwrap.fill(text, 80, subsequent_indent="    "))

# %%
# Its picture
# -----------

from tightframe.figures.mpl import drawn_sheet
from tightframe.reproduce.plots import figure_sheet

drawn_sheet(figure_sheet(record))
