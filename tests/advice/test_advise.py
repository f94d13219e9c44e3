"""The adviser: every proposal is verified here by problems built and solved apart from it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.reference import ufm
from tightframe.advice.prediction import describe, outlook
from tightframe.advice.proposals import MAX_TEMPERATURE
from tightframe.geometry.states import STATES
from tightframe.problem.counts import parse_counts

STEP = tf.Problem("500x5,100x5", weight_decay=1e-2, feature_decay=2e-3)


def dense_margins(solution):
    """Return own minus largest other logit of every class, by the definition."""
    scores = solution.logits + solution.bias[:, None]
    rivals = scores.copy()
    np.fill_diagonal(rivals, -np.inf)
    return np.diagonal(scores) - rivals.max(axis=0)


def dense_angle(solution):
    """Return the smallest angle between any two classifier rows, in degrees."""
    gram = solution.geometry.classifier
    lengths = np.sqrt(np.diagonal(gram))
    if not lengths.min() > 0:
        return 0.0
    # Rounding may take a cosine past -1 (of two classes) as well as past 1.
    cosines = np.clip(gram / np.outer(lengths, lengths), -1.0, 1.0)
    return math.degrees(math.acos(cosines[~np.eye(len(gram), dtype=bool)].max()))


@st.composite
def problems(draw):
    counts = draw(st.lists(st.integers(1, 60), min_size=2, max_size=6))
    bias = draw(st.sampled_from(["none", "free", "decayed"]))
    features = draw(st.sampled_from(["real", "nonnegative"])) if bias == "none" else "real"
    loss = (
        draw(st.sampled_from(["cross_entropy", "mse"])) if features == "real" else "cross_entropy"
    )
    return tf.Problem(
        counts,
        loss,
        weight_decay=10 ** draw(st.floats(-3, -0.5)),
        feature_decay=10 ** draw(st.floats(-3, -0.5)),
        bias=bias,
        bias_decay=0.05 if bias == "decayed" else None,
        features=features,
    )


# -- reading a solution ----------------------------------------------------------------------------


@given(problems())
def test_an_outlook_is_what_the_dense_solution_says(problem):
    solution = tf.solve(problem)
    found = outlook(solution)
    margins = dense_margins(solution)
    assert np.allclose(
        solution.group_states.decision_margin[problem.class_groups], margins, atol=1e-9
    )
    assert found.margin == pytest.approx(margins.min(), abs=1e-9)
    # Half an arc cosine's digits are lost near zero.
    assert found.angle == pytest.approx(dense_angle(solution), abs=1e-4)
    norms = (
        np.linalg.norm(solution.weights[0], axis=1),
        np.linalg.norm(solution.class_means, axis=0),
    )
    for k, g in enumerate(problem.class_groups):
        group = found.groups[g]
        assert group.classifier_norm == pytest.approx(norms[0][k], rel=1e-5, abs=1e-7)
        assert group.mean_norm == pytest.approx(norms[1][k], rel=1e-5, abs=1e-7)
        assert (group.state in ("merged", "vanished")) == solution.collapsed[k]
        assert group.state in STATES
    assert found.distinct == (not solution.collapsed.any() and margins.min() > 0)
    json.dumps(found.to_dict(), allow_nan=False)


def test_groups_are_named_with_what_sets_them_apart():
    problem = STEP.replace(class_weights="1x5,2.5x5", logit_adjustment="0x5,-1x5")
    names = [describe(group) for group in outlook(tf.solve(problem)).groups]
    assert names == [
        "5 classes of 500 samples",
        "5 classes of 100 samples with weight 2.5 and adjustment -1",
    ]


# -- safety ----------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(problems())
def test_a_group_collapses_where_its_safety_says(problem):
    advice = tf.advise(problem)
    for i, safety in enumerate(advice.safety):
        assert safety.factor == pytest.approx(safety.logit_decay / problem.logit_decay)
        # Nearer a solver may not tell the sides apart.
        slack = 1e-6 if safety.by == "theorem" else 1e-4
        for factor, distinct in ((1 - slack, True), (1 + slack, False)):
            scale = factor * safety.factor
            solution = tf.solve(
                problem.replace(
                    weight_decay=problem.weight_decays[0] * scale,
                    feature_decay=problem.feature_decay * scale,
                )
            )
            state = outlook(solution).groups[i].state
            assert (state == "distinct") == distinct


def test_many_groups_are_followed_along_a_path(monkeypatch):
    problem = tf.Problem(
        [500, 400, 300, 200, 150, 100, 80, 50, 30, 10], weight_decay=0.01, feature_decay=0.002
    )
    exact = tf.advise(problem)
    monkeypatch.setattr("tightframe.advice.safety.FEW_GROUPS", 9)
    rough = tf.advise(problem)
    assert {safety.by for safety in exact.safety} == {"changes"}
    assert {safety.by for safety in rough.safety} == {"path"}
    places = [[safety.logit_decay for safety in found.safety] for found in (exact, rough)]
    assert places[0] == pytest.approx(places[1], rel=0.01)
    assert exact.largest_decay == pytest.approx(rough.largest_decay, rel=0.01)


def test_safety_is_told_from_the_next_change():
    """The class of 3 samples is lost for a while, then distinct again, and vanishes at last."""
    base = tf.Problem(
        "6,4x3,3",
        weight_decay=1,
        feature_decay=1,
        class_weights="0.36,4.45x3,0.37",
        logit_adjustment="-0.32*prior",
    )
    changes = tf.state_changes(base).of_group(2)
    assert [c.after for c in changes[:2]] == ["lost", "distinct"]
    lost, back, again = (c.logit_decay for c in changes[:3])
    for decay, place in ((lost * 0.9, lost), (lost * 1.01, lost), (back * 1.01, again)):
        found = tf.advise(base.replace(weight_decay=decay, feature_decay=decay))
        assert found.safety[2].logit_decay == pytest.approx(place, rel=1e-9)
        assert found.largest_decay <= lost * (1 + 1e-9)


def test_the_theorem_is_named_where_it_decides():
    advice = tf.advise(STEP)
    limits = [group.logit_decay for group in tf.thresholds(STEP).groups]
    assert [safety.logit_decay for safety in advice.safety] == limits
    assert {safety.by for safety in advice.safety} == {"theorem"}
    assert advice.largest_decay == limits[1]
    (warning,) = advice.warnings
    assert warning.startswith("5 classes of 100 samples merge")


# -- proposals -------------------------------------------------------------------------------------


def apply(problem, proposal, feature_decay_of):
    """Make the proposal's problem from its numbers alone."""
    changes = dict(proposal.changes)
    if proposal.kind == "decay":
        return problem.replace(weight_decay=changes["weight_decay"])
    if "oversample" in changes:
        factors = [f for f, n in parse_counts(changes["oversample"]) for _ in range(n)]
        changed = problem.replace(counts=problem.counts * np.array(factors))
        if feature_decay_of == "mean":
            share = problem.num_samples / changed.num_samples
            changed = changed.replace(feature_decay=problem.feature_decay * share)
        return changed
    return problem.replace(**changes)


@pytest.mark.parametrize(
    ("counts", "decay", "options"),
    [
        ("500x5,100x5", 3.4e-3, {}),
        ("500x5,100x5", 3.2e-3, {"label_smoothing": 0.15}),
        ("500x5,100x5", 2.5e-3, {"logit_scale": "1x5,.7x5", "bias": "free"}),
        ("500x5,100x5", 2e-3, {"feature_weights": "500x5,400x5"}),
        ("100x6", 1.2e-2, {"logit_scale": "1x3,.5x3", "class_margins": ".1x3,.2x3"}),
    ],
)
def test_terms_of_the_loss_are_proposed_with_what_they_do_to_merging(counts, decay, options):
    problem = tf.Problem(counts, weight_decay=decay, feature_decay=decay, **options)
    before = tf.thresholds(problem).groups
    kinds = {"label_smoothing", "class_margins", "logit_scale", "feature_weights"}
    made = 0
    for proposal in tf.advise(problem, margin=0.2).proposals:
        if proposal.kind not in kinds:
            continue
        kinds.remove(proposal.kind)
        if proposal.problem is None:
            assert "not" in proposal.text
            continue
        made += 1
        changed = apply(problem, proposal, "sample")
        assert changed == proposal.problem
        solution = tf.solve(changed)
        assert 0.2 - 1e-6 <= dense_margins(solution).min() < 0.25
        for group, place in enumerate(proposal.merges):
            # In none of them do classes merge earlier than as it is.
            factor = place / before[group].logit_decay
            assert factor == pytest.approx(proposal.factors[group], rel=1e-6)
            assert factor > 1 - 1e-6
            below, above = (
                tf.solve(changed.replace(weight_decay=place * f, feature_decay=place * f))
                for f in (0.999, 1.001)
            )
            members = problem.class_groups == group
            assert (below.margins[members] > 0).all()
            assert (above.group_states.sibling_margin[changed.class_groups[members]] == 0).all()
        assert "times the decay" in proposal.text
    assert not kinds
    assert made


def test_what_lets_classes_merge_earlier_is_warned_of_and_not_proposed():
    found = {p.kind: p for p in tf.advise(STEP).proposals}
    assert found["label_smoothing"].problem is None
    assert "all classes merge at 1 - label_smoothing of the decay" in found["label_smoothing"].text
    (cdt,) = (remedy for remedy in tf.advise(STEP).remedies if "CDT:" in remedy.text)
    said = f"Scaled down, as CDT does, they merge earlier: at {cdt.factors[1]:.3g} of the decay."
    assert found["logit_scale"].text.endswith(said)


@settings(max_examples=12)
@given(problems(), st.sampled_from(["sample", "mean"]), st.booleans())
def test_proposals_do_what_they_say(problem, feature_decay_of, by_angle):
    wanted = {"angle": 40.0} if by_angle else {"margin": 0.3}
    advice = tf.advise(problem, feature_decay_of=feature_decay_of, **wanted)
    met = dense_angle(tf.solve(problem)) >= 40 if by_angle else advice.now.margin >= 0.3
    assert advice.met == (met and advice.now.distinct)
    assert bool(advice.proposals) != advice.met
    for proposal in advice.proposals:
        if proposal.problem is None:
            assert proposal.after is None
            continue
        solution = tf.solve(apply(problem, proposal, feature_decay_of))
        assert solution.objective == pytest.approx(proposal.after.objective, rel=1e-7)
        assert proposal.after.gap <= 1e-8 * proposal.after.objective
        if by_angle:
            assert dense_angle(solution) >= 40 - 1e-4
        else:
            assert dense_margins(solution).min() >= 0.3 - 1e-6
    json.dumps(advice.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("counts", "options"),
    [
        ("60x2,10x2", {"bias": "free"}),
        ("60,30,12", {"bias": "decayed", "bias_decay": 0.05, "class_weights": "1,2,1"}),
        ("60x2,10x2", {"logit_adjustment": "0.2*prior"}),
        ("60,20x2", {"bias": "decayed", "bias_decay": 0.5, "loss": "mse"}),
        ("40x2,10x2", {}),
    ],
)
def test_relu_features_get_advice_that_direct_solves_agree_with(counts, options):
    problem = tf.Problem(
        counts, weight_decay=0.06, feature_decay=0.015, features="nonnegative", **options
    )
    advice = tf.advise(problem)
    margin = advice.wanted.margin
    made = [proposal for proposal in advice.proposals if proposal.problem is not None]
    assert "decay" in {proposal.kind for proposal in made}
    for proposal in made:
        changed = apply(problem, proposal, "sample")
        value, weights, means, bias = ufm.multistart(changed, changed.num_classes + 2, starts=12)
        assert proposal.after.objective == pytest.approx(value, rel=1e-7)
        assert 0 <= proposal.after.gap <= 1e-8 * value
        scores = weights[0] @ means + (0 if bias is None else bias[:, None])
        own = np.diagonal(scores).copy()
        np.fill_diagonal(scores, -np.inf)
        margins = own - scores.max(axis=0)
        assert margins.min() >= margin - 1e-4
        for k, group in enumerate(problem.class_groups):
            found = proposal.after.groups[group]
            assert found.decision_margin == pytest.approx(margins[k], abs=1e-3)
            assert found.mean_norm == pytest.approx(np.linalg.norm(means[:, k]), rel=1e-3)
            assert found.classifier_norm == pytest.approx(np.linalg.norm(weights[0][k]), rel=1e-3)
    for i, safety in enumerate(advice.safety):
        for side, distinct in ((1 - 1e-3, True), (1 + 1e-3, False)):
            scale = side * safety.factor
            at = problem.replace(weight_decay=0.06 * scale, feature_decay=0.015 * scale)
            assert (outlook(tf.solve(at)).groups[i].state == "distinct") == distinct
    json.dumps(advice.to_dict(), allow_nan=False)


def test_logit_adjustment_of_relu_features_moves_where_classes_vanish():
    problem = tf.Problem("40x2,10x2", weight_decay=0.03, feature_decay=0.03, features="nonnegative")
    vanished = tf.solve(problem).class_means[:, 2:]
    adjusted = problem.replace(logit_adjustment="prior")
    assert np.abs(vanished).max() == 0 < np.abs(ufm.multistart(adjusted, 6)[2][:, 2:]).max()
    proposal = {p.kind: p for p in tf.advise(problem, margin=0.05).proposals}["logit_adjustment"]
    assert proposal.problem is not None


def test_solves_without_a_certificate_do_not_count(monkeypatch):
    problem = tf.Problem(
        "60,20x2", weight_decay=0.05, feature_decay=0.02, bias="free", features="nonnegative"
    )

    def solve(changed, tol):
        found = tf.solve(changed, tol)
        return found if changed == problem else replace(found, lower_bound=None)

    monkeypatch.setattr("tightframe.advice.proposals.solve", solve)
    for proposal in tf.advise(problem, margin=5).proposals[:3]:
        assert proposal.problem is None
        assert proposal.text.endswith(
            "Some solves on the way were not certified, and do not count."
        )
    with pytest.raises(ValueError, match="problem: non-negative features with cross_entropy"):
        tf.advise(problem.replace(weight_decay=0.01))


def test_the_decay_is_the_largest_that_does():
    proposal = tf.advise(STEP, margin=1).proposals[0]
    for factor, enough in ((1.0, True), (1.01, False)):
        decay = proposal.changes["weight_decay"] * factor
        assert (dense_margins(tf.solve(STEP.replace(weight_decay=decay))).min() >= 1) == enough
    other = STEP.replace(feature_decay=proposal.changes["feature_decay"])
    assert tf.solve(other).margins == pytest.approx(tf.solve(proposal.problem).margins, abs=1e-5)


@pytest.mark.parametrize("counts", ["500x5,100x5", "500,300,200,100,50,20,10"])
def test_no_factor_of_oversampling_can_be_lowered(counts):
    problem = STEP.replace(counts=counts)
    advice = tf.advise(problem, feature_decay_of="mean")
    proposal = advice.proposals[1]
    runs = parse_counts(proposal.changes["oversample"])
    factors = np.repeat([f for f, _ in runs], [n for _, n in runs])
    groups = problem.class_groups
    for g in range(len(problem.groups)):
        fewer = factors - (groups == g)
        if fewer.min() < 1:
            continue
        changed = problem.replace(counts=problem.counts * fewer)
        share = problem.num_samples / changed.num_samples
        changed = changed.replace(feature_decay=problem.feature_decay * share)
        assert outlook(tf.solve(changed)).margin < 1


def test_class_weights_are_those_of_a_weighted_mean():
    """So that they can be handed to PyTorch's CrossEntropyLoss as they are."""
    proposal = tf.advise(STEP).proposals[2]
    weights = proposal.problem.class_weights
    assert STEP.counts @ weights == pytest.approx(STEP.num_samples)
    given_to_torch = tf.Problem.from_weighted_mean(
        STEP.compact_counts,
        class_weights=weights,
        weight_decay=STEP.weight_decay,
        feature_decay=STEP.feature_decay,
    )
    assert tf.solve(given_to_torch).margins.min() == pytest.approx(proposal.after.margin, abs=1e-5)


def test_logit_adjustment_helps_where_it_can():
    problem = tf.Problem("500,300,100,50,20", weight_decay=2e-3, feature_decay=1e-3)
    advice = tf.advise(problem, margin=advice_margin(problem) + 0.2)
    proposal = {p.kind: p for p in advice.proposals}["logit_adjustment"]
    factor = float(proposal.changes["logit_adjustment"].partition("*")[0])
    assert 0 < factor < MAX_TEMPERATURE
    # At test time nothing is added: margins of the plain logits have grown.
    solution = tf.solve(problem.replace(logit_adjustment=proposal.changes["logit_adjustment"]))
    assert dense_margins(solution).min() >= advice_margin(problem) + 0.2 - 1e-6


def advice_margin(problem):
    return dense_margins(tf.solve(problem)).min()


def test_logit_adjustment_is_not_offered_where_it_cannot():
    said = {p.kind: p.text for p in tf.advise(STEP).proposals}["logit_adjustment"]
    assert "does not move the thresholds" in said
    said = {p.kind: p.text for p in tf.advise(STEP.replace(bias="free")).proposals}
    assert "a free bias takes it up" in said["logit_adjustment"]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_plain_remedies_are_shown_whatever_they_do(loss):
    problem = STEP.replace(loss=loss)
    oversampled, *weighted = tf.advise(problem, feature_decay_of="mean").plain_remedies
    share = problem.num_samples / 5000
    balanced = problem.replace(counts="500x10", feature_decay=problem.feature_decay * share)
    assert oversampled.changes == {"oversample": "balance"}
    margin = dense_margins(tf.solve(balanced)).min()
    assert oversampled.after.margin == pytest.approx(margin, abs=1e-6)
    assert len(weighted) == (loss == "cross_entropy")
    for remedy in weighted:
        solution = tf.solve(problem.replace(**remedy.changes))
        assert remedy.after.margin == pytest.approx(dense_margins(solution).min(), abs=1e-6)
    assert tf.advise(problem.replace(counts="500x10")).plain_remedies == ()


def test_what_cannot_be_had_is_said():
    small = STEP.replace(counts="500x5,5x5")
    advice = tf.advise(small, angle=85)  # SELI's minority classifiers are closer than that
    assert advice.proposals[0].problem is None
    assert "even as they vanish" in advice.proposals[0].text


def test_more_data_with_the_decay_of_the_mean_changes_nothing():
    """Counts and N grow alike, and sqrt(n) lambda with a share of the decay as before."""
    advice = tf.advise(STEP, feature_decay_of="mean")
    for times, found in advice.more_data:
        assert found.margin == pytest.approx(advice.now.margin, abs=1e-6)
        assert found.groups[0].count == 500 * times
    by_sample = tf.advise(STEP).more_data[1][1]
    assert by_sample.groups[0].margin < advice.now.groups[0].margin


def test_a_million_classes_get_advice():
    problem = tf.Problem("1000x400000,10x600000", weight_decay=1e-6, feature_decay=1e-9)
    advice = tf.advise(problem)
    assert [group.state for group in advice.now.groups] == ["distinct", "vanished"]
    assert all(p.after.margin >= 1 for p in advice.proposals if p.after is not None)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"depth": 2}, {}, "problem: advice needs certified solves.*depth 2"),
        ({"dim": 3}, {}, "problem: advice needs certified solves.*dim 3"),
        ({"features": "nonnegative", "bias": "free", "depth": 2}, {}, "problem: .*depth 2"),
        ({"features": "nonnegative", "bias": "free", "dim": 9}, {}, "problem: .*dim 9"),
        ({}, {"margin": 1, "angle": 30}, "margin, angle: got both"),
        ({}, {"margin": -1}, "margin: got -1"),
        ({}, {"margin": math.nan}, "margin: got nan"),
        ({}, {"angle": 90}, "angle: got 90, need less than 90"),
        ({"loss": "mse"}, {"margin": 1.0}, "margin: got 1, MSE needs less than 1"),
        ({}, {"feature_decay_of": "batch"}, "feature_decay_of: got 'batch', allowed are"),
        ({}, {"tol": 0}, "tol: got 0"),
    ],
)
def test_bad_arguments_are_named(changes, arguments, message):
    with pytest.raises(ValueError, match=message):
        tf.advise(STEP.replace(**changes), **arguments)


def test_a_problem_is_needed():
    with pytest.raises(ValueError, match="problem: got str"):
        tf.advise("500x5,100x5")


def test_a_bias_does_not_hide_that_classes_vanish():
    """The rarest class of three keeps a positive decision margin by its bias alone."""
    problem = tf.Problem(
        "3x2,2,1", bias="free", logit_adjustment="2.15*prior", weight_decay=1e-2, feature_decay=1e-2
    )
    vanishes = tf.thresholds(problem).groups[2].vanishes
    safety = tf.advise(problem).safety[2]
    assert vanishes == pytest.approx(0.16673, abs=1e-5)
    assert safety.logit_decay == pytest.approx(vanishes, rel=1e-9)
    beyond = problem.replace(weight_decay=0.18, feature_decay=0.18)
    group = tf.advise(beyond).now.groups[2]
    assert (group.state, group.decision_margin > 0) == ("vanished", True)
    assert tf.advise(beyond).safety[2].factor < 1


def test_a_lost_class_is_told_with_its_taker():
    problem = tf.Problem(
        [500, 400, 300, 200, 150, 100, 80, 50, 30, 10], weight_decay=0.01, feature_decay=0.002
    )
    first = tf.advise(problem).warnings[0]
    assert first.startswith("1 class of 50 samples is lost: taken for a class of 80 samples (")


def test_a_sweep_may_solve_where_it_has_interpolated():
    """Was a KeyError: an interpolated point became the end of a stretch."""
    problem = tf.Problem(
        "371881134311x46,258x2,1x50308524",
        weight_decay=6.049082396173325e22,
        feature_decay=0.04039895271362134,
        class_weights="0.002440031166687077x50308572",
    )
    advice = tf.advise(problem)
    assert [safety.factor < 1 for safety in advice.safety] == [True] * 3
    # Copies of the small classes up to the largest count are more samples than float64 counts.
    assert [proposal.kind for proposal in advice.plain_remedies] == ["balanced_weights"]
    assert [times for times, _ in advice.more_data] == [2, 10]


def test_nothing_has_the_size_of_the_number_of_classes(monkeypatch):
    def refused(self):
        raise AssertionError("classes were listed one by one")

    for name in ("counts", "class_groups", "class_weights", "logit_adjustment"):
        monkeypatch.setattr(tf.Problem, name, property(refused))
    problem = tf.Problem("76x244,4x224385277", weight_decay=5e-4, feature_decay=5e-6)
    advice = tf.advise(problem)
    assert len(advice.proposals) == 8
    weighted = tf.Problem.from_weighted_mean(
        "76x244,4x224385277",
        class_weights="1x244,5x224385277",
        weight_decay=5e-4,
        feature_decay=5e-6,
    )
    samples = 76 * 244 + 4 * 224385277
    assert weighted.group_weights[1] == pytest.approx(5 * samples / (samples + 16 * 224385277))


def test_states_that_rounding_hides_are_no_error():
    """Labels that are even but for 1e-12: no change of a group's state is found."""
    problem = tf.Problem(
        "12x2,5x2,3", label_smoothing=1 - 1e-12, weight_decay=1e-3, feature_decay=1e-3
    )
    assert tf.advise(problem).warnings
