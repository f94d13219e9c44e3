"""Members of the context form that hypothesis draws, for more than one file of tests."""

import numpy as np
from hypothesis import strategies as st
from scipy.sparse import csr_array

from tightframe.theory.contexts.form import ContextForm


@st.composite
def forms(draw, most=6):
    """Draw a form: sparse or full targets, some of them equal, any weights, shifts and bias."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    m, v = draw(st.integers(2, most)), draw(st.integers(2, most))
    bias = draw(st.sampled_from(["none", "free", "decayed"]))
    targets = rng.dirichlet(np.ones(v), m) * (rng.random((m, v)) < draw(st.floats(0.2, 1)))
    if draw(st.booleans()):
        targets[:, -1] = targets[:, 0]
    targets[np.arange(m), rng.integers(v, size=m)] += 0.2
    if draw(st.booleans()):
        targets = targets[rng.integers(m, size=m)]
    if bias == "free":  # else a label that is never seen has no best bias
        targets[0] += 0.3
    targets /= targets.sum(axis=1, keepdims=True)
    counts = rng.integers(1, 60, m).astype(float)
    omega = [counts, np.ones(m), 50 * rng.random(m) + 1][draw(st.integers(0, 2))]
    scaled = draw(st.booleans())
    return ContextForm(
        csr_array(targets),
        counts / counts.sum(),
        omega,
        10 ** draw(st.floats(-3.5, -0.8)),
        np.exp(0.5 * rng.normal(size=v)) if scaled else np.ones(v),
        rng.normal(size=v) if draw(st.booleans()) else np.zeros(v),
        bias,
        0.01 if bias == "decayed" else 0.0,
    )
