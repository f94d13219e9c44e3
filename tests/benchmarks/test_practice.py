"""The benchmark on ordinary networks: its training on tiny ones, its criteria on made-up ones."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
from benchmarks.practice import __main__ as practice
from benchmarks.practice import criteria, networks
from benchmarks.practice.criteria import Judged
from benchmarks.practice.facts import Facts, facts, margins, read
from benchmarks.practice.networks import Network
from benchmarks.practice.train import Batches, Objective, train
from torch import nn

from tightframe.diagnosis.evidence import evidence

DIGITS = Network("dg10", False, "sgd", 5e-3, 0)


def test_the_table_has_the_54_networks_and_names_are_names():
    assert len(list(networks.table(0))) == 54
    every = networks.plain_networks(2)
    every += [again for network in every for again in networks.retrained(network)]
    assert len({network.file for network in every}) == len(every)


@pytest.mark.parametrize("remedy", [networks.PLAIN, *networks.REMEDIES])
def test_a_record_has_what_the_judge_reads(tmp_path, remedy):
    network = DIGITS.with_remedy(remedy)
    train(network, tmp_path, steps=3)
    record = read(tmp_path, network)
    found = facts(record)
    assert found.counts.tolist() == [100] * 5 + [10] * 5
    assert found.small.tolist() == [False] * 5 + [True] * 5
    assert len(record["held_out_labels"]) == 397
    if remedy == networks.PLAIN:
        logits = record["features"] @ record["weight"].T + record["bias"]
        assert np.array_equal(logits.argmax(1), record["predicted"])
        means = [logits[record["labels"] == k].mean(axis=0) for k in range(10)]
        assert record["mean_logits"] == pytest.approx(np.array(means), rel=1e-4, abs=1e-5)
    before = (tmp_path / network.file).stat().st_mtime_ns
    assert train(network, tmp_path, steps=3) == 0
    assert (tmp_path / network.file).stat().st_mtime_ns == before


def test_the_same_seed_trains_the_same_network(tmp_path):
    found = []
    for part in ("a", "b"):
        train(DIGITS, tmp_path / part, steps=5)
        found.append(read(tmp_path / part, DIGITS)["weight"])
    assert np.array_equal(*found)


def test_remedies_change_the_loss_as_they_say():
    counts = torch.tensor([90.0, 10.0])
    logits, labels = torch.randn(100, 2), torch.tensor([0] * 90 + [1] * 10)
    each = nn.functional.cross_entropy(logits, labels, reduction="none")
    weighted = Objective(DIGITS.with_remedy("balanced weights"), counts, 10)(logits, labels, 0)
    assert weighted.item() == pytest.approx((each[:90].mean() + each[90:].mean()).item() / 2)
    adjusted = Objective(DIGITS.with_remedy("logit adjustment"), counts, 10)(logits, labels, 0)
    moved = logits + torch.tensor([0.9, 0.1]).log()
    assert adjusted.item() == pytest.approx(nn.functional.cross_entropy(moved, labels).item())


def test_batches_are_epochs_and_oversampling_is_balanced():
    labels = torch.tensor([0] * 700 + [1] * 60)
    counts = labels.bincount().float()
    network = dataclasses.replace(DIGITS, data="fm10")
    batches = Batches(network, labels, counts)
    epoch = torch.cat([batches.next() for _ in range(760 // 128)])
    assert len(epoch.unique()) == len(epoch) == 640
    again = Batches(network.with_remedy("oversampling"), labels, counts)
    assert labels[again.indices].bincount().tolist() == [700, 700]
    drawn = Batches(dataclasses.replace(network, extra="sampler"), labels, counts)
    share = torch.cat([labels[drawn.next()] for _ in range(40)]).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.03)  # five standard deviations


def test_margins_are_to_the_largest_other():
    assert margins(np.array([[1.0, 3.0, 0.0], [0.0, 5.0, 1.0], [2.0, 2.0, 2.5]])).tolist() == [
        -2.0,
        4.0,
        0.5,
    ]


# -- criteria on numbers that are made up ----------------------------------------------------------


def judged(network=DIGITS, accuracy=(1.0, 0.2), recall=(0.9, 0.1), recalls=None, **said):
    truth = Facts(np.array([100, 10]), np.array(accuracy), np.array(recall), np.array([3.0, -0.5]))
    plain = {
        "lost_from_moments": [False, True],
        "classes": [
            {"accuracy_state": "distinct", "warning": None},
            {"accuracy_state": "lost", "warning": None},
        ],
        "theory": {"open": False},
        "larger": [],
        "first": "balanced weights",
    }
    after = {name: np.array(found) for name, found in (recalls or {}).items()}
    return Judged(network, truth, plain | said, after)


def test_lost_classes_missed_and_false():
    found = criteria.from_moments("1", [judged()])
    assert (found.figure, found.holds) == ("2 classes, 1 lost: 0 missed, 0 false", True)
    found = criteria.from_moments("1", [judged(lost_from_moments=[True, False])])
    assert (found.figure, found.holds) == ("2 classes, 1 lost: 1 missed, 1 false", False)


def test_a_poor_class_that_passes_for_good_fails():
    assert criteria.poor_classes([judged()]).holds
    good = [{"accuracy_state": "distinct", "warning": None}] * 2
    found = criteria.poor_classes([judged(classes=good)])
    assert (found.figure, found.holds) == ("0 of 1", False)
    warned = [good[0], good[1] | {"warning": "10 samples"}]
    assert criteria.poor_classes([judged(classes=warned)]).holds


@pytest.mark.parametrize(("predicted", "holds"), [([3.1, -0.2], True), ([3.1, 0.2], False)])
def test_the_gate_is_judged_by_the_next_decay(predicted, holds):
    now = judged(theory={"open": True, "at_next": predicted})
    later = [judged(dataclasses.replace(DIGITS, weight_decay=decay)) for decay in (5e-2, 2e-2)]
    assert criteria.next_decay(now, [now, *later]) is later[1]
    assert criteria.gate([now, *later]).holds is holds
    assert criteria.gate(later).holds


@pytest.mark.parametrize(("first", "holds"), [((0.9, 0.5), True), ((0.9, 0.05), False)])
def test_the_first_advice_is_compared_with_the_best_and_with_plain(first, holds):
    row = judged(recalls={"balanced weights": first, "oversampling": (0.9, 0.5)})
    assert criteria.first_advice([row]).holds is holds
    assert criteria.first_advice([judged()]).holds is None


def test_the_promise_and_the_neuron_model():
    kept = judged(recalls={"balanced weights": (0.9, 0.5), criteria.BALANCED_HEAD: (0.9, 0.52)})
    broken = judged(recalls={"balanced weights": (0.9, 0.3), criteria.BALANCED_HEAD: (0.9, 0.52)})
    assert criteria.promise([kept] * 19 + [broken]).holds
    assert not criteria.promise([kept] * 18 + [broken]).holds
    later = judged(dataclasses.replace(DIGITS, weight_decay=2e-2))
    for error, holds in ((0.5, True), (0.7, False)):
        now = judged(larger=[[2e-2, [9.0, -0.5 + error]]])
        assert criteria.neuron_errors([now, later]) == pytest.approx([error])
        assert criteria.neuron_model([now, later]).holds is holds


def test_evidence_is_by_state_and_says_what_the_large_pay():
    lost = judged(recalls={"oversampling": (0.8, 0.5)})
    fine = judged(accuracy=(1.0, 0.9), recalls={"oversampling": (0.9, 0.05)})
    first, second = criteria.evidence([lost, fine])
    assert (first.state, first.remedy, first.networks) == ("some lost", "oversampling", 1)
    assert first.mean_gain == pytest.approx(0.15)
    assert (first.large_mean, first.small_mean) == pytest.approx((-0.1, 0.4))
    assert second.state == "none lost"
    assert second.worst_gain == pytest.approx(-0.025)
    assert second.worst_behind == pytest.approx(0.025)


def test_a_quick_run_trains_judges_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(practice, "QUICK_STEPS", 3)
    asked = ["--only", "sgd 0.005", "--jobs", "1", "--runs", str(tmp_path), "--out", str(tmp_path)]
    assert practice.main(["--quick", *asked]) == 0
    printed = capsys.readouterr().out
    assert "1 lost classes from means and covariances" in printed
    assert "1 the same, reference table" in printed
    with (tmp_path / "practice.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert line["network"] == DIGITS.name
    assert all(line[remedy] for remedy in networks.REMEDIES)
    with (tmp_path / "practice_remedies.csv").open() as file:
        remedies = list(csv.DictReader(file))
    # The library's own table of evidence, to be replaced by this one.
    assert set(vars(next(iter(evidence().values())))) <= set(remedies[0])
    assert {row["networks"] for row in remedies} == {"1"}
    page = (tmp_path / "practice.md").read_text()
    assert page.startswith("# Ordinary networks")
    assert "1 of 1 networks, and 7 of 7 trained again" in page
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "quick").iterdir()}
    assert practice.main(["--quick", *asked]) == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "quick").iterdir()} == before
