import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tests.strategies import GROUPS, random_blocks
from tightframe.geometry.blocks import BlockMatrix, Partition, singular_values, svd

DECAYS = {"weight_decay": 1e-3, "feature_decay": 1e-3}


@given(GROUPS, st.integers(0, 10**6))
def test_block_quantities_are_those_of_the_dense_matrix(groups, seed):
    problem, blocks = random_blocks(groups, seed)
    dense = blocks.to_dense() * np.sqrt(problem.counts)
    values, times = blocks.spectrum
    expected = np.linalg.svd(dense, compute_uv=False)
    spread = np.repeat(values, times.astype(int))
    assert np.allclose(np.sort(spread)[::-1], expected, atol=1e-9)
    assert blocks.operator_norm == pytest.approx(expected[0])
    assert blocks.rank == np.linalg.matrix_rank(dense, tol=1e-10 * expected[0])
    columns = np.linalg.norm(dense, axis=0)
    assert np.allclose(blocks.column_norms[problem.class_groups], columns)
    rows = blocks.to_dense() @ problem.counts / problem.num_samples
    assert np.allclose(blocks.row_average[problem.class_groups], rows)
    assert np.allclose((blocks * -2.5).to_dense(), -2.5 * blocks.to_dense())


@given(GROUPS, st.integers(0, 10**6))
def test_singletons_hold_the_same_matrix(groups, seed):
    problem, blocks = random_blocks(groups, seed)
    same = BlockMatrix.from_dense(problem, blocks.to_dense())
    assert np.array_equal(same.to_dense(), blocks.to_dense())
    assert same.operator_norm == pytest.approx(blocks.operator_norm)
    assert same.rank == blocks.rank


def test_dense_form_has_the_documented_entries():
    problem = tf.Problem("4x2,9", weight_decay=1e-3, feature_decay=1e-3)
    mean = np.array([[1.0, 2.0], [3.0, 4.0]])
    blocks = BlockMatrix(Partition.coarsest(problem), np.array([6.0, 0.0]), mean)
    # Own entry mean + 6/2, sibling mean - 6/2: they differ by 6 and average to the mean.
    assert blocks.to_dense().tolist() == [[4, -2, 2], [-2, 4, 2], [3, 3, 4]]


def test_too_many_classes_for_a_dense_array():
    problem = tf.Problem("10x5000", weight_decay=1e-3, feature_decay=1e-3)
    partition = Partition.coarsest(problem)
    with pytest.raises(ValueError, match="5000 classes would need"):
        BlockMatrix(partition, np.ones(1), np.zeros((1, 1))).to_dense()
    with pytest.raises(ValueError, match="5000 classes"):
        Partition.singletons(problem)


def test_svd_survives_the_fast_driver(monkeypatch):
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(2, 3, 3))
    fast = np.linalg.svd

    def fails(*arguments, **options):
        raise np.linalg.LinAlgError

    monkeypatch.setattr(np.linalg, "svd", fails)
    for matrices in (batch, batch[0]):
        left, values, right = svd(matrices)
        assert np.allclose((left * values[..., None, :]) @ right, matrices)
        assert np.allclose(values, fast(matrices, compute_uv=False))
    assert np.allclose(singular_values(batch[0]), fast(batch[0], compute_uv=False))
    with pytest.raises(np.linalg.LinAlgError):
        svd(np.full((2, 2), np.nan))
