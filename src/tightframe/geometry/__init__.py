"""Block matrices, frames and Gram matrices of class means and classifiers."""
