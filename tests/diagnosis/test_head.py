"""What heads do: against scikit-learn's, plain counting, and a head that is at its optimum."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score

import tightframe as tf
from tightframe.diagnosis.diagnose import diagnose
from tightframe.diagnosis.head import ADJUSTED, AS_IT_IS, BALANCED, POST_HOC, ask_head
from tightframe.diagnosis.training import Training
from tightframe.heads import LastLayer, fit_head


def ask(layer, **known):
    return ask_head(layer, Training.of(layer, **known))


def test_rows_are_those_of_other_libraries(lost):
    answer = ask(lost, weight_decay=5e-2)
    x, y = lost.held_out
    columns = np.column_stack([lost.features, np.ones(len(lost.labels))])
    peer = LogisticRegression(
        C=1 / (5e-3 * len(columns)),
        class_weight="balanced",
        fit_intercept=False,
        tol=1e-8,
        max_iter=10_000,
    ).fit(columns, lost.labels)
    theirs = peer.predict(np.column_stack([x, np.ones(len(x))]))
    own = answer.row(BALANCED).held_out
    assert own.balanced == pytest.approx(balanced_accuracy_score(y, theirs), abs=0.01)
    adjusted = lost.logits(x) - np.log(lost.counts)
    recalls = recall_score(y, adjusted.argmax(1), average=None)
    assert answer.row(POST_HOC).held_out.recalls == pytest.approx(recalls)
    plain = balanced_accuracy_score(lost.labels, lost.logits().argmax(1))
    assert answer.row(AS_IT_IS).training.balanced == pytest.approx(plain)
    assert answer.row(AS_IT_IS).large == pytest.approx(
        recall_score(y, lost.logits(x).argmax(1), average=None)[:5].mean()
    )
    assert [row.name for row in answer.rows] == [AS_IT_IS, POST_HOC, ADJUSTED, BALANCED]


def test_a_lost_class_comes_back_with_a_balanced_head(lost):
    answer = ask(lost, weight_decay=5e-2)
    assert answer.some_lost
    now, balanced = answer.row(AS_IT_IS).training, answer.row(BALANCED).training
    assert (now.recalls[5:] < 0.1).all()
    assert balanced.recalls[answer.separable].min() >= 0.5
    assert balanced.balanced > now.balanced + 0.1
    assert "Classes are lost" in answer.caption


def test_a_trained_head_is_at_its_optimum_and_a_shrunk_one_is_not(lost):
    answer = ask(lost, weight_decay=5e-2)
    assert answer.suboptimality < 0.01
    assert answer.bias == "decayed"
    assert answer.fitted_ridge == pytest.approx(5e-2, rel=0.05)
    assert "trained to the end" in answer.verdict
    held = {"held_out": lost.held_out}
    half = LastLayer.of(lost.features, lost.labels, 0.8 * lost.weight, lost.bias, **held)
    assert "nearly" in ask(half, weight_decay=5e-2).verdict
    none = LastLayer.of(lost.features, lost.labels, -lost.weight, lost.bias)
    answer = ask(none)
    assert answer.suboptimality is None
    assert "No ridge fits the head" in answer.verdict
    answer = ask(none, weight_decay=5e-2)
    assert "not at an optimum of cross-entropy and ridge" in answer.verdict


def test_the_excess_is_that_over_the_best_head(lost):
    """The best by `fit_head`, whose ridge is on the bias too, as in this training."""
    best = fit_head(lost.features, lost.labels, weight_decay=5e-2, tol=1e-10)
    layer = LastLayer.of(lost.features, lost.labels, 0.8 * lost.weight, lost.bias)
    logits = layer.logits()
    own = logits[np.arange(len(logits)), layer.labels]
    loss = (np.log(np.exp(logits).sum(1)) - own).mean()
    objective = loss + 5e-2 / 2 * ((layer.weight**2).sum() + (layer.bias**2).sum())
    answer = ask(layer, weight_decay=5e-2)
    assert answer.bias == "decayed"
    assert answer.suboptimality == pytest.approx(1 - best.objective / objective, abs=2e-4)
    assert answer.suboptimality > 0.01


def test_without_lost_classes_the_rows_predict(kept):
    answer = ask(kept, weight_decay=5e-3)
    assert not answer.some_lost
    assert "within about .01" in answer.caption


def test_a_free_bias_is_seen():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [150, 10])
    x = rng.normal(size=(160, 2)) + np.eye(2)[labels]
    # Almost no ridge on the bias: a large column in its place.
    columns = np.column_stack([x, np.full(160, 100.0)])
    head = fit_head(columns, labels, weight_decay=0.1, bias=False, tol=1e-12)
    layer = LastLayer.of(x, labels, head.weight[:, :2], 100 * head.weight[:, 2])
    answer = ask(layer, weight_decay=0.1)
    assert answer.bias == "free"
    assert answer.suboptimality < 1e-3


def test_a_head_that_makes_things_worse_is_marked():
    """Logits without any overconfidence on the large class: an adjustment takes its samples."""
    labels = np.repeat([0, 1], [100, 5])
    x = np.where(labels == 0, 0.5, -0.5)[:, None]
    layer = LastLayer.of(x, labels, [[1.0], [-1.0]])
    row = ask(layer, weight_decay=1e-3).row(POST_HOC)
    assert row.harmful
    assert row.costs == (0,)


def test_equal_counts_leave_the_balanced_head_only():
    labels = np.repeat([0, 1], 20)
    layer = LastLayer.of(np.eye(2)[labels], labels, np.eye(2))
    assert [row.name for row in ask(layer).rows] == [AS_IT_IS, BALANCED]


def test_huge_heads_are_not_fitted(kept, monkeypatch):
    monkeypatch.setattr("tightframe.diagnosis.head.MOST_ENTRIES", 100)
    answer = ask(kept)
    assert [row.name for row in answer.rows] == [AS_IT_IS, POST_HOC]
    assert answer.separable is None
    assert "no others were fitted" in answer.verdict


def test_a_fit_has_a_budget(kept, monkeypatch):
    """Too little for a start, and too little to tell."""
    work = len(kept.labels) * kept.weight.size
    monkeypatch.setattr("tightframe.diagnosis.head.MOST_WORK", 24 * work)
    assert "no others were fitted" in ask(kept).verdict
    monkeypatch.setattr("tightframe.diagnosis.head.FEWEST_EVALUATIONS", 1)
    monkeypatch.setattr("tightframe.diagnosis.head.MOST_WORK", 2 * work)
    answer = ask(kept)
    assert answer.suboptimality is None
    assert "could not be told in 2 evaluations" in answer.verdict
    assert not answer.converged


def test_heads_on_small_features_do_not_stay_where_they_begin():
    """Networks that decay has nearly brought to 0 still separate their classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [200, 100, 6])
    means = 1.5 * rng.normal(size=(3, 5))
    x = 2e-3 * np.maximum(means[labels] + 0.3 * rng.normal(size=(306, 5)), 0)
    head = fit_head(x, labels, weight_decay=0.05)
    layer = LastLayer.of(x, labels, head.weight, head.bias)
    answer = ask_head(layer, Training.of(layer, weight_decay=0.05))
    assert answer.rows[0].training.recalls.tolist() == [1, 0, 0]
    assert answer.row(BALANCED).training.recalls.min() > 0.5
    assert answer.separable.all()


TERMS = [
    ({"label_smoothing": 0.1}, "with label smoothing 0.1"),
    (
        {"class_margins": [0, 1, 0], "logit_scale": [1, 1, 0.5], "class_weights": [1, 1, 3]},
        "with class margins and logit scales",
    ),
    ({"feature_weights": "contexts"}, None),
]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(("terms", "said"), TERMS)
def test_the_optimum_is_that_of_the_loss_as_told(terms, said, recorded):
    """A head that torch's own steps would not move, told by a problem or by arguments."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 40, 10])
    x = 2 * np.eye(3)[labels] + rng.normal(size=(90, 3))
    of_head = {name: value for name, value in terms.items() if name != "feature_weights"}
    best = fit_head(x, labels, weight_decay=0.05, bias=False, tol=1e-10, **of_head)
    layer = LastLayer.of(x, labels, best.weight)
    if recorded:
        mean = np.asarray(terms.get("class_weights", [1, 1, 1]))[labels].mean()
        decays = {"weight_decay": 0.05 * mean, "feature_decay": 0.01}  # its weights divide nothing
        head = diagnose(layer, problem=tf.Problem(layer.counts, **decays, **terms)).head
    else:
        head = diagnose(layer, weight_decay=0.05, **terms).head
    assert head.suboptimality < 1e-3
    assert "trained to the end" in head.verdict
    assert said is None or said in head.verdict
    if of_head:  # who does not say so is not told that training has ended
        assert "trained to the end" not in diagnose(layer, weight_decay=0.05).head.verdict


def test_a_configuration_tells_what_is_not_told():
    """Its AdamW is no ridge; what is told stands."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 40, 10])
    x = 2 * np.eye(3)[labels] + rng.normal(size=(90, 3))
    best = fit_head(x, labels, weight_decay=0.05, bias=False, tol=1e-10, label_smoothing=0.1)
    layer, said = LastLayer.of(x, labels, best.weight), []
    config = {"weight_decay": 0.05, "label_smoothing": 0.1, "optim": "sgd"}
    head = diagnose(layer, config=config, notice=said.append).head
    assert head.suboptimality < 1e-3
    assert head.ridge == 0.05
    assert said == ["config: read weight_decay 0.05, label_smoothing 0.1"]
    head = diagnose(layer, config=config | {"optim": "adamw_torch"}, notice=said.append).head
    assert not head.ridge_given
    assert said[1].startswith("config: read weight_decay 0.05, optimizer adamw")
    assert diagnose(layer, config=config, label_smoothing=0).head.told == ()
    problem = tf.Problem(layer.counts, weight_decay=0.05, feature_decay=0.01)
    with pytest.raises(ValueError, match="config: given with a problem"):
        diagnose(layer, config=config, problem=problem)


def test_a_loss_that_is_no_cross_entropy_is_not_asked():
    labels = np.repeat([0, 1, 2], 20)
    layer = LastLayer.of(np.eye(3)[labels], labels, np.eye(3))
    head = diagnose(layer, loss="mse").head
    assert head.verdict.startswith("The loss is not cross-entropy: whether the head")


def test_labels_weighed_by_their_own_weights_and_a_sampler_are_refused():
    labels = np.repeat([0, 1, 2], [40, 40, 10])
    layer = LastLayer.of(np.eye(3)[labels], labels, np.eye(3))
    known = {"class_weights": [1, 1, 3], "label_smoothing": 0.1, "smoothing_weights": "labels"}
    with pytest.raises(ValueError, match="sampler: got one with smoothing_weights 'labels'"):
        diagnose(layer, sampler="balanced", **known)
