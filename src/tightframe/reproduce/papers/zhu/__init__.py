"""Zhu et al. 2021: the simplex ETF as only minimiser on balanced data, its landscape, and networks.

Every prediction is computed: the minimiser by `tightframe.solve` with its certificate, saddles and
their curvature by `tightframe.landscape`, parameters by `tightframe.heads`. NC1 to NC4 are the
paper's, with one exception: ``||b + W mu||`` grows with the logits, so for judging it is divided by
the length that the centred mean logits of a class have.
"""

from tightframe.reproduce.spec import Paper, figures_in

PAPER = Paper(
    "zhu",
    "Z. Zhu, T. Ding, J. Zhou, X. Li, C. You, J. Sulam and Q. Qu, A Geometric Analysis of Neural "
    "Collapse with Unconstrained Features, NeurIPS 2021, arXiv 2105.02375",
    "https://arxiv.org/abs/2105.02375",
    figures_in(__name__),
)
