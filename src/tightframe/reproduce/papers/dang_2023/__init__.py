"""Dang et al. 2023: collapse in deep linear networks, balanced (MSE, CE) and imbalanced (MSE).

Every prediction is computed: minimisers with MSE by `tightframe.solve`, certified; the paper's own
formula for the lengths of the general orthogonal frame by `frames.gof_lengths`; thresholds by
`tightframe.thresholds`. With cross-entropy and several layers nothing certifies a minimiser, but
nothing needs to: a point below the best simplex ETF refutes that the ETF is a minimiser, and
`deep_ce.explicit_losses` evaluates such points as actual layers and features.

Networks stand in the paper's setting: its ``mse_loss / 2`` averages over N K entries and its
features are summed over the batch, which `Problem.from_batch_features` converts. With another
number of samples the feature decay is moved so that n ``feature_decay`` stays what it was, which
keeps all decays in the same ratio to the thresholds.
"""

from tightframe.reproduce.spec import Paper, figures_in

PAPER = Paper(
    "dang-2023",
    "H. Dang, T. Tran, S. Osher, H. Tran-The, N. Ho and T. Nguyen, Neural Collapse in Deep Linear "
    "Networks: From Balanced to Imbalanced Data, ICML 2023, arXiv 2301.00437",
    "https://arxiv.org/abs/2301.00437",
    figures_in(__name__),
)
