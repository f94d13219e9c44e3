"""Hong & Ling 2023: neural collapse under imbalance with cross-entropy, its blocks and collapses.

Every prediction is computed: the minimiser by `tightframe.solve` with its certificate, the
thresholds ``n_B <= N^2 lambda^2`` by `tightframe.thresholds`. In the paper's code the decays carry
no one half and are in the ratio ``lambda_W : lambda_H = 100``; networks keep that ratio. The UFM is
trained with equal decays, which has the same logits and trains faster.
"""

from tightframe.reproduce.spec import Paper, figures_in

PAPER = Paper(
    "hong-ling",
    "W. Hong and S. Ling, Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss "
    "with Imbalanced Data, 2023, arXiv 2309.09725",
    "https://arxiv.org/abs/2309.09725",
    figures_in(__name__),
)
