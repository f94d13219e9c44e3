"""Problems and matrices that hypothesis draws, for more than one file of tests."""

import numpy as np
from hypothesis import strategies as st

import tightframe as tf
from tightframe.geometry.blocks import BlockMatrix, Partition

#: (count, classes) of each group; no two groups of one count.
GROUPS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 4)),
    min_size=2,
    max_size=4,
    unique_by=lambda group: group[0],
)


def per_class(draw, values, counts):
    """Draw one of a few numbers a class, so that groups of equal ones form, or None."""
    one_each = st.lists(st.sampled_from(values), min_size=len(counts), max_size=len(counts))
    return draw(st.none() | one_each)


def label_options(draw, counts):
    """Draw label smoothing and class margins, each of which half the problems have not."""
    share = draw(st.just(0.0) | st.floats(1e-3, 0.9))
    margins = [0.0, 0.4, 3.0] if share else [0.0, -1.0, 0.4, 3.0]
    return {
        "label_smoothing": share,
        "smoothing_weights": draw(st.sampled_from(["own", "labels"])),
        "class_margins": per_class(draw, margins, counts),
    }


@st.composite
def convex_problems(draw, max_classes=6, low=-4.0):
    """Draw a problem that certificates cover, with decays from 10^low to 1."""
    counts = draw(st.lists(st.integers(1, 40), min_size=2, max_size=max_classes))
    bias = draw(st.sampled_from(["none", "free", "decayed"]))
    loss = draw(st.sampled_from(["cross_entropy", "cross_entropy", "mse"]))
    plain = loss == "mse"
    labels = {} if plain else label_options(draw, counts)
    return tf.Problem(
        counts,
        loss,
        **labels,
        class_weights=per_class(draw, [0.3, 1.0, 5.0], counts),
        logit_adjustment=None if plain else per_class(draw, [-2.0, 0.0, 0.7], counts),
        weight_decay=10 ** draw(st.floats(low, 0)),
        feature_decay=10 ** draw(st.floats(low, 0)),
        bias=bias,
        bias_decay=draw(st.floats(1e-3, 1)) if bias == "decayed" else None,
    )


def random_blocks(groups, seed, **options):
    """Return a problem with these groups, and a random block matrix of its classes."""
    text = ",".join(f"{count}x{classes}" for count, classes in groups)
    problem = tf.Problem(text, weight_decay=1e-3, feature_decay=1e-3, **options)
    rng = np.random.default_rng(seed)
    g = len(groups)
    partition = Partition.coarsest(problem)
    within = np.where(partition.sizes > 1, rng.normal(size=g), 0.0)
    return problem, BlockMatrix(partition, within, rng.normal(size=(g, g)))
