"""Thrampoulidis et al. 2022: SELI, the geometry of vanishing decay whatever the imbalance.

The paper's cross-entropy is summed over the samples; its ridge is ``N sqrt(lambda_W lambda_H)`` of
`Problem` (`Problem.from_summed_loss`). STEP imbalance has K/2 classes of R times as many samples as
the K/2 others. At the ridges that descent can reach the minimiser is not SELI yet, so measurements
are compared with three things: SELI, the simplex ETF, and the certified minimiser of that ridge.

SELI and the ETF have the same logits, ``I - 11^T/K``; only classifier and class means tell them
apart.
"""

from tightframe.reproduce.spec import Paper, figures_in

PAPER = Paper(
    "thrampoulidis",
    "C. Thrampoulidis, G. R. Kini, V. Vakilian and T. Behnia, Imbalance Trouble: Revisiting Neural-"
    "Collapse Geometry, NeurIPS 2022, arXiv 2208.05512",
    "https://arxiv.org/abs/2208.05512",
    figures_in(__name__),
)
