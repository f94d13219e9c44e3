"""Problems for more than one file of tests: with equal decays, which follow a path, and a text."""

import tightframe as tf

#: Some 20 contexts of two letters are seen five times.
SMALL_TEXT = "the cat sat on the mat and the rat ran at the cat while the hen ate all the oats " * 5


def make(counts="60x2,20x3,9", loss="cross_entropy", decay=1e-2, **changes):
    if changes.get("bias") == "decayed":
        changes.setdefault("bias_decay", 0.05)
    return tf.Problem(counts, loss, weight_decay=decay, feature_decay=decay, **changes)


def at(problem, decay):
    """Return the problem at another lambda."""
    return problem.replace(weight_decay=decay, feature_decay=decay)


def changing(problem):
    """Return the name of a problem in a table of them."""
    return f"{problem.compact_counts}-{problem.loss}-{problem.bias}"
