"""The table of classes: against a plain loop, on two real networks, and in every form it has."""

import io
import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.special import ndtr
from sklearn.datasets import load_digits
from torch import nn

import tightframe as tf
from tests.metrics.samples import gather, networks, quick
from tests.problem.test_class_names import ODD_NAMES
from tightframe.geometry import states
from tightframe.geometry.states import measured_states
from tightframe.heads import LastLayer
from tightframe.metrics import Answers, CollapseReport, class_table
from tightframe.metrics.answers import answers_of
from tightframe.metrics.classes import mean_states

pytestmark = pytest.mark.filterwarnings("error")

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNTS = [100] * 5 + [10] * 5


def trained(weight_decay, steps):
    """Train an ordinary network on digits, and return its last layer."""
    data, rng = load_digits(), np.random.default_rng(0)
    places = [rng.permutation(np.flatnonzero(data.target == k)) for k in range(10)]
    own = np.concatenate([p[:n] for p, n in zip(places, COUNTS, strict=True)])
    apart = np.concatenate([p[100:170] for p in places])
    inputs = torch.tensor(data.data / 16, dtype=torch.float32)
    x, y = inputs[own], torch.tensor(data.target[own])
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
    model = nn.Sequential(body, nn.Linear(64, 10))
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": weight_decay}
    optimizer = torch.optim.SGD(model.parameters(), **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        held_out = body(inputs[apart]), data.target[apart]
        features = body(x)
    head = model[1]
    return LastLayer.of(features, y, head.weight, head.bias, held_out=held_out, class_names=DIGITS)


@pytest.fixture(scope="module")
def lost():
    """The digits network with weight decay 0.05, whose five small classes are lost."""
    return trained(0.05, 600)


@pytest.fixture(scope="module")
def told_apart():
    return trained(0.005, 300)


def without(layer, **changes):
    given = {"held_out": layer.held_out, "class_names": layer.class_names} | changes
    return LastLayer.of(layer.features, layer.labels, layer.weight, layer.bias, **given)


def plain(layer):
    """Accuracy, median margin and most frequent wrong answer of every class, sample by sample."""
    found = {}
    for k in range(layer.num_classes):
        margins, wrong = [], []
        for x in layer.features[layer.labels == k]:
            z = [float(w @ x) for w in layer.weight]
            if layer.bias is not None:
                z = [a + float(b) for a, b in zip(z, layer.bias, strict=True)]
            rival = max((j for j in range(len(z)) if j != k), key=lambda j: z[j])
            margins.append(z[k] - z[rival])
            if margins[-1] <= 0:
                wrong.append(rival)
        if margins:
            rival = min(set(wrong), key=lambda j: (-wrong.count(j), j)) if wrong else None
            found[k] = (1 - len(wrong) / len(margins), np.median(margins), rival)
    return found


class TestRows:
    @quick
    @given(networks(), st.booleans())
    def test_are_what_a_plain_loop_says(self, network, has_bias):
        x, y, k, w, b = network
        layer = LastLayer.of(x, y, w, b if has_bias else None)
        table, want = class_table(layer), plain(layer)
        assert {row.label for row in table} == set(want)
        predicted = measured_states(
            tf.Problem(
                layer.counts,
                weight_decay=1,
                feature_decay=1,
                bias="free" if has_bias else "none",
            ),
            w @ np.stack([x[y == c].mean(axis=0) for c in range(k)]).T,
            b if has_bias else None,
        )
        for row in table:
            accuracy, median, rival = want[row.label]
            assert row.accuracy == pytest.approx(accuracy, abs=1e-12)
            assert row.median_margin == pytest.approx(median, rel=1e-9, abs=1e-12)
            state = predicted[row.label]
            assert row.rival == (state.rival if rival is None else rival)
            assert (row.state, row.shares_with) == (state.state, state.shares_with)
            assert row.decision_margin == pytest.approx(state.decision_margin, abs=1e-9)
            assert row.count == (y == row.label).sum()
        worst = [(row.accuracy, row.median_margin) for row in table]
        assert worst == sorted(worst)

    def test_the_lost_classes_of_a_real_network(self, lost):
        table = class_table(lost)
        assert {row.name for row in table.lost} == {"five", "six", "seven", "eight", "nine"}
        assert {row.label for row in table[:5]} == {5, 6, 7, 8, 9}
        assert table.weak == ()
        want = plain(lost)
        for row in table.lost:
            accuracy, median, rival = want[row.label]
            assert row.accuracy == accuracy == 0
            assert row.held_out_recall == 0
            assert row.median_margin == pytest.approx(median)
            assert row.rival == rival < 5
            assert row.rival_name == DIGITS[rival]
            assert row.state == row.accuracy_state == "lost"
            assert row.verdict == f"lost, taken for {DIGITS[rival]}"
        margins = [row.decision_margin for row in table.lost]
        assert np.mean(margins) == pytest.approx(-1.1, abs=0.3)
        assert table.headline.startswith("5 of 10 classes are lost: ")
        assert "nine" in table.headline

    def test_nothing_is_lost_at_a_smaller_decay(self, told_apart):
        table = class_table(told_apart)
        assert table.lost == ()
        assert table.headline.startswith("No class is lost")
        assert min(row.accuracy for row in table) >= 0.5

    def test_held_out_recall_is_the_share_of_right_answers(self, told_apart):
        x, y = told_apart.held_out
        chosen = (x @ told_apart.weight.T + told_apart.bias).argmax(axis=1)
        table = class_table(told_apart)
        for row in table:
            assert row.held_out_recall == pytest.approx((chosen == y)[y == row.label].mean())
        assert "Held-out recall is the truth" in " ".join(table.remarks)
        worst = [min(row.accuracy, row.held_out_recall) for row in table]
        assert worst == sorted(worst)

    def test_the_headline_has_classes_that_only_held_out_samples_lose(self):
        held_out = (np.eye(2)[[0, 0, 0, 1]], [0, 1, 1, 1])
        table = class_table(LastLayer.of(np.eye(2), [0, 1], np.eye(2), held_out=held_out))
        assert table.headline == "No class is lost. Held-out recall below 0.5: 1."

    def test_a_tie_is_wrong(self):
        table = class_table(LastLayer.of(np.eye(2), [0, 1], np.ones((2, 2))))
        assert [row.accuracy for row in table] == [0, 0]
        assert [row.rival for row in table] == [1, 0]

    def test_a_weak_class(self):
        x = np.array([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 7 + [[1.0, 0.0]] * 3)
        (row, other) = class_table(LastLayer.of(x, [0] * 10 + [1] * 10, np.eye(2)))
        assert (row.label, row.accuracy, row.accuracy_state) == (1, 0.7, "weak")
        assert row.rival_share == pytest.approx(0.3)
        assert other.accuracy_state == "distinct"


class TestAbsent:
    def layer(self, **options):
        x = np.array([[1.0, 0.0, 0.2], [0.9, 0.1, 0.3], [0.1, 0.2, 0.1]])
        return LastLayer.of(x, [0, 0, 1], np.eye(3), **options)

    def test_classes_without_samples_are_rivals_without_a_row(self):
        names = ["perl", "html", "prolog"]
        x = np.array([[0.2, 0.0, 0.9], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])
        table = class_table(LastLayer.of(x, [0, 0, 1], np.eye(3), class_names=names))
        assert table.absent == (2,)
        assert [row.name for row in table] == ["perl", "html"]
        assert (table[0].rival_name, table[0].state, table[0].accuracy) == ("prolog", "lost", 0)
        assert "Without samples, but a rival: prolog." in table.remarks

    def test_held_out_samples_give_a_row(self):
        held_out = np.array([[0.0, 0.0, 1.0]]), [2]
        table = class_table(self.layer(held_out=held_out))
        row = table.of(2)
        assert (row.count, row.state, row.accuracy, row.held_out_recall) == (0, "absent", None, 1)
        assert table.absent == ()
        assert table.of(0).held_out_recall is None
        with pytest.raises(ValueError, match="label: got 7, which has no samples"):
            table.of(7)


class TestFewSamples:
    @pytest.mark.parametrize(
        ("count", "right", "said"),
        [
            (30, 30, "in 143 of 643 classes of up to 30 samples"),
            (31, 31, "in 16 of 795 classes of 31 to 100 samples"),
            (100, 90, "in 16 of 795 classes"),
            (101, 101, None),
            (30, 24, "in 79 of 118 classes of up to 30 samples"),
            (100, 75, "in 20 of 97 classes"),
            (100, 60, "in 9 of 23 classes"),
            (200, 120, None),
            (200, 160, None),
            (10, 4, None),  # lost, which says more
        ],
    )
    def test_are_warned_of_with_the_evidence(self, count, right, said):
        x = np.array([[0.0, 1.0]] * right + [[1.0, 0.0]] * (count - right) + [[1.0, 0.0]] * 200)
        row = class_table(LastLayer.of(x, [1] * count + [0] * 200, np.eye(2))).of(1)
        if said is None:
            assert row.warning is None
        else:
            assert said in row.warning
            assert "held-out recall unknown" in row.warning

    def test_held_out_samples_say_it_themselves(self):
        x, y = np.eye(2).repeat(10, axis=0), np.repeat([0, 1], 10)
        table = class_table(LastLayer.of(x, y, np.eye(2), held_out=(np.eye(2)[[0, 0]], [0, 1])))
        assert table.of(0).warning is None
        assert table[0].label == 1
        assert table[0].warning.startswith("held-out recall below 0.5")

    def test_classes_with_one_warning_share_a_sentence(self):
        counts = [10, 20, 200, 50]
        x, y = np.eye(4).repeat(counts, axis=0), np.arange(4).repeat(counts)
        table = class_table(LastLayer.of(x, y, np.eye(4), class_names=["cat", "dog", "ox", "elk"]))
        assert [text.partition(":")[0] for text in table.remarks[1:]] == ["cat and dog", "elk"]


class TestMeansAlone:
    def test_two_classes_are_judged_by_the_normal_distribution_of_their_margin(self):
        rng = np.random.default_rng(1)
        x, y = rng.standard_normal((60, 3)) + 0.4, np.repeat([0, 1], 30)
        layer = LastLayer.of(x, y, rng.standard_normal((2, 3)), rng.standard_normal(2))
        z = x @ layer.weight.T + layer.bias
        for row in class_table(layer, samples=False):
            own = z[y == row.label]
            margins = own[:, row.label] - own[:, 1 - row.label]
            want = ndtr(margins.mean() / margins.std())
            assert row.normal_accuracy == pytest.approx(want, abs=0.05)
            assert row.near_lost == (row.normal_accuracy < 0.5)
            assert row.accuracy is row.accuracy_state is row.median_margin is None

    def test_many_classes_are_judged_by_draws_of_their_mean_and_covariance(self, lost):
        rng = np.random.default_rng(2)
        found = class_table(lost, samples=False)
        for row in found:
            own = lost.features[lost.labels == row.label]
            drawn = rng.multivariate_normal(own.mean(axis=0), np.cov(own.T, bias=True), 4000)
            right = (drawn @ lost.weight.T + lost.bias).argmax(axis=1) == row.label
            assert row.normal_accuracy == pytest.approx(right.mean(), abs=0.05)
        assert {row.label for row in found.lost} == {5, 6, 7, 8, 9}
        assert "lost or near it" in found.headline

    @pytest.mark.parametrize(("margin", "near"), [(0.25, True), (0.26, False), (-1.0, True)])
    def test_without_covariances_the_margin_at_the_mean_decides(self, margin, near):
        means = np.array([[2.0, 0.0], [0.0, margin]])
        report = CollapseReport.measure(gather(means, np.array([0, 1]), 2), np.eye(2))
        row = report.class_table().of(1)
        assert row.decision_margin == pytest.approx(margin)
        assert row.near_lost is near
        assert (row.warning is not None) is near

    def test_samples_speak_where_they_are(self, lost):
        assert {row.near_lost for row in class_table(lost)} == {None}


class TestHistory:
    def test_says_since_when_a_class_is_lost_without_a_break(self, lost):
        def accuracies(*low):
            return np.where(np.isin(np.arange(10), low), 0.2, 1.0)

        history = [
            (0, accuracies(*range(10))),
            (5, accuracies(5, 7)),
            (10, accuracies(5, 6)),
            (15, accuracies(5, 6, 7)),
        ]
        since = {row.label: row.since for row in class_table(lost, history=history)}
        assert since == {5: 0, 6: 10, 7: 15, 8: None, 9: None} | dict.fromkeys(range(5))

    def test_takes_reports_and_tables(self, lost):
        table = class_table(lost)
        moments = gather(lost.features, lost.labels, 10)
        report = CollapseReport.measure(
            moments, lost.weight, lost.bias, features=lost.features, labels=lost.labels
        )
        found = class_table(lost, history=[report, table])
        assert {row.since for row in found.lost} == {0}
        dated = class_table(lost, history=[(300, report), (400, table)])
        assert sum(text.endswith(": lost since epoch 300.") for text in dated.remarks) == 1
        told = class_table(lost, history=[("step 300", report)])
        assert sum(text.endswith(": lost since step 300.") for text in told.remarks) == 1
        (again,) = {row.since for row in report.class_table(history=[("then", table)]).lost}
        assert again == "then"
        assert sum(text.endswith(": lost since measurement 0.") for text in found.remarks) == 1

    def test_refusals(self, lost):
        moments = gather(lost.features, lost.labels, 10)
        report = CollapseReport.measure(moments, lost.weight)
        with pytest.raises(ValueError, match="history: measurement 0 has no accuracies"):
            class_table(lost, history=[report])
        with pytest.raises(ValueError, match="history: measurement 1 has no accuracies"):
            class_table(lost, history=[np.ones(10), 0.5])
        with pytest.raises(ValueError, match=r"history: got shape \(3,\), need \(10,\)"):
            class_table(lost, history=[[1.0, 1.0, 1.0]])


class TestSeparable:
    def test_is_said_of_lost_classes(self, lost):
        asked = []

        def separable(layer):
            asked.append(layer)
            return np.arange(10) != 6

        table = class_table(lost, separable=separable)
        assert asked == [lost]
        assert [row.label for row in table if row.separable is False] == [6]
        assert table.of(6).verdict.endswith("in the features")
        assert table.of(5).verdict.endswith("its features still separate it")
        assert {row.separable for row in table if row.label < 5} == {None}
        assert "In the features six has merged with its rival." in table.remarks
        same = class_table(lost, separable=np.arange(10) != 6)
        assert same.to_dict() == table.to_dict()

    def test_is_asked_of_nobody_where_no_class_is_lost(self, told_apart):
        class_table(told_apart, separable=lambda layer: pytest.fail("asked"))

    def test_refusals(self, lost):
        with pytest.raises(ValueError, match=r"separable: got shape \(3,\), need \(10,\)"):
            class_table(lost, separable=[True] * 3)
        with pytest.raises(ValueError, match=r"recalls: got shape \(3,\), need \(10,\)"):
            class_table(lost, recalls=[1.0] * 3)
        problem = tf.Problem([5, 5], weight_decay=1, feature_decay=1)
        with pytest.raises(ValueError, match="problem: got one of 2 classes, the network has 10"):
            class_table(lost, problem=problem)


class TestForms:
    def test_dicts_are_json_with_the_keys_of_the_command(self, lost):
        rows = json.loads(json.dumps(class_table(lost).to_dict(), allow_nan=False))
        keys = {"label", "name", "count", "state", "accuracy_state", "decision_margin", "rival"}
        keys |= {"sibling_margin", "with", "accuracy", "held_out_recall", "median_margin"}
        assert keys | {"separable", "warning"} <= set(rows[0])
        assert rows[0]["accuracy_state"] == "lost"

    def test_frame(self, lost):
        frame = class_table(lost).to_frame()
        assert frame.label.tolist() == [row.label for row in class_table(lost)]
        assert list(frame.columns) == list(class_table(lost).to_dict()[0])

    def test_table_is_cut_with_a_count(self, lost):
        table = class_table(lost).to_table(3)
        assert len(table.rows) == 3
        assert table.note.startswith("7 more classes, 2 of them lost. 5 of 10 classes are lost")
        assert "by mean" not in [column.name for column in table.heads]  # they agree
        assert len(class_table(lost)._repr_html_()) > 500

    def test_answers_are_merged(self, lost):
        whole = answers_of(lost.features, lost.labels, lost.weight, lost.bias)
        merged = Answers(10)
        for rows in np.array_split(np.random.default_rng(0).permutation(550), 7):
            part = answers_of(lost.features[rows], lost.labels[rows], lost.weight, lost.bias)
            merged.merge(part)
        for name in ("counts", "accuracy", "rival"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
        np.testing.assert_allclose(merged.median_margin, whole.median_margin, rtol=1e-12)
        assert merged.num_lost == whole.num_lost == 5
        assert len(merged) == 550
        wrong = {(c, a): n for c, a, n in zip(*whole.wrong, strict=True)}
        assert sum(wrong.values()) == round(sum(lost.counts * (1 - whole.accuracy)))

    def test_no_samples(self):
        empty = Answers(3)
        assert not empty
        assert np.isnan(empty.accuracy).all()
        assert np.isnan(empty.median_margin).all()
        assert (empty.rival == -1).all()

    @pytest.mark.parametrize("width", [60, 80, 200])
    def test_no_name_spoils_the_table(self, lost, width):
        names = (*ODD_NAMES[:9], ODD_NAMES[10])
        table = class_table(without(lost, class_names=names))
        console = Console(width=width, file=io.StringIO())
        console.print(table)
        printed = console.file.getvalue().splitlines()
        rows = [line.strip("│").split("│") for line in printed if line.startswith("│")]
        assert len(rows) == 10  # a line each
        assert len({row[0] for row in rows}) == 10
        heads = next(line for line in printed if "count" in line)
        for name, format in (("count", "d"), ("accuracy", ".2f"), ("recall", ".2f")):
            place = [head.strip() for head in heads.strip("┃").split("┃")].index(name)
            field = {"recall": "held_out_recall"}.get(name, name)
            want = [f"{getattr(row, field):{format}}" for row in table]
            assert [row[place].strip() for row in rows] == want
        assert ("No room for: margin" in " ".join(" ".join(printed).split())) == (width == 60)
        # Where there is room, and on pages, nothing of a name is left out.
        assert all(name in table.to_frame().name.tolist() for name in names)
        assert "[b]x[/b]" in table._repr_html_()


class TestReports:
    def same(self, frame, want):
        assert frame.label.tolist() == want.label.tolist()
        for name in frame.columns:
            for a, b in zip(frame[name], want[name], strict=True):
                missing = all(v is None or (isinstance(v, float) and math.isnan(v)) for v in (a, b))
                number = isinstance(b, float) and not missing
                assert missing or a == (pytest.approx(b, rel=1e-9, abs=1e-9) if number else b), name

    def test_give_the_same_rows_from_a_stream(self, lost):
        batches = [
            (torch.tensor(lost.features[rows]), torch.tensor(lost.labels[rows]))
            for rows in np.array_split(np.random.default_rng(1).permutation(550), 9)
        ]
        options = {"class_names": DIGITS}
        report = CollapseReport.from_loader(batches, lost.weight, lost.bias, **options)
        held_out = CollapseReport.from_loader([lost.held_out], lost.weight, lost.bias)
        self.same(report.classes(held_out=held_out), class_table(lost).to_frame())
        assert report.num_lost == 5
        assert report.class_accuracy[5:].tolist() == [0] * 5
        assert report.to_dict()["classes"][0]["name"] == report.class_table()[0].name

    def test_of_a_model(self, lost):
        head = nn.Linear(64, 10)
        with torch.no_grad():
            head.weight.copy_(torch.tensor(lost.weight))
            head.bias.copy_(torch.tensor(lost.bias))
        model = nn.Sequential()
        model.add_module("body", nn.Identity())
        model.add_module("fc", head)
        x, y = torch.tensor(lost.features).float(), torch.tensor(lost.labels)
        batches = list(zip(x.split(100), y.split(100), strict=True))
        reports = tf.metrics.collapse_report(model, batches, layers=["body"])
        want = class_table(without(lost, class_names=None, held_out=None)).to_frame()
        self.same(reports["fc"].classes(), want)
        # A hidden layer's probe decides nothing: its classes are judged by their means.
        assert reports["body"].classes().accuracy.isna().all()
        scalars = tf.metrics.layer_scalars(reports)
        assert scalars["num_lost"] == 5
        named = {name for name in scalars if name.startswith("accuracy_of_lost_class_")}
        assert named == {f"accuracy_of_lost_class_{k}" for k in range(5, 10)}
        assert not any("body/" in name and "lost" in name for name in scalars)

    def test_without_a_second_pass_there_are_means_only(self, lost):
        batches = [(lost.features, lost.labels)]
        report = CollapseReport.from_loader(batches, lost.weight, lost.bias, nc4=False)
        assert report.class_accuracy is None
        rows = report.classes()
        assert rows.accuracy.isna().all()
        assert set(rows.label[rows.near_lost.astype(bool)]) == {5, 6, 7, 8, 9}
        with pytest.raises(ValueError, match="held_out: a report with no accuracies"):
            report.classes(held_out=report)

    def test_a_class_without_labelled_features_is_judged_by_its_mean(self, lost):
        x, y = np.asarray(lost.features), np.asarray(lost.labels)
        moments = gather(x, y, 10)
        seen = y != 3
        report = CollapseReport.measure(moments, lost.weight, features=x[seen], labels=y[seen])
        row = report.class_table().of(3)
        assert (row.accuracy, row.accuracy_state, row.rival_share) == (None, None, None)
        assert row.near_lost is not None

    def test_names_are_one_a_class(self, lost):
        moments = gather(lost.features, lost.labels, 10)
        with pytest.raises(ValueError, match="class_names: got 2, need one a class, 10"):
            CollapseReport.measure(moments, lost.weight, class_names=["a", "b"])
        for bad in (5, "abcdefghij", ["a"] * 10, dict(zip(DIGITS, "abcdefghij", strict=True))):
            with pytest.raises(ValueError, match=r"^class_names: "):
                CollapseReport.measure(moments, lost.weight, class_names=bad)
            with pytest.raises(ValueError, match=r"^class_names: "):
                without(lost, class_names=bad)
        by_label = dict(reversed(list(enumerate(DIGITS))))
        assert CollapseReport.measure(moments, lost.weight, class_names=by_label).class_name(3) == (
            "three"
        )


class TestManyClasses:
    @quick
    @given(networks(), st.integers(0, 2))
    def test_blocks_give_the_states_of_the_whole_matrix(self, network, copies):
        x, y, k, w, b = network
        means = np.stack([x[y == c].mean(axis=0) for c in range(k)])
        if copies:  # classes that merge: equal means and rows, equal counts
            means[:copies], w[:copies] = means[0], w[0]
        counts = np.full(k, 3)
        want = mean_states(counts, means, w, b)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(states, "MAX_DENSE_CLASSES", 0)
            patch.setattr(states, "_BLOCK_ENTRIES", k)
            found = mean_states(counts, means, w, b)
        assert found.state.tolist() == want.state.tolist()
        np.testing.assert_allclose(found.decision_margin, want.decision_margin)
        assert found.rival.tolist() == want.rival.tolist()

    def test_share_one_prediction_before_training(self):
        x, y = np.random.default_rng(0).normal(size=(300, 4)), np.arange(300)
        table = class_table(LastLayer.of(x, y, np.zeros((300, 4))))
        assert {row.state for row in table} == {"vanished"}
        assert {len(row.shares_with) for row in table} == {99, 100}  # not 299 each
        assert not any(row.label in row.shares_with for row in table)

    def test_need_no_matrix_of_all_pairs(self, monkeypatch):
        k = 2000
        monkeypatch.setattr(states, "MAX_DENSE_CLASSES", k - 1)
        monkeypatch.setattr(states, "_BLOCK_ENTRIES", 2**16)
        monkeypatch.setattr("tightframe.metrics.answers.BLOCK_ENTRIES", 2**16)
        w = np.random.default_rng(0).normal(size=(k, 8))
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        x, y = np.repeat(w, 2, axis=0), np.arange(k).repeat(2)
        x[2] = x[3] = w[7]  # class 1 is taken for class 7
        layer = LastLayer.of(x, y, w)
        tracemalloc.start()
        table = class_table(layer)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * k**2 / 2
        assert len(table) == k
        chosen = np.concatenate([(part @ w.T).argmax(axis=1) for part in np.split(x, 10)])
        want = (chosen == y).reshape(k, 2).mean(axis=1)
        assert [row.accuracy for row in table] == [want[row.label] for row in table]
        assert (table.of(1).rival, table.of(1).accuracy_state) == (7, "lost")
        assert len(table.to_table().rows) == 20
