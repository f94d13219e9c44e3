"""What results look like: short in a console, without arrays; tables in a notebook; one picture."""

import functools
import html.parser
import re
import sys

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from torch import nn

import tightframe as tf
from tests.problems import make
from tightframe import heads, landscape, metrics, training
from tightframe.capture.course import Course
from tightframe.diagnosis.diagnose import diagnose
from tightframe.figures import mpl as drawing
from tightframe.figures.mpl_axes import MARKERS
from tightframe.figures.style import STATES
from tightframe.shown import MOST_LETTERS, one_line

#: Letters of a line about a result.
MOST = 500

COUNTS = [12, 12, 12, 5, 5]
LABELS = np.repeat(range(5), COUNTS)
WEIGHT = np.random.default_rng(0).normal(size=(5, 6))
FEATURES = WEIGHT[LABELS] + 0.3 * np.random.default_rng(1).normal(size=(46, 6))
TARGETS = np.eye(3)[:, [0, 1, 2, 0]] * 0.8 + 0.2 / 3


@functools.cache
def problem():
    return make("12x3,5x2")


@functools.cache
def contexts():
    decays = {"weight_decay": 0.02, "feature_decay": 0.02}
    return tf.Problem([40, 30, 20, 9], targets=TARGETS, **decays)


def exchangeable():
    shares = 0.7 * np.eye(3) + 0.1
    return tf.Problem([40, 40, 40], targets=shares, weight_decay=0.02, feature_decay=0.02)


@functools.cache
def layer():
    return heads.LastLayer.of(FEATURES, LABELS, WEIGHT)


@functools.cache
def report():
    return metrics.CollapseReport.measure(moments(), WEIGHT, features=FEATURES, labels=LABELS)


def moments():
    return metrics.ClassMoments(5, 6).update(FEATURES, LABELS)


@functools.cache
def runs():
    return training.train_ufm(problem(), seeds=range(3), iterations=50)


@functools.cache
def advice():
    return tf.advise(make("500x5,5x5"))


@functools.cache
def diagnosis():
    return diagnose(layer(), weight_decay=0.02, at_weight_decay=0.05, layers=2)


@functools.cache
def searched():
    return tf.solve(make("4x4", dim=2), starts=2)


@functools.cache
def regressed():
    targets = np.random.default_rng(1).normal(size=(13, 2))
    return targets, tf.regression_collapse(targets, weight_decay=0.02, feature_decay=0.01)


def regression_report():
    targets, _ = regressed()
    return metrics.RegressionReport.measure(FEATURES[:13], targets, WEIGHT[:2])


def continued():
    data = [(torch.tensor(FEATURES, dtype=torch.float32), torch.tensor(LABELS))]
    with pytest.warns(tf.NotConvergedWarning):
        return training.continue_at(nn.Linear(6, 5), data, weight_decay=0.05, iterations=3)


def calibrated():
    with pytest.warns(RuntimeWarning, match="calibrate"):
        return tf.calibrate(problem(), WEIGHT, FEATURES, LABELS)


def recorded():
    course = Course()
    course.add(report(), 1, 0.0, 10)
    history = [{"epoch": 0.0, "step": 10.0, "nc1": report().nc1}]
    return course.record("Net", history, on_training_set=True, problem=problem())


def point():
    return landscape.Point(WEIGHT, WEIGHT.T)


def diagram():
    return tf.phase_diagram(4, [0.01, 0.1], [1, 5], minority=4)


#: What public calls return, and some of what is in it.
RESULTS = {
    "Problem": problem,
    "Problem with contexts": contexts,
    "Targets": lambda: contexts().targets,
    "Solution": lambda: tf.solve(problem()),
    "Solution of many classes": lambda: tf.solve(make("60x100,9x50,3")),
    "BlockMatrix": lambda: tf.solve(problem()).blocks,
    "Partition": lambda: tf.solve(problem()).blocks.partition,
    "Stats": lambda: tf.solve(problem()).stats,
    "GroupedGeometry": lambda: tf.solve(problem()).grouped_geometry,
    "GroupedMatrix": lambda: tf.solve(problem()).grouped_geometry.classifier,
    "Search": lambda: searched().search,
    "Candidate": lambda: searched().search.candidates[0],
    "ContextSolution": lambda: tf.solve(contexts()),
    "Embedding": lambda: tf.solve(contexts()).embed(TARGETS[:, 0], counts=3),
    "Certificate": lambda: tf.certify(problem(), np.eye(5)),
    "SvmCertificate": lambda: tf.certify_svm("5x2,3"),
    "Path": lambda: tf.path(problem(), weight_decay=[0.1, 0.01]),
    "Path of contexts": lambda: tf.path(contexts(), weight_decay=[0.1, 0.01]),
    "Thresholds": lambda: tf.thresholds(problem()),
    "GroupThreshold": lambda: made("Thresholds").groups[0],
    "ContextThresholds": lambda: tf.thresholds(contexts()),
    "LabelThreshold": lambda: tf.thresholds(exchangeable()).sets[0],
    "StateChanges": lambda: tf.state_changes(problem()),
    "StateChange": lambda: made("StateChanges")[0],
    "States": lambda: tf.solve(problem()).states,
    "ClassState": lambda: tf.solve(problem()).states[0],
    "RankChange": lambda: tf.rank_changes(make("5x2,3"), lowest=0.02, points=3)[0],
    "PathLimits": lambda: tf.path_limits(problem()),
    "Geometry": lambda: tf.simplex_etf(10),
    "LabelLimits": lambda: tf.label_limits(np.eye(3)[:, [0, 1, 2, 0]], "5x2,3,4"),
    "Advice": advice,
    "Outlook": lambda: advice().now,
    "GroupOutlook": lambda: advice().now.groups[0],
    "Proposal": lambda: advice().proposals[0],
    "Safety": lambda: advice().safety[0],
    "ContextAdvice": lambda: tf.advise(contexts()),
    "Calibration": calibrated,
    "PhaseDiagram": diagram,
    "RegressionCollapse": lambda: regressed()[1],
    "FocalCollapse": lambda: tf.focal_collapse(
        5, 10, 2.0, weight_decay=0.02, feature_decay=0.01, starts=1
    ),
    "NormalizedHead": lambda: tf.normalized_head("5x2,3", scale=4.0, tol=1e-6),
    "SupervisedContrastive": lambda: tf.supervised_contrastive("5x2,3", temperature=0.5, tol=1e-6),
    "Dataset": lambda: tf.data.gaussian_mixture(3, 4, 5),
    "Text": lambda: tf.data.Text("abab", ("ab" * 1000,)),
    "LastLayer": layer,
    "FittedHead": lambda: heads.fit_head(FEATURES, LABELS, weight_decay=0.01),
    "Scores": lambda: heads.fit_head(FEATURES, LABELS, weight_decay=0.01).training,
    "Savings": lambda: heads.parameter_savings("resnet18", 10),
    "Landscape": lambda: landscape.Landscape(problem(), 6),
    "Point": point,
    "CriticalPoint": lambda: landscape.critical_point(problem(), WEIGHT, WEIGHT.T),
    "Eigenpair": lambda: landscape.smallest_eigenpair(np.diag([1.0, 2.0])),
    "Descent": lambda: landscape.descend(problem(), point(), max_stages=1),
    "ClassMoments": moments,
    "CollapseReport": report,
    "MetricRow": lambda: report().rows[0],
    "Answers": lambda: report().answers,
    "Decisions": lambda: metrics.Decisions(moments(), WEIGHT),
    "ClassTable": lambda: metrics.class_table(layer()),
    "ClassTable of means": lambda: metrics.class_table(layer(), samples=False),
    "ClassRow": lambda: metrics.class_table(layer())[0],
    "CosineStatistics": lambda: metrics.cosine_statistics(WEIGHT),
    "GroupAngles": lambda: metrics.group_angles(WEIGHT, [0, 0, 1, 1, 2]),
    "KernelStatistics": lambda: metrics.uniformity(WEIGHT),
    "LayerMetrics": lambda: metrics.layer_metrics(moments(), [WEIGHT])[0],
    "NC1Details": lambda: metrics.nc1_details(moments()),
    "NRC3Details": lambda: metrics.nrc3_details(WEIGHT[:2], regressed()[0]),
    "RegressionReport": regression_report,
    "TrainingRecord": recorded,
    "UFMRuns": runs,
    "UFMRun": lambda: runs()[0],
    "Continuation": continued,
    "Diagnosis": diagnosis,
    "LargerDecay": lambda: diagnosis().larger_decay,
    "HeadAnswer": lambda: diagnosis().head,
    "Remedies": lambda: diagnosis().remedies,
    "TheoryAnswer": lambda: diagnosis().theory,
}

#: These have neither a picture nor a frame.
NO_FRAME = {
    *("Targets", "BlockMatrix", "Partition", "Stats", "GroupedGeometry", "GroupedMatrix"),
    *("Search", "Candidate", "Embedding", "Certificate", "SvmCertificate", "GroupThreshold"),
    *("LabelThreshold", "StateChange", "ClassState", "RankChange", "Outlook"),
    *("GroupOutlook", "Proposal", "Safety", "Text", "LastLayer", "FittedHead", "Scores"),
    *("Savings", "Landscape", "Point", "CriticalPoint", "Eigenpair", "Descent", "ClassMoments"),
    *("MetricRow", "Answers", "Decisions", "ClassRow", "CosineStatistics", "GroupAngles"),
    *("KernelStatistics", "LayerMetrics", "NC1Details", "NRC3Details", "HeadAnswer", "Remedies"),
    "TheoryAnswer",
}


@functools.cache
def made(name):
    return RESULTS[name]()


class Tags(html.parser.HTMLParser):
    """Tags that are open, and texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_is_short_and_has_tables(name):
    found = made(name)
    assert type(found).__name__ == name.split()[0]
    text = repr(found)
    assert len(text) <= MOST
    assert text.count("\n") <= 3
    assert "object at 0x" not in text
    assert "array(" not in text
    assert "tensor(" not in text
    page = Tags(found._repr_html_())
    assert not page.open
    assert "".join(page.texts).strip()
    assert "object at 0x" not in "".join(page.texts)
    assert hasattr(found, "to_frame") == (name not in NO_FRAME)
    assert hasattr(found, "plot") == (name not in NO_FRAME)


#: Public classes that no call returns as an answer.
NO_RESULTS = {
    *("NotConvergedWarning", "DescentOptions", "Watch", "Direction", "CollapseMetric"),
    *("FixedETF", "FixedFrame", "FixedHead", "AdaptedModel", "DenseNet", "ResNet"),
    *("TokenMLP", "ProblemLoss", "UFMLoss", "CollapseModule", "CollapseCallback"),
    *("CollapseMonitor", "CollapseTrainerCallback", "ContextCallback"),
}


def test_no_result_of_the_public_names_is_left_out():
    public = [tf, metrics, tf.data, training, heads, landscape]
    names = {name for module in public for name in module.__all__ if re.match(r"[A-Z]+[a-z]", name)}
    assert names - {name.split()[0] for name in RESULTS} == NO_RESULTS
    assert landscape.Direction.__repr__ is landscape.Point.__repr__ is one_line  # one of a saddle's


@pytest.mark.parametrize("name", [name for name in RESULTS if name not in NO_FRAME])
def test_plot_draws_on_a_figure_of_its_own_or_on_given_axes(name):
    figure, axes = made(name).plot()
    first = axes[0] if isinstance(axes, list) else axes
    assert first.figure is figure
    assert isinstance(figure, Figure)
    assert not pyplot.get_fignums()  # pyplot keeps none of it
    own = Figure().subplots()
    assert made(name).plot(own) == (own.figure, own)
    assert own.has_data() or own.texts or own.images or own.tables


@pytest.mark.parametrize("name", [name for name in RESULTS if name not in NO_FRAME])
def test_plot_refuses_what_are_no_axes(name):
    several = Figure().subplots(1, 2)
    with pytest.raises(ValueError, match=r"^ax: got ndarray, need one pair of Matplotlib's axes"):
        made(name).plot(several)


def drawn(axes):
    """Return how many marks, lines, images and texts there are."""
    parts = (axes.collections, axes.lines, axes.images, axes.patches, axes.texts)
    return tuple(map(len, parts))


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("Solution", ("wheel", "logits", "margins")),
        ("Solution of many classes", ("wheel", "margins")),
        ("ContextSolution", ("logits",)),
        ("StateChanges", ("tree", "numbers")),
    ],
)
def test_what_a_plot_shows_can_be_chosen(name, choices):
    found = made(name)
    seen = [drawn(found.plot(what=what)[1]) for what in choices]
    assert len(set(seen)) == len(choices)
    assert drawn(found.plot()[1]) == seen[0]
    with pytest.raises(ValueError, match=f"^what: got 'pie', allowed are .*{choices[-1]}"):
        found.plot(what="pie")


def test_a_map_of_very_many_logits_is_refused():
    with pytest.raises(ValueError, match="what: got 'logits' of 151 classes, need at most 100"):
        made("Solution of many classes").plot(what="logits")


def test_refusals_come_before_the_work(monkeypatch):
    def never(*_):
        raise AssertionError("states were followed in vain")

    monkeypatch.setattr("tightframe.runs.wheels.state_changes", never)
    with pytest.raises(ValueError, match=r"^ax: got int, need"):
        tf.report.merge_tree(problem(), ax=3)
    with pytest.raises(ValueError, match=r"^networks: got list"):
        tf.report.merge_tree(problem(), [])
    monkeypatch.setitem(sys.modules, "tightframe.figures.mpl", None)
    calls = {
        "merge_tree": lambda: tf.report.merge_tree(problem()),
        "wheel": lambda: tf.report.wheel(made("Solution")),
        "plot": lambda: made("Solution").plot(),
    }
    for name, call in calls.items():
        with pytest.raises(ImportError, match=f"^{name} needs matplotlib: pip install"):
            call()


@pytest.mark.parametrize("name", [name for name in RESULTS if name not in NO_FRAME])
def test_frames_have_rows_and_no_arrays(name):
    frame = made(name).to_frame()
    assert len(frame) > 0
    assert not any(isinstance(value, np.ndarray) for value in frame.to_numpy().ravel())


def test_thresholds_are_shown_by_states_as_everywhere():
    found = tf.thresholds(make("500x5,100x5,10", decay=0.0045))
    now = re.findall(r">([^<>]*)</span></td></tr>", found._repr_html_())
    states = [group.state_at(found.logit_decay) for group in found.groups]
    assert [text.strip() for text in now] == states == ["distinct", "merged", "lost"]
    _, axes = found.plot()
    drawn = {line.get_label(): (line.get_marker(), line.get_color()) for line in axes.lines}
    for state in ("merged", "lost", "vanished"):
        look = STATES[state]
        assert drawn[f"{state} from here"] == (MARKERS[look.marker], look.light)


def test_a_solution_says_what_lost_classes_are_taken_for():
    lost = tf.solve(make("500,300,15", decay=0.012))
    assert "sibling margin" not in lost._repr_html_()
    rows = re.findall(r"<tr><th.*?>(.*?)</th>.*<td[^>]*>(.*?)</td></tr>", lost._repr_html_())
    rivals = [f"one of {lost.problem.counts[state.rival]}" for state in lost.states]
    assert [each for _, each in rows] == rivals
    assert lost.states.counts["lost"] == 1
    assert "sibling margin" in tf.solve(make("500x2,15"))._repr_html_()


@pytest.mark.parametrize("name", ["Certificate", "SvmCertificate"])
def test_a_certificate_shows_its_gap(name):
    found = made(name)
    shown = f"{found.primal - found.dual:.3g}"
    assert repr(found).endswith(f"gap={shown})")
    assert f"At most {shown} above" in found._repr_html_()


@pytest.mark.parametrize(
    ("counts", "told"), [("500x5,100x5", "merged"), ("500,300,15", "lost"), ("5x3", "vanished")]
)
def test_thresholds_name_the_first_state_that_is_left(counts, told):
    problem = make(counts)
    first = tf.state_changes(problem).changes[0]
    place = float(
        re.search(rf"the first {told} from logit_decay (\S+),", repr(tf.thresholds(problem))).group(
            1
        )
    )
    assert place == pytest.approx(first.logit_decay, rel=1e-5)


def test_a_watch_says_whose_it_is():
    watch = metrics.watch(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    assert repr(watch) == "Watch(Sequential, not watching)"
    with watch:
        assert repr(watch) == "Watch(Sequential, watching)"


def test_a_long_record_is_cut_and_numbers_keep_their_digits():
    found = metrics.cosine_statistics(WEIGHT)
    assert eval(repr(found), {"CosineStatistics": type(found)}) == found
    assert len(repr(made("Diagnosis").theory)) <= MOST_LETTERS + 20


# -- notebooks -------------------------------------------------------------------------------------


def shown_by(value):
    """Return the pictures that a notebook's cell shows that ends in a value (IPython's rules).

    An object's own picture, and then every figure that pyplot has, which it forgets.
    """
    own = getattr(value, "_repr_png_", lambda: None)()
    pictures = [] if own is None else [own[0]]
    pictures += [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")
    return pictures


def test_a_cell_that_ends_in_plot_shows_the_picture_once():
    (picture,) = shown_by(made("Geometry").plot())
    assert picture.startswith(b"\x89PNG")


def test_a_cell_shows_given_axes_once():
    _, ours = pyplot.subplots()
    assert [type(picture) for picture in shown_by(made("Geometry").plot(ours))] == [Figure]
    # In the next cell pyplot does not know the figure any more.
    (picture,) = shown_by(made("Geometry").plot(ours))
    assert picture.startswith(b"\x89PNG")
    # A part of a figure: the whole is shown.
    part = Figure().subfigures(1, 2)[0].subplots()
    assert len(shown_by(made("Geometry").plot(part))) == 1


def test_a_figure_alone_shows_itself():
    figure, _ = made("Geometry").plot()
    assert len(shown_by(figure)) == 1
    assert isinstance(figure, Figure)
    assert len(shown_by(drawing.new_figure(2, 2))) == 1
