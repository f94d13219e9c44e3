"""What the loss saw: by hand, and what is refused."""

import numpy as np
import pytest

from tightframe.diagnosis.training import Training
from tightframe.heads import LastLayer

COUNTS = np.array([80, 15, 5])


def layer(counts=COUNTS, classes=3):
    labels = np.repeat(np.arange(len(counts)), counts)
    return LastLayer.of(np.ones((len(labels), 2)), labels, np.ones((classes, 2)))


def test_nothing_known_is_the_natural_prior():
    found = Training.of(layer())
    assert np.exp(found.prior) == pytest.approx([0.8, 0.15, 0.05])
    assert found.post_hoc == pytest.approx([0, np.log(80 / 15), np.log(80 / 5)])
    assert found.natural
    assert not found.is_flat


@pytest.mark.parametrize(
    "known",
    [
        {"sampler": "balanced"},
        {"sampler": [1, 1, 1]},
        {"class_weights": "balanced"},
        {"class_weights": 7 / COUNTS},
        {"logit_adjustment": "prior"},
        {"logit_adjustment": np.log(COUNTS) + 3},
    ],
)
def test_what_makes_up_for_the_counts_leaves_nothing_to_adjust(known):
    assert Training.of(layer(), **known).is_flat


def test_sampler_weights_and_adjustment_add_up():
    known = {"sampler": [2, 1, 1], "class_weights": [1, 2, 4], "logit_adjustment": [0.5, 0, 0]}
    found = Training.of(layer(), **known)
    seen = np.array([2 * 1, 1 * 2, 1 * 4])
    assert np.exp(found.prior) == pytest.approx(seen / seen.sum())
    shift = np.array([0.5, 0, 0]) - np.log(seen)
    assert found.post_hoc == pytest.approx(shift - shift.min())
    assert found.weights[layer().labels].mean() == pytest.approx(1)
    assert not found.natural


def test_the_decay_of_adamw_is_no_ridge():
    assert Training.of(layer(), weight_decay=0.1).ridge == 0.1
    assert Training.of(layer(), weight_decay=0.1, optimizer="adamw").ridge is None
    assert Training.of(layer(), weight_decay=0).ridge is None


def test_classes_without_samples_count_as_one_sample():
    found = Training.of(layer(np.array([80, 15]), classes=3))
    assert np.exp(found.prior) == pytest.approx(np.array([80, 15, 1]) / 96)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"sampler": "natural"}, "sampler: cannot read 'natural'.*'balanced' or"),
        ({"sampler": [1, 0, 1]}, "sampler: got 0, need 'balanced' or a positive share"),
        ({"sampler": [1, 1]}, "sampler: got 2 numbers for 3 classes"),
        ({"optimizer": "lion"}, "optimizer: got 'lion', allowed are sgd, adamw"),
        ({"weight_decay": -1}, "weight_decay: got -1, need a finite number from 0"),
        ({"weight_decay": "0"}, "weight_decay: got '0', need a number from 0"),
    ],
)
def test_bad_input_is_named(known, message):
    with pytest.raises(ValueError, match=message):
        Training.of(layer(), **known)
