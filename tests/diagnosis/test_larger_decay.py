"""`larger_decay`: against networks trained on at the other decay, and when it does not speak."""

import functools
import itertools
import json
import warnings

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits
from torch import nn

import tightframe as tf
from tightframe.training import continue_at

DECAY, LARGER = 5e-3, [1e-2, 4e-2]
COUNTS = [40, 40, 40, 5, 5]


def some_digits():
    images, digits = load_digits(return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(digits == k)[:n] for k, n in enumerate(COUNTS)])
    return torch.tensor(images[chosen] / 16, dtype=torch.float32), torch.tensor(digits[chosen])


@functools.cache
def trained(*hidden):
    """Return a network at its optimum, and what continuing it at the larger decays gives."""
    torch.manual_seed(len(hidden))
    widths = [64, *hidden, len(COUNTS)]
    parts = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    loader = [some_digits()]
    with warnings.catch_warnings():  # the last digits of the objective are not asked for
        warnings.simplefilter("ignore", tf.NotConvergedWarning)
        now = continue_at(nn.Sequential(*parts[:-1]), loader, weight_decay=DECAY, iterations=300)
        after = [continue_at(now.model, loader, weight_decay=d, iterations=200) for d in LARGER]
    return now, after


def last_layer(*hidden):
    model = trained(*hidden)[0].model
    images, digits = some_digits()
    with torch.no_grad():
        features = model[:-1](images)
    return features, digits, model[-1].weight, model[-1].bias


def predict(hidden=(16,), at=LARGER, **options):
    options = {"weight_decay": DECAY, "layers": len(hidden) + 1} | options
    return tf.larger_decay(*last_layer(*hidden), at=at, **options)


@pytest.mark.parametrize("hidden", [(16,), (24, 16)])
def test_margins_are_within_the_bar_of_the_network_itself(hidden):
    now, after = trained(*hidden)
    found = predict(hidden)
    np.testing.assert_allclose(found.now, now.margins, atol=1e-4)
    for row, real in enumerate(after):
        assert (np.abs(found.margins[row] - real.margins) <= found.error[row]).all()
        # What it would be to expect no change.
        assert np.abs(found.now - real.margins).max() > found.error[row].max()
    assert (found.at_risk == (found.margins <= 1)).all()
    assert found.reasons == (None, None)
    assert found.converged.all()


@pytest.mark.parametrize("hidden", [(16,), (24, 16)])
def test_objective_is_at_least_that_of_the_network_itself(hidden):
    for bound, real in zip(predict(hidden).objective, trained(*hidden)[1], strict=True):
        assert real.objective <= bound <= 1.2 * real.objective


def test_a_loss_with_other_terms_is_followed_with_the_widest_bar():
    """And is silent where the terms are not told: the head is at no optimum then."""
    images, digits = some_digits()
    terms = {"label_smoothing": 0.1, "class_margins": [0.1, 0.1, 0.1, 0.4, 0.4]}
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, len(COUNTS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tf.NotConvergedWarning)
        now = continue_at(model, [(images, digits)], weight_decay=DECAY, iterations=250, **terms)
        after = continue_at(
            now.model, [(images, digits)], weight_decay=2 * DECAY, iterations=100, **terms
        )
    body, head = now.model[:-1], now.model[-1]
    with torch.no_grad():
        layer = body(images), digits, head.weight, head.bias
    known = {"weight_decay": DECAY, "at": 2 * DECAY, "layers": 2}
    found = tf.larger_decay(*layer, **known, **terms)
    assert np.abs(found.margins[0] - after.margins).max() < 0.3
    assert np.abs(found.now - after.margins).max() > 0.4
    assert (found.error == 1.0).all()
    assert "training has not ended, or the loss" in tf.larger_decay(*layer, **known).note
    other = tf.larger_decay(*layer, **known, **terms, at_label_smoothing=0)
    assert (other.margins[0] > found.margins[0]).all()


def test_bars_are_those_of_the_kind_of_network():
    low = {"at": [0.3]}
    assert (predict().error == 0.3).all()
    assert (predict(convolutional=True).error == 1.0).all()
    found = predict((24, 16))
    assert set(found.error[found.margins > 1]) == {0.5}
    assert set(predict((24, 16), **low).error.ravel()) == {0.6}
    assert (predict((24, 16), layers=4).error == 1.0).all()
    assert (predict(at=[2e-3]).error == 1.0).all()
    assert (predict(at_class_weights="balanced").error == 1.0).all()
    assert "roughly" in predict((24, 16), layers=4).note
    assert "direction by direction" in found.note


def test_more_classes_than_ten_have_a_wider_bar_with_three_layers():
    labels = np.repeat(np.arange(12), 6)
    features = 3 * np.eye(12)[labels]
    head = tf.heads.fit_head(features, labels, weight_decay=0.01)
    for layers, bar in ((2, 0.3), (3, 1.0)):
        found = tf.larger_decay(
            features, labels, head.weight, head.bias, weight_decay=0.01, at=0.02, layers=layers
        )
        assert (found.error == bar).all()


def test_models_are_those_of_the_kind_of_network():
    # Three layers that are convolutions, and four, are scaled all alike; batch norm is two layers.
    def margins(**options):
        return predict((24, 16), **options).margins

    assert not np.allclose(margins(), margins(convolutional=True))
    assert not np.allclose(margins(convolutional=True), margins(layers=4))
    slow = {"lr": 1e-3, "momentum": 0.0}
    assert np.array_equal(margins(layers=None, batch_norm=True, **slow), margins(layers=2))


def test_own_decay_changes_nothing_in_one_hidden_layer():
    found = predict(at=DECAY)
    assert found.margins.shape == (1, 5)
    np.testing.assert_allclose(found.margins[0], found.now, atol=0.1)


def test_classes_get_closer_to_their_loss_as_it_is_asked_for():
    plain = predict(at=[DECAY]).margins[0]
    balanced = predict(at=[DECAY], at_class_weights="balanced").margins[0]
    adjusted = predict(at=[DECAY], at_logit_adjustment="prior").margins[0]
    assert (balanced[3:] > plain[3:] + 0.2).all()
    assert (adjusted[3:] > plain[3:] + 0.2).all()
    # A network that was trained with weights is not at the optimum without them.
    assert predict(class_weights="balanced").margins is None
    same = predict(at=[DECAY], at_class_weights=None, at_logit_adjustment=None)
    np.testing.assert_array_equal(same.margins[0], plain)


def silent(message, **options):
    found = predict(**options)
    assert found.margins is None
    assert found.error is None
    assert found.at_risk is None
    assert found.objective is None
    assert all(message in reason for reason in found.reasons)
    assert message in found.note
    assert "no prediction" in repr(found)
    return found


def test_it_is_silent_where_no_model_holds():
    silent("a network of 5 layers", layers=5)
    rng = np.random.default_rng(0)
    features, labels = rng.random((80, 4)), np.arange(80) % 40
    many = tf.larger_decay(
        features, labels, rng.normal(size=(40, 4)), None, weight_decay=0.01, at=[0.02], layers=3
    )
    assert many.margins is None
    assert "a network of 40 classes" in many.reasons[0]
    silent("batch norm with AdamW", batch_norm=True, optimizer="adamw")
    silent("lower on these features, at most 1% is safe", weight_decay=2 * DECAY)
    silent("the squared norms of the layers", layer_norms=[2.0, 4.0])
    assert predict(layer_norms=[3.0, 3.5]).margins is not None
    features, digits, weight, bias = last_layer(16)
    shifted = tf.larger_decay(
        features - 0.1, digits, weight, bias, weight_decay=DECAY, at=LARGER, layers=2
    )
    assert "below zero" in shifted.note


def test_what_is_lost_comes_back_by_the_network_only():
    found = lost_network()
    at_smaller, at_larger = found.reasons
    assert "a smaller decay brings classes back that are lost or weak now (cat)" in at_smaller
    assert at_larger is None
    assert np.isnan(found.margins[0]).all()
    assert not found.at_risk[0].any()
    assert not np.isnan(found.margins[1]).any()
    other = lost_network(at=[0.05], at_logit_adjustment="prior")
    assert "another loss brings classes back" in other.note


def lost_network(**options):
    """One hidden layer by hand: of three classes, the small one is taken for a large one."""
    labels = np.repeat(range(3), [60, 60, 4])
    features = np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 2.5, 0.4]])[labels]
    head = tf.heads.fit_head(features, labels, weight_decay=0.05, tol=1e-10)
    options = {"at": [0.01, 0.1]} | options
    return tf.larger_decay(
        features, labels, head.weight, head.bias, weight_decay=0.05, layers=2,
        class_names=["bird", "dog", "cat"], **options,
    )  # fmt: skip


def test_batch_norm_speaks_below_the_angle_that_training_can_follow():
    kind = {"batch_norm": True, "layers": None}
    silent("it depends on lr and momentum", **kind)
    silent("a step turns the weights before a batch norm by 0.14 rad", lr=1.0, at=[1e-2], **kind)
    full = predict(lr=1.0, at=[1e-2], full_batch=True, **kind)
    assert (full.error == 0.6).all()
    assert np.isnan(full.objective).all()
    steps = predict(lr=0.05, momentum=0.9, at=[1e-3, 1e-1], full_batch=True, **kind)
    assert [reason is None for reason in steps.reasons] == [True, False]
    assert "lower lr, or exclude the weights" in steps.reasons[1]


def test_adamw_uses_the_ridge_that_fits_the_head():
    # Its own decay is a number of another kind: only the ratio of the two counts.
    found = predict(weight_decay=2.0, at=[4.0, 16.0], optimizer="adamw")
    same = predict(at=[1e-2, 4e-2])
    np.testing.assert_allclose(found.margins, same.margins, atol=0.1)
    assert (found.error == 1.0).all()
    assert np.isnan(found.objective).all()
    assert "roughly" in found.note
    farther = predict(weight_decay=2.0, at=[16.0, 20.0], optimizer="adamw")
    assert farther.reasons[0] is None
    assert "over a factor of 8 at most, not 10" in farther.reasons[1]
    assert np.isnan(farther.margins[1]).all()


def test_names_absent_classes_and_heads_without_bias():
    labels = np.repeat([0, 1, 3], [30, 20, 5])
    features = 2 * np.eye(4)[labels]
    head = tf.heads.fit_head(features, labels, weight_decay=0.01, num_classes=4, bias=False)
    names = ["a", "b", "c", "d"]
    found = tf.larger_decay(
        features, labels, head.weight, weight_decay=0.01, at=[0.02], layers=2, class_names=names
    )
    assert np.isnan(found.margins[0]).tolist() == [False, False, True, False]
    assert not found.at_risk[0, 2]
    frame = found.to_frame()
    assert frame["name"].tolist() == names
    assert frame["count"].tolist() == [30, 20, 0, 5]


def test_result_has_what_results_have():
    found = predict()
    values = json.loads(json.dumps(found.to_dict()))
    assert np.array(values["margins"]).shape == (2, 5)
    assert values["at_risk"][0] == [False] * 5
    assert values["note"] == found.note
    assert json.loads(json.dumps(predict(layers=5).to_dict()))["margins"] is None
    frame = found.to_frame()
    assert len(frame) == 10
    np.testing.assert_array_equal(frame["margin"], found.margins.ravel())
    assert repr(found).startswith("LargerDecay(at=[0.01, 0.04], at_risk=[")
    console = Console(width=120)
    with console.capture() as captured:
        console.print(found)
    text = captured.get()
    assert "± 0.3" in text
    assert "The best objective is at most" in text
    assert "<table" in found._repr_html_()
    _, axes = found.plot()
    assert axes.get_xlabel() == "weight decay"
    _, axes = predict(layers=5).plot()
    assert not axes.lines


def test_it_repeats_itself():
    np.testing.assert_array_equal(predict().margins, predict().margins)


def test_arguments_out_of_range_are_refused():
    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            predict(**options)

    refused("layers: missing", layers=None)
    refused("layers: got 1", layers=1)
    refused("at: got none", at=[])
    refused("at: got -1", at=-1.0)
    refused("weight_decay: got 0", weight_decay=0.0)
    refused("momentum: got 1", momentum=1.0)
    refused("lr: got -1", lr=-1.0)
    refused("optimizer: got 'adam'", optimizer="adam")
    refused("class_weights", class_weights="no")
    refused("layer_norms: got 0", layer_norms=[0.0, 1.0])
    refused("layer_norms: got 0, need one for each of the 2 layers", layer_norms=[])
    refused("layer_norms: got 3, need one for each of the 2 layers", layer_norms=[1.0, 1.0, 1.0])
    refused("layer_norms: got 1, need one for each of the 2 layers", layer_norms=1.0)
    refused("^at_label_smoothing: got 1.0", at_label_smoothing=1.0)
    refused("^at_class_margins: got 1 numbers", at_class_margins=[1.0])
    refused("^label_smoothing: got -1", label_smoothing=-1)
    refused("^at_class_weights: cannot read 'no'", at_class_weights="no")
    refused("^at_logit_adjustment: got 1 numbers", at_logit_adjustment=[1.0])
