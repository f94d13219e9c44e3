"""What is kept of a training: mean logits of some measurements, accuracies; in checkpoints too."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.capture.test_attach_lightning import BATCHES, INPUTS, LABELS, WithForward, fit, loader
from tightframe.capture.course import Course
from tightframe.capture.lightning import CollapseMonitor
from tightframe.capture.record import TrainingRecord
from tightframe.metrics import ClassMoments, CollapseReport

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def test_a_record_is_what_the_network_does(tmp_path):
    monitor = CollapseMonitor(class_names=["a", "b", "c"])
    _, model = fit(monitor, WithForward(), epochs=5)
    monitor.record().save(tmp_path / "record.npz")
    record = TrainingRecord.load(tmp_path / "record.npz")
    assert [moment.epoch for moment in record.moments] == [0, 1, 2, 3, 4]
    assert record.history == tuple(monitor.history)
    for moment, state in zip(record.moments, model.after, strict=True):
        other = WithForward().eval()
        other.load_state_dict(state)
        with torch.no_grad():
            scores = other(INPUTS).numpy()
        means = np.stack([scores[k == LABELS].mean(axis=0) for k in range(3)])
        np.testing.assert_allclose(
            moment.logits.T.astype(float) + moment.bias, means, rtol=2e-3, atol=2e-3
        )
    np.testing.assert_array_equal(np.bincount(record.labels), record.counts)
    with torch.no_grad():
        features = model.backbone.eval()(INPUTS).numpy()
    order = np.lexsort(features.T)
    np.testing.assert_allclose(
        record.features[np.lexsort(record.features.T)], features[order], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(record.weight, model.classifier.weight.detach().numpy())
    assert record.on_training_set is True
    assert record.network == "WithForward"
    assert record.classes.names == ("a", "b", "c")


def test_a_resumed_training_keeps_what_went_before(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    first = CollapseMonitor()
    fit(first, WithForward(), epochs=2, callbacks=[checkpoint])
    saved = torch.load(checkpoint.last_model_path, weights_only=True)["callbacks"]
    (state,) = [own for key, own in saved.items() if "Monitor" in key]
    second = CollapseMonitor()
    second.load_state_dict(state)
    fit(second, WithForward(), epochs=1)
    record = second.record()
    assert [m.epoch for m in record.moments] == [0, 1, 0]
    for before, after in zip(first.record().moments, record.moments, strict=False):
        np.testing.assert_array_equal(before.logits, after.logits)
    # Of releases before.
    CollapseMonitor().load_state_dict({"history": state["history"]})


def test_nothing_was_measured():
    with pytest.raises(ValueError, match="record: nothing was measured yet"):
        CollapseMonitor().record()


@pytest.mark.parametrize(("given", "said"), [("validation", False), (loader(BATCHES), None)])
def test_which_data_were_measured(given, said):
    monitor = CollapseMonitor(loader=given)
    fit(monitor, WithForward(), epochs=1)
    assert monitor.record().on_training_set is said


def report_of(classes, answers):
    labels = torch.arange(classes).repeat_interleave(2)
    features = torch.eye(classes, dtype=torch.float64)[answers.repeat_interleave(2)]
    moments = ClassMoments(classes)
    moments.update(features + 0.01 * torch.eye(classes)[labels], labels)
    return CollapseReport.measure(moments, torch.eye(classes), features=features, labels=labels)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_since_when_a_class_is_lost_is_exact_and_logits_of_many_are_not_kept():
    course, right = Course(), torch.arange(130)
    for number in range(1, 11):
        answers = right.clone()
        answers[7] = 8 if number > 5 else 7  # lost at the sixth, which has a picture; and the
        answers[9] = 8 if number > 4 else 9  # fifth, which has none
        course.add(report_of(130, answers), number, number, number)
    record = course.record("Net", [], on_training_set=True, problem=None)
    assert record.moments == ()
    assert {row.label: row.since for row in record.classes.lost} == {7: 6, 9: 5}
