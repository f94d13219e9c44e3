"""The unconstrained features model trained by gradient descent."""

from tightframe.training.ufm.train import UFMRun, UFMRuns, svm_direction, train_ufm

__all__ = ["UFMRun", "UFMRuns", "svm_direction", "train_ufm"]
