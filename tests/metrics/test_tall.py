"""Class means and classifiers of a vocabulary, which are computed in blocks of rows."""

import warnings

import numpy as np
import pytest
import torch

from tests.metrics.samples import Sizes
from tests.reference import two_pass
from tightframe.metrics import ClassMoments, CollapseReport, Decisions, cdnv, nc1, tall

K, D = 200, 12


@pytest.fixture
def large(monkeypatch):
    """Make every matrix a large one, of many blocks."""
    monkeypatch.setattr(tall, "MAX_DENSE_CLASSES", 0)
    monkeypatch.setattr(tall, "KEPT_ENTRIES", 0)
    monkeypatch.setattr(tall, "BLOCK_ENTRIES", 600)
    monkeypatch.setattr("tightframe.metrics.decisions._FEW_COLUMNS", 32)


def stream(dtype=torch.float32, samples=1200, seed=0, far=100.0):
    """Return features far from zero, with labels and a classifier; some classes are absent."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(K, D))
    y = rng.integers(0, K - 3, samples)
    x = far + w[y] + 0.3 * rng.normal(size=(samples, D))
    return torch.as_tensor(x).to(dtype), torch.as_tensor(y), torch.as_tensor(w).to(dtype)


def gathered(x, y, parts=7):
    moments = ClassMoments(K)
    for rows, labels in zip(x.chunk(parts), y.chunk(parts), strict=True):
        moments.update(rows, labels)
    return moments


def report(moments, w, x, y, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = CollapseReport.measure(
            moments, w, features=x, labels=y, missing="leave_out", **options
        )
        return found, found.rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("options", [{}, {"center": "sample"}, {"min_count": 5}])
def test_the_numbers_are_those_of_matrices_written_out(request, dtype, options):
    x, y, w = stream(dtype, far=1.0)
    want, rows = report(gathered(x, y), w, x, y, **options)
    request.getfixturevalue("large")
    moments = gathered(x, y)
    found, found_rows = report(moments, w, x, y, **options)
    assert moments.tensors().anchors.dtype == dtype
    for key, value in want.numbers.items():
        assert (found.numbers[key] is None) == (value is None)
        if value is not None:
            assert found.numbers[key] == pytest.approx(value, rel=1e-10)
    for row, expected in zip(found_rows, rows, strict=True):
        assert row[:3] == expected[:3]
        assert row.value == pytest.approx(expected.value, rel=1e-9, abs=1e-12, nan_ok=True)
    assert [row.to_dict()["rival"] for row in found.class_table()] == [
        row.to_dict()["rival"] for row in want.class_table()
    ]


def test_small_anchors_lose_nothing_far_from_zero(large):
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(K), 4)
    x = (1000 + 1e-3 * (rng.normal(size=(K, D))[y] + rng.normal(size=(4 * K, D)))).astype("f4")
    moments = gathered(torch.as_tensor(x), torch.as_tensor(y))
    assert nc1(moments) == pytest.approx(two_pass.nc1(x.astype("f8"), y, K), rel=1e-9)


def test_a_wider_type_later_widens_the_anchors(large):
    x, y, _ = stream(torch.float64)
    moments = ClassMoments(K).update(x[:300].half(), y[:300]).update(x[300:], y[300:])
    assert moments.tensors().anchors.dtype == torch.float64
    seen = torch.cat([x[:300].half().double(), x[300:]]).numpy()
    names, places = np.unique(y.numpy(), return_inverse=True)
    want = two_pass.class_means(seen, places, len(names))
    np.testing.assert_allclose(moments.present().means.numpy(), want, rtol=1e-13)


def test_later_updates_do_not_reach_what_was_read(large):
    x, y, w = stream()
    moments = gathered(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = CollapseReport.measure(moments, w, missing="leave_out")
        other = CollapseReport.measure(gathered(x, y), w.clone(), missing="leave_out")
        judge = Decisions(moments, w)
        frequent = moments.at_least(4)
        before = frequent.state_dict()
        moments.update(-3 * x, y)
        w.mul_(-2.0)
        assert found.rows == other.rows
        want = Decisions(gathered(x, y), w).update(x, y).nearest_center_accuracy
    assert judge.update(x, y).nearest_center_accuracy == want > 0.5
    after = frequent.state_dict()
    assert all(torch.equal(torch.as_tensor(before[n]), torch.as_tensor(after[n])) for n in before)


def test_rare_classes_begin_anew(large):
    x, y, _ = stream(torch.float64)
    frequent = gathered(x, y).at_least(7)
    kept = frequent.counts[y] > 0
    want = gathered(x[kept], y[kept]).update(x, y)
    np.testing.assert_allclose(
        frequent.update(x, y).present().means, want.present().means, rtol=1e-13
    )


def test_equal_means_are_found_in_tiles(large):
    x, y, _ = stream()
    x[y == 150] = x[y == 20][0]
    x[y == 20] = x[y == 20][0].clone()
    with pytest.warns(RuntimeWarning, match="classes 20 and 150 are equal"):
        assert cdnv(gathered(x, y)) == np.inf


def test_nothing_of_k_by_d_is_made(large):
    x, y, w = stream()
    moments = gathered(x, y)
    moments.tensors()
    sizes = Sizes()
    with warnings.catch_warnings(), sizes:
        warnings.simplefilter("ignore")
        CollapseReport.measure(moments, w, missing="leave_out", min_count=2)
    # What shares the tensors of the moments and of the classifier, in the type that they came in,
    # and the report's own classifier; everything else is of a block.
    assert all(n <= 600 or n == K * D for n in sizes.all)
    assert sum(n == K * D for n in sizes.all) <= 4
