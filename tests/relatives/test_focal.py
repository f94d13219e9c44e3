"""Focal loss against cross-entropy's closed form, direct minimisation and known limits."""

import math

import numpy as np
import pytest

import tightframe as tf


def at(k, gamma, share=1.0, **options):
    """Return the result at a share of cross-entropy's collapse, one sample a class."""
    return tf.focal_collapse(
        k, 1, gamma, weight_decay=share / k, feature_decay=share / k, **options
    )


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1.01])
def test_without_focusing_it_is_cross_entropy(share):
    decays = {"weight_decay": share / 8 / 3, "feature_decay": share / 8 / 3}
    found = tf.focal_collapse(8, 9, 0.0, **decays)
    solved = tf.solve(tf.Problem([9] * 8, **decays))
    assert found.objective == pytest.approx(solved.objective, rel=1e-12)
    assert np.allclose(found.logits, solved.logits, atol=1e-7)
    assert found.collapse == pytest.approx(1 / 24, rel=1e-12)
    assert found.jump == 0


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize(("k", "share"), [(4, 0.1), (10, 0.5), (6, 0.99)])
def test_direct_minimisation_finds_nothing_better(k, gamma, share):
    found = at(k, gamma, share * at(k, gamma).collapse * k, starts=4)
    assert found.searched == pytest.approx(found.objective, rel=1e-9)
    assert "4 direct minimisations found nothing better" in found.note
    assert "not certified" in found.note
    assert found.status == "best found"


@pytest.mark.parametrize(
    ("k", "gamma", "limit", "collapse", "jump"),
    [
        (10, 2, 1.2245, 1.2245, 0),
        (3, 5, 0.4934, 0.4934, 0),
        (100, 2, 1.0713, 1.1157, 2.3732),
        (1000, 2, 1.0118, 1.0698, 4.9561),
    ],
)
def test_limits_and_jumps_of_a_fine_grid(k, gamma, limit, collapse, jump):
    """Values computed apart, of the scalar problem on a grid of 200,000 margins."""
    found = at(k, gamma)
    assert found.stability_limit * k == pytest.approx(limit, abs=1e-4)
    assert found.collapse * k == pytest.approx(collapse, abs=1e-4)
    assert found.jump == pytest.approx(jump, abs=1e-3)
    below, above = (at(k, gamma, factor * found.collapse * k) for factor in (0.9999, 1.0001))
    assert below.margin > found.jump
    assert above.margin == 0
    assert above.geometry is None
    margins = np.linspace(0, 40, 100001)
    wrong = (k - 1) / (np.exp(margins) + k - 1)
    for point in (below, above):
        cost = -(wrong**gamma) * np.log1p(-wrong) + point.logit_decay * (k - 1) * margins
        assert point.objective <= cost.min() + 1e-12


@pytest.mark.parametrize(("k", "share"), [(50, 1.13), (50, 1.15), (70, 1.10)])
def test_direct_minimisation_of_many_classes_jumps_too(k, share):
    """Beyond the stability limit, on both sides of the jump of 50 classes."""
    found = at(k, 2.0, share, starts=3)
    assert share > found.stability_limit * k
    assert found.searched == pytest.approx(found.objective, rel=1e-9)
    assert (found.margin == 0) == (share > 1.1401)


def test_points_where_some_classes_have_collapsed_are_between():
    """Direct minimisation ends there from some starts: 48 of 50 classes make an ETF."""
    found, alive, gone = at(50, 2.0, 1.135), 48, 2
    margins = np.linspace(0.5, 3, 2001)
    own, others = margins * (1 - 1 / alive), -margins / alive
    total = np.exp(own) + (alive - 1) * np.exp(others) + gone
    alone = (1 - 1 / 50) ** 2 * math.log(50)
    loss = (1 - np.exp(own) / total) ** 2 * (np.log(total) - own)
    cost = (alive * loss + gone * alone) / 50 + found.logit_decay * (alive - 1) * margins
    assert 0 < cost.argmin() < len(margins) - 1
    assert found.objective < cost.min() < alone


def test_zero_is_a_local_minimum_from_the_limit_on():
    k, gamma = 7, 3.0
    limit = at(k, gamma).stability_limit

    def cost(m, decay):
        q = math.exp(m) / (math.exp(m) + k - 1)
        return -((1 - q) ** gamma) * math.log(q) + decay * (k - 1) * m

    assert cost(1e-6, 0.999 * limit) < cost(0, limit) < cost(1e-6, 1.001 * limit)


def test_what_it_says_of_itself():
    found = at(100, 2.0, 0.5)
    plain = found.to_dict()
    assert plain["status"] == "best found"
    assert plain["collapse"] > plain["stability_limit"]
    assert repr(found).endswith("best found)")
    assert found.geometry.distance(tf.simplex_etf(100), "classifier") < 1e-12
    frame = found.to_frame()
    assert frame.collapsed.tolist() == [decay > found.collapse for decay in frame.logit_decay]
    assert found.margin_at(found.logit_decay) == found.margin
    _, ax = found.plot()
    x, y = ax.lines[0].get_data()
    assert min(m for m, decay in zip(y, x, strict=True) if decay < found.collapse) > 2.3
    assert max(m for m, decay in zip(y, x, strict=True) if decay > found.collapse) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"num_classes": "100,10"},
            "num_classes: got '100,10', need a whole number: focal loss is",
        ),
        ({"samples_per_class": [9, 5]}, r"samples_per_class: got \[9, 5\], need a whole number"),
        ({"num_classes": 1}, "num_classes: got 1, need a whole number, at least 2"),
        ({"samples_per_class": 0}, "samples_per_class: got 0"),
        ({"gamma": -1}, "gamma: got -1"),
        ({"gamma": 1e3}, "gamma: got 1000, need at most 100"),
        ({"weight_decay": 0}, "weight_decay: got 0"),
        ({"feature_decay": math.nan}, "feature_decay: got nan"),
        ({"starts": -1}, "starts: got -1"),
        ({"starts": 10**6}, "starts: got 1000000, need at most 1000"),
        ({"weight_decay": 1e300}, r"weight_decay: got 1e\+300, need a number from 1e-100 to"),
        ({"samples_per_class": 10**30}, "samples_per_class: got 1000000000000000000000000000000, "),
        ({"num_classes": 1000, "starts": 1}, "starts: got 1 with 1000 classes"),
        ({"seed": 0.5}, "seed: got 0.5"),
    ],
)
def test_bad_arguments_are_named(change, message):
    given = {"num_classes": 4, "samples_per_class": 5, "gamma": 2.0} | {
        "weight_decay": 0.1,
        "feature_decay": 0.1,
    }
    with pytest.raises(ValueError, match=message):
        tf.focal_collapse(**(given | change))
    huge = tf.focal_collapse(10**6, 5, 2.0, weight_decay=1e-9, feature_decay=1e-9)
    with pytest.raises(ValueError, match="logits: 1000000 classes"):
        _ = huge.logits
