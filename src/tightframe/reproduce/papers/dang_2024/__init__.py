"""Dang et al. 2024: neural collapse under imbalance with cross-entropy and ReLU features.

Every prediction is computed: the closed form by `tightframe.solve` with its certificate, where
classes vanish by `tightframe.thresholds`. The paper's training step halves the loss and sums the
features over a batch; `tightframe.Problem.from_batch_features` converts its decays. The UFM is
trained with equal decays of the same product, which has the same logits and trains faster.
"""

from tightframe.reproduce.spec import Paper, figures_in

PAPER = Paper(
    "dang-2024",
    "H. Dang, T. Tran, T. Nguyen and N. Ho, Neural Collapse for Cross-entropy Class-Imbalanced "
    "Learning with Unconstrained ReLU Features Model, ICML 2024, arXiv 2401.02058",
    "https://arxiv.org/abs/2401.02058",
    figures_in(__name__),
)
