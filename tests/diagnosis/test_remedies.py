"""Remedies: their order by state, and what is never advised."""

from pathlib import Path

import numpy as np
import pytest

from tests.diagnosis.conftest import last_layer_of, trained
from tightframe.diagnosis.diagnose import diagnose
from tightframe.diagnosis.evidence import DRAWN_ALIKE, NONE_LOST, SOME_LOST, evidence
from tightframe.diagnosis.head import ADJUSTED, BALANCED, POST_HOC, ask_head
from tightframe.diagnosis.remedies import ADVISED_AGAINST, RANKED, remedies
from tightframe.diagnosis.training import Training
from tightframe.heads import LastLayer


def found(layer, **known):
    training = Training.of(layer, **known)
    head = ask_head(layer, training)
    equal = len(set(layer.counts.tolist())) == 1
    return remedies(head.some_lost, equal, training, head)


def names(answer):
    return [remedy.name for remedy in answer.advised]


def test_the_evidence_is_what_the_benchmark_wrote():
    root = Path(__file__).parents[2]
    written = (root / "benchmarks/results/practice_remedies.csv").read_bytes()
    assert (root / "src/tightframe/diagnosis/evidence.csv").read_bytes() == written


def test_every_ranked_remedy_has_evidence():
    table = evidence()
    for state in (SOME_LOST, NONE_LOST, DRAWN_ALIKE):
        for name in (*RANKED[state], *ADVISED_AGAINST[state]):
            row = table[state, name]
            assert row.networks > 0
            assert row.worst_gain <= row.mean_gain
            assert row.source


def test_with_lost_classes_the_order_is_that_of_the_mean_gains():
    gains = [evidence()[SOME_LOST, name].mean_gain for name in RANKED[SOME_LOST]]
    assert gains == sorted(gains, reverse=True)


@pytest.mark.parametrize("state", [SOME_LOST, NONE_LOST])
def test_every_head_that_is_fitted_here_is_judged(state):
    """A row of the table of heads is advised or advised against."""
    assert {POST_HOC, ADJUSTED, BALANCED} <= {*RANKED[state], *ADVISED_AGAINST[state]}


def test_lost_classes_need_other_features_and_no_post_hoc_adjustment(lost):
    answer = found(lost, weight_decay=5e-2)
    assert answer.state == SOME_LOST
    assert names(answer)[0] == "smaller decay + logit adjustment"
    assert POST_HOC not in names(answer)
    assert [remedy.name for remedy in answer.against] == [POST_HOC]
    assert "0.005" in answer.advised[0].text
    assert "worst -0.334" in answer.against[0].evidence.text


def test_without_lost_classes_the_prior_goes_first(kept):
    answer = found(kept, weight_decay=5e-3)
    assert answer.state == NONE_LOST
    assert names(answer)[0] == POST_HOC
    assert "here: held-out balanced accuracy" in answer.advised[0].note


@pytest.mark.parametrize("known", [{"sampler": "balanced"}, {"class_weights": "balanced"}])
def test_where_the_loss_saw_all_alike_there_is_nothing_to_adjust(kept, known):
    answer = found(kept, **known)
    assert answer.state == DRAWN_ALIKE
    assert names(answer)[0] == "smaller decay + logit adjustment"
    assert "8 networks with a sampler" in answer.advised[0].evidence.text
    assert [remedy.name for remedy in answer.against] == ["logit adjustment"]
    assert "in place of the sampler or class weights" in answer.advised[0].text
    assert not {POST_HOC, "balanced weights", "oversampling"} & set(names(answer))


def test_what_the_loss_has_already_is_not_advised(kept):
    answer = found(kept, logit_adjustment="prior")
    assert not {POST_HOC, "logit adjustment"} & set(names(answer))
    weights = next(r for r in answer.advised if r.name == "balanced weights")
    assert "in place of the present logit adjustment" in weights.text


def test_without_a_decay_there_is_none_to_lower(kept, lost):
    for layer in (kept, lost):
        given = names(found(layer, weight_decay=0))
        known = names(found(layer))
        assert given == [name for name in known if "decay" not in name]
        assert given != known


def test_equal_counts_leave_the_decay():
    labels = np.repeat([0, 1, 2], 20)
    x = np.eye(3)[labels] + 0.1 * np.random.default_rng(0).normal(size=(60, 3))
    assert names(found(LastLayer.of(x, labels, np.eye(3)))) == ["smaller decay"]
    swapped = found(LastLayer.of(x, labels, np.eye(3)[[1, 0, 2]]))
    assert names(swapped) == ["smaller decay"]
    assert swapped.state == SOME_LOST


def test_a_harmful_head_is_not_advised():
    labels = np.repeat([0, 1], [100, 5])
    x = np.where(labels == 0, 0.5, -0.5)[:, None]
    answer = found(LastLayer.of(x, labels, [[1.0], [-1.0]]))
    assert answer.state == NONE_LOST
    assert POST_HOC not in names(answer)
    assert "harmful" in next(r for r in answer.against if r.name == POST_HOC).note
    # Held-out samples may gain by it: the note says which samples the word is of.
    rare = (np.full((9, 1), 0.01), np.ones(9, dtype=int))
    told = found(LastLayer.of(x, labels, [[1.0], [-1.0]], held_out=rare))
    note = next(r for r in told.against if r.name == POST_HOC).note
    assert "held-out balanced accuracy 0.000 -> 1.000" in note
    assert "harmful on training samples, balanced accuracy 1.000 -> " in note


@pytest.mark.parametrize("weight_decay", [5e-4, 5e-3])
def test_of_an_unfinished_training_the_first_advice_is_to_finish_it(weight_decay):
    layer = last_layer_of(trained(weight_decay, steps=10))
    found = diagnose(layer, weight_decay=weight_decay)
    assert found.classes.lost
    first = found.remedies.first
    assert first.startswith("First train to the end, then ask again: training is not finished")
    assert found.warnings[0] == found.to_dict()["remedies"]["first"] == first
    blocks = list(found.blocks())
    assert blocks[blocks.index("\nWhat to do") + 1] == first


def test_of_a_finished_training_nothing_comes_first(lost, kept):
    for layer, weight_decay in ((lost, 5e-2), (kept, 5e-3), (kept, None)):
        found = diagnose(layer, weight_decay=weight_decay)
        assert found.remedies.first == ""
        assert not any(warning.startswith("First") for warning in found.warnings)


def test_a_head_that_is_off_without_growing_is_asked_about(kept):
    """A loss of larger margins than its own may be label smoothing, or an early end."""
    layer = LastLayer.of(kept.features, kept.labels, 2 * kept.weight, 2 * kept.bias)
    found = diagnose(layer, weight_decay=5e-3).remedies.first
    assert found.startswith("First see whether training has ended")
    assert diagnose(layer, weight_decay=5e-3, optimizer="adamw").remedies.first == ""
