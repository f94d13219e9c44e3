"""The page of somebody's own training says what is known, found and assumed, and theory first."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import tightframe as tf
from tests.pages.conftest import HOSTILE
from tests.pages.test_run import FETCHING, VOID, Page
from tightframe.capture.course import Course
from tightframe.capture.record import TrainingRecord
from tightframe.metrics import ClassMoments, CollapseReport
from tightframe.pages import training as training_page

NAMES = ["cat", "dog", "fox", HOSTILE, "owl"]
PROBLEM = tf.Problem(
    [30, 30, 30, 6, 6], weight_decay=1e-2, feature_decay=1e-3, bias="none", class_names=NAMES
)


class Trained:
    """A callback that has measured features of a solution, scaled, with noise."""

    def __init__(self, scales, noise=1e-3, counts=PROBLEM.counts, names=NAMES, keep=2000):
        solution = tf.solve(PROBLEM)
        weight, means = solution.weights[0], solution.class_means.T
        labels = np.repeat(np.arange(5), counts)
        rng = np.random.default_rng(0)
        self.course, self.history = Course(), []
        self.course.sample._most = keep
        for epoch, scale in enumerate(scales):
            features = scale * means[labels] + noise * rng.normal(size=(len(labels), len(means[0])))
            moments = ClassMoments(5)
            moments.update(features, labels)
            report = CollapseReport.measure(
                moments,
                weight,
                features=features,
                labels=labels,
                class_names=names,
                missing="leave_out",
                targets="etf",
            )
            report = replace(report, measured_on=f"the training set in epoch {epoch}")
            self.history.append({"epoch": float(epoch), "step": 10.0 * epoch, "nc1": report.nc1})
            self.course.sample.clear(5)
            self.course.sample.add(torch.as_tensor(features), torch.as_tensor(labels))
            self.course.add(report, epoch + 1, epoch, 10 * epoch)

    def record(self, **options):
        known = {"on_training_set": True, "problem": None} | options
        return self.course.record("Net", self.history, **known)


class PageWithPictures(Page):
    """A page in which tags may be closed at once, as in SVG."""

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)


def page_of(training, tmp_path):
    path = tf.report.write_training(training, tmp_path / "page.html")
    return PageWithPictures(path.read_text(encoding="utf-8"))


def moments_of(page):
    texts = [text for attrs, text in page.raw if attrs.get("type") == "application/json"]
    (wheel,) = [json.loads(text) for text in texts if '"moments"' in text]
    return wheel["moments"]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    return page_of(Trained([0.1, 0.5, 0.9, 1.0, 1.0]), tmp_path_factory.mktemp("described"))


@pytest.fixture(scope="module")
def undescribed(tmp_path_factory):
    return page_of(Trained([0.1, 0.3]), tmp_path_factory.mktemp("undescribed"))


def test_a_network_at_the_minimum_is_described_with_the_decays_that_hold_it(described):
    text = " ".join(described.text.split())
    assert "The theory describes this network" in text
    assert "does not describe" not in text
    found = re.search(r"Found: weight decay (\S+) and feature decay (\S+) are those", text)
    assert [float(decay) for decay in found.groups()] == pytest.approx([1e-2, 1e-3], rel=2e-3)
    assert "Assumed: the loss is cross-entropy" in text
    assert "Nothing is known of the rest of the training" in text
    moments = moments_of(described)
    assert [moment["label"] for moment in moments] == [f"epoch {e}" for e in (0, 1, 2, 3, 4)]
    # At the minimum marks lie in their rings.
    np.testing.assert_allclose(moments[-1]["places"], moments[-1]["rings"], atol=0.5)
    assert np.abs(np.subtract(moments[0]["places"], moments[0]["rings"])).max() > 20


def test_that_the_theory_does_not_describe_a_network_comes_first(undescribed):
    text = " ".join(undescribed.text.split())
    where = [
        text.index(part)
        for part in ("The theory does not describe this network:", "lost", "What is known")
    ]
    assert where == sorted(where)
    assert text.count("does not describe") == 1
    assert [moment["rings"] for moment in moments_of(undescribed)] == [None, None]


def test_nothing_is_fetched_and_no_name_runs(described):
    for tag, attrs in described.tags:
        for name in FETCHING:
            if tag != "data" and name in attrs:
                assert (attrs[name] or "").startswith("#"), (tag, attrs)
    assert HOSTILE in described.text
    assert "Known is what the callback saw" in described.text


def test_a_file_a_record_and_a_callback_give_the_same_page(tmp_path, monkeypatch):
    def shown(record):
        arrays = (record.weight, record.features, record.moments[-1].logits)
        return repr((record.history, record.classes.to_dict(), *(a.tolist() for a in arrays)))

    monkeypatch.setattr(training_page, "render", shown)
    trained = Trained([0.2, 1.0])
    trained.record().save(tmp_path / "record.npz")
    sources = [trained, trained.record(), tmp_path / "record.npz", str(tmp_path / "record.npz")]
    pages = {
        tf.report.write_training(source, tmp_path / "page.html").read_bytes() for source in sources
    }
    assert len(pages) == 1


def test_what_is_given_is_not_assumed(tmp_path):
    text = page_of(Trained([1.0]).record(problem=PROBLEM), tmp_path).text
    assert "Given: the network was trained as Problem(" in text
    assert "Assumed" not in text
    other = tf.Problem("20x5", weight_decay=0.1, feature_decay=0.1)
    text = page_of(Trained([1.0], keep=4).record(problem=other), tmp_path).text
    assert "the given problem is one of other counts" in text


@pytest.mark.parametrize(
    ("on_training_set", "said"),
    [
        (False, "other samples were measured"),
        (None, "Assumed: the loader that was given is the training set"),
    ],
)
def test_what_was_measured_is_said(tmp_path, on_training_set, said):
    record = Trained([1.0]).record(on_training_set=on_training_set, problem=PROBLEM)
    page = page_of(record, tmp_path)
    assert said in page.text
    assert (moments_of(page)[0]["rings"] is None) == (on_training_set is False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_without_all_classes_or_features_there_is_no_theory(tmp_path):
    text = page_of(Trained([1.0], counts=[30, 30, 30, 6, 0]), tmp_path).text
    assert "classes without samples have no place in the theory" in text
    assert "No wheel: a class has no samples." in text
    text = page_of(Trained([1.0], keep=4), tmp_path).text
    assert "of 5 classes no features were kept" in text
    assert "accuracies and no features" in text


def test_mean_logits_that_were_not_kept_are_those_of_the_end(tmp_path):
    record = Trained([0.5, 1.0]).record(problem=PROBLEM)
    kept = moments_of(page_of(record, tmp_path))
    (last,) = moments_of(page_of(replace(record, moments=()), tmp_path))
    assert last["label"] == "epoch 1"
    np.testing.assert_allclose(last["places"], kept[-1]["places"], atol=0.11)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="training: got int, need a CollapseMonitor"):
        tf.report.write_training(3, tmp_path / "page.html")
    with pytest.raises(ValueError, match="record: nothing was measured yet"):
        tf.report.write_training(Trained([]), tmp_path / "page.html")
    PROBLEM.save(tmp_path / "problem.npz")
    with pytest.raises(ValueError, match="holds a Problem"):
        tf.report.write_training(tmp_path / "problem.npz", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_record_shows_itself():
    record = Trained([0.2, 1.0]).record()
    assert repr(record) == "TrainingRecord(Net, 2 measurements, 5 classes; No class is lost)"
    assert "measured on the training set in epoch 1" in record._repr_html_()
    assert record.to_frame()["epoch"].tolist() == [0, 1]
    assert isinstance(record, TrainingRecord)


def test_of_one_measurement_there_is_one_column_and_no_empty_part(tmp_path):
    text = tf.report.write_training(Trained([0.0], noise=1.0), tmp_path / "p.html").read_text()
    assert re.findall(r'<th scope="col"[^>]*>(epoch \d)</th>', text) == ["epoch 0"]
    assert 'id="theory"' not in text
    several = tf.report.write_training(Trained([0.5, 1.0]), tmp_path / "p.html").read_text()
    heads = re.findall(r'<th scope="col"[^>]*>(epoch \d)</th>', several)
    assert heads == ["epoch 0", "epoch 1"]
    assert 'id="theory"' in several
