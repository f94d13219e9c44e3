"""The report: its rows against the functions, loaders, missing classes, and every output form."""

import html
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

import tightframe as tf
from tests.metrics.samples import gather
from tightframe.figures import plotly
from tightframe.files import read_json
from tightframe.geometry.dense import etf_distance_floor, normalized_distance, seli, simplex_etf
from tightframe.metrics import (
    ClassMoments,
    CollapseReport,
    alignment,
    bias_alignment,
    cdnv,
    certificate_gap,
    cosine_statistics,
    distance_norms,
    equinorm,
    group_angles,
    layer_metrics,
    nc1,
    nc1_details,
    nc2,
    nc3,
    nc4,
    nc5,
    self_duality,
    uniformity,
)
from tightframe.metrics.pictures import sheet_of
from tightframe.metrics.targets import TARGET_PARTS, HeadKind

pytestmark = pytest.mark.filterwarnings("error")

COUNTS = [20, 20, 5, 5]


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat(np.arange(4), COUNTS))
    x = rng.normal(size=(4, 6))[y] + 0.3 * rng.normal(size=(50, 6))
    return x, y, rng.normal(size=(4, 6)), rng.normal(size=4)


def values(report):
    return {tuple(row[:3]): row.value for row in report.rows}


class TestRows:
    def test_groups_of_equal_count_are_told_apart_by_their_loss(self, network):
        x, y, w, _ = network
        problem = tf.Problem(
            COUNTS, weight_decay=1e-3, feature_decay=1e-3, class_weights=[1, 2, 2, 2]
        )
        report = CollapseReport.measure(gather(x, y, 4), w, problem=problem)
        angles = report.group_angles["classifier"]
        order = ["5 with weight 2", "20 with weight 2", "20"]
        assert angles.groups.tolist() == order
        lengths = np.linalg.norm(w, axis=1)
        assert angles.norms == pytest.approx([lengths[2:].mean(), lengths[1], lengths[0]])
        assert ("group_norm", "classifier", "group 20 with weight 2") in values(report)
        # Where the counts say it all, they are the names.
        problem = problem.replace(class_weights=[2, 2, 1, 1])
        report = CollapseReport.measure(gather(x, y, 4), w, problem=problem)
        assert report.group_angles["classifier"].groups.tolist() == [20, 5]

    def test_every_row_is_what_the_functions_say(self, network):
        x, y, w, b = network
        moments = gather(x, y, 4)
        ood = np.random.default_rng(1).normal(size=(9, 6))
        problem = tf.Problem(COUNTS, weight_decay=1e-3, feature_decay=1e-3, bias="free")
        target = seli(COUNTS)
        report = CollapseReport.measure(
            moments, w, b, features=x, labels=y, targets=["etf", target], problem=problem, ood=ood
        )
        got = values(report)
        chosen = (x @ w.T + b).argmax(axis=1)
        whole = {
            "nc1": nc1(moments),
            "nc1_rank": 3,
            "cdnv": cdnv(moments),
            "self_duality": self_duality(moments, w),
            "bias_alignment": bias_alignment(moments, w, b),
            "nc4": nc4(x, moments, w, b),
            "accuracy": np.mean(chosen == y),
            "num_lost": sum(np.mean(chosen[y == k] == k) < 0.5 for k in range(4)),
            "nc5": nc5(moments, ood),
            "certificate_gap": certificate_gap(problem, moments, w, b),
            "alignment_mean": alignment(moments, w).mean(),
            "alignment_min": alignment(moments, w).min(),
            "distance_norm_mean": distance_norms(moments, w).mean(),
        }
        for name, want in whole.items():
            assert got.pop((name, "", "")) == pytest.approx(want, rel=1e-12), name
        assert report.nc1_rank == nc1_details(moments).rank
        for part, vectors in (("classifier", w), ("centered_means", moments)):
            cosines, uniform = cosine_statistics(vectors), uniformity(vectors)
            for name, want in {
                "equinorm": equinorm(vectors),
                "equiangularity": cosines.std,
                "cosine_mean": cosines.mean,
                "coherence": cosines.coherence,
                "uniformity_log_mean": uniform.mean,
                "uniformity_log_cov": uniform.cov,
            }.items():
                assert got.pop((name, part, "")) == pytest.approx(want, rel=1e-12), (name, part)
            want = cosines.etf_deviation
            assert got.pop(("etf_deviation", part, "simplex ETF")) == pytest.approx(want)
            groups = group_angles(vectors, COUNTS)
            for i, pair in ((0, "group 20"), (1, "group 5")):
                assert got.pop(("group_norm", part, pair)) == pytest.approx(groups.norms[i])
            places = {"group 20": (0, 0), "groups 20 and 5": (0, 1), "group 5": (1, 1)}
            for pair, place in places.items():
                for what in ("minimum", "mean", "maximum"):
                    want = getattr(groups, what)[place]
                    assert got.pop((f"group_cosine_{what}", part, pair)) == pytest.approx(want)
        for name, goal in (("simplex ETF", simplex_etf(4)), ("SELI", target)):
            for part in TARGET_PARTS:
                if part == "classifier":
                    want = nc2(w, goal)
                elif "means" in part:
                    want = nc2(moments, goal, part=part)
                else:
                    want = nc3(moments, w, goal, centered="centered" in part)
                metric = "nc3" if "logits" in part else "nc2"
                assert got.pop((metric, part, name)) == pytest.approx(want, abs=1e-12)
        left = {key[0] for key in got}
        assert left == {"nc1_quotient", "nearest_center_accuracy"}

    def test_the_report_keeps_its_own_numbers(self, network):
        x, y, w, b = network
        moments, weight = gather(x, y, 4), torch.tensor(w)
        report = CollapseReport.measure(moments, weight, b)
        want = CollapseReport.measure(moments, w, b).rows
        moments.update(5 + x, y)
        weight.mul_(-3).add_(1)
        assert report.rows == want

    def test_layers(self, network):
        x, y, _, _ = network
        rng = np.random.default_rng(2)
        weights = [rng.normal(size=(5, 6)), rng.normal(size=(4, 5))]
        moments = gather(x, y, 4)
        report = CollapseReport.measure(moments, weights=weights, targets="orthogonal_frame")
        want = layer_metrics(moments, weights, "orthogonal_frame")
        assert report.layers == {"orthogonal frame": want}
        got = values(report)
        for layer in want:
            head = f"layer {layer.layer}"
            assert got["nc2", f"{head} classifier", "orthogonal frame"] == layer.classifier
            assert got["nc3", f"{head} logits", "orthogonal frame"] == layer.logits
            assert got["self_duality", f"{head} self_duality", "orthogonal frame"] > 0
        product = CollapseReport.measure(moments, weights[1] @ weights[0])
        assert report.self_duality == pytest.approx(product.self_duality, rel=1e-12)
        problem = tf.Problem(
            COUNTS, loss="mse", weight_decay=1e-4, feature_decay=1e-4, depth=2, dim=6
        )
        solution = tf.solve(problem)
        means = solution.class_means.T
        exact = CollapseReport.measure(
            gather(means, np.arange(4), 4), weights=solution.weights, targets=[solution]
        )
        for layer in exact.layers["predicted"]:
            assert max(layer[1:6]) <= 1e-7

    @pytest.mark.parametrize("with_bias", [False, True])
    def test_the_head_picks_the_seli_geometry(self, network, with_bias):
        x, y, w, b = network
        moments = gather(x, y, 4)
        bias = b if with_bias else None
        name = "free-bias SELI" if with_bias else "SELI"
        report = CollapseReport.measure(moments, w, bias, targets=["etf", "seli"])
        frame = seli(COUNTS, "free" if with_bias else "none")
        got = values(report)
        for part in ("classifier", "means", "centered_means"):
            want = nc2(w if part == "classifier" else moments, frame, part=part)
            assert got["nc2", part, name] == pytest.approx(want, rel=1e-9)
        want = nc3(moments, w, frame, centered=False)
        assert got["nc3", "logits", name] == pytest.approx(want, rel=1e-9)
        assert {target for metric, _, target in got if metric == "nc2"} == {"simplex ETF", name}
        kind = "with a bias" if with_bias else "without bias"
        (note,) = report.notes
        start = name[0].upper() + name[1:]
        assert note == f"{start} is the limit of small decays for a head {kind}, as this one."
        assert report.to_dict()["notes"] == [note]
        # The other frame, given as it is, is compared with, and said not to be the head's.
        other = seli(COUNTS, "none" if with_bias else "free")
        report = CollapseReport.measure(moments, w, bias, targets=other)
        (note,) = report.notes
        assert "is not the limit of small decays for this head" in note
        assert f"has {'a' if with_bias else 'no'} bias" in note

    def test_both_seli_geometries_of_equal_counts_are_one(self):
        x, y = np.repeat(np.eye(3), 4, axis=0), np.repeat(np.arange(3), 4)
        moments = gather(x, y, 3)
        report = CollapseReport.measure(moments, np.eye(3), np.ones(3), targets=seli([4, 4, 4]))
        (note,) = report.notes
        assert "all counts are equal" in note

    def test_layers_of_a_head_with_a_bias(self, network):
        x, y, w, b = network
        moments = gather(x, y, 4)
        layers = [np.eye(6), w]
        report = CollapseReport.measure(moments, None, b, weights=layers, targets="seli")
        want = layer_metrics(moments, layers, seli(COUNTS, "free"))
        got = report.layers["free-bias SELI"]
        assert [part.means for part in got] == pytest.approx([part.means for part in want])

    def test_seli_of_many_classes(self):
        """100,000 classes in two groups cost what two do; as many counts as classes are refused."""
        many = HeadKind(np.r_[np.full(60_000, 9), np.full(40_000, 2)], has_bias=True).seli
        few = HeadKind(np.r_[np.full(6, 9), np.full(4, 2)], has_bias=True).seli
        exact = seli([9] * 6 + [2] * 4, bias="free")
        for part in ("classifier", "means", "logits"):
            assert np.allclose(getattr(few, part).to_dense(), getattr(exact, part), atol=1e-12)
        assert many.num_classes == 100_000
        assert many.classifier.diagonal == pytest.approx(np.sqrt([2, 9]))
        with pytest.raises(ValueError, match="'seli' of 5000 distinct counts"):
            _ = HeadKind(np.arange(1, 5001), has_bias=False).seli

    def test_seli_needs_to_know_the_head(self, network):
        x, y, w, _ = network
        moments = gather(x, y, 4)
        for call in (
            lambda: nc2(moments, "seli"),
            lambda: nc3(moments, w, "seli"),
            lambda: self_duality(moments, w, "seli"),
        ):
            with pytest.raises(ValueError, match=r"'seli' depends on .* the head's bias"):
                call()

    def test_groups_and_their_number(self, network):
        x, y, w, _ = network
        report = CollapseReport.measure(gather(x, y, 4), w, groups=[1, 0, 1, 0])
        assert report.group_angles["classifier"].groups.tolist() == [1, 0]
        rng = np.random.default_rng(0)
        many = CollapseReport.measure(
            gather(rng.normal(size=(20, 3)), np.arange(20), 20),
            rng.normal(size=(20, 3)),
            groups=np.arange(20),
        )
        assert not any(row.metric.startswith("group") for row in many.rows)
        assert len(many.group_angles["classifier"].groups) == 20

    def test_degenerate_reasons_are_given_once(self):
        moments = gather(np.ones((6, 4)), np.arange(6) % 3, 3)
        with pytest.warns(RuntimeWarning):
            report = CollapseReport.measure(moments, np.zeros((3, 4)))
        with pytest.warns(RuntimeWarning) as caught:
            got = values(report)
        messages = [str(warning.message) for warning in caught]
        assert len(messages) == len(set(messages))
        assert math.isnan(got["nc2", "classifier", "simplex ETF"])
        assert math.isnan(got["equinorm", "classifier", ""])
        assert ("alignment_mean", "", "") not in got
        flattering = [key for key, value in got.items() if value == 0 and key[0] != "nc1_rank"]
        assert set(flattering) <= {
            ("bias_alignment", "", ""),  # W = 0 and b = 0
            ("group_norm", "classifier", "group 2"),
            ("group_norm", "centered_means", "group 2"),
        }


class TestMissingClasses:
    def test_everything_is_about_the_others(self, network):
        x, y, w, b = network
        keep = y != 2
        moments = gather(x[keep], y[keep], 4)
        with pytest.warns(RuntimeWarning) as caught:
            report = CollapseReport.measure(moments, w, b, features=x[keep], missing="leave_out")
        assert any("report: class 2 is without" in str(c.message) for c in caught)
        assert report.missing == (2,)
        kept = [0, 1, 3]
        other = CollapseReport.measure(moments.present(), w[kept], b[kept])
        for name in ("nc1", "nc1_rank", "nc1_quotient", "cdnv", "self_duality"):
            assert getattr(report, name) == getattr(other, name)
        got, want = values(report), values(other)
        for part in TARGET_PARTS[1:]:
            key = ("nc3" if "logits" in part else "nc2", part, "simplex ETF")
            if "centered" in part:  # three vertices of the frame, centred, are a frame
                assert got[key] == pytest.approx(want[key], abs=1e-12)
            else:
                means = moments.present().means.numpy()
                measured = (w[kept] if part == "logits" else means) @ means.T
                block = np.eye(3) - 1 / 4
                assert got[key] == pytest.approx(normalized_distance(measured, block), abs=1e-12)
        assert got["nc2", "classifier", "simplex ETF"] == pytest.approx(nc2(w))
        assert np.isnan(report.norms()["centered_means"]).tolist() == [False, False, True, False]
        for read in (
            lambda: report.geometry,
            lambda: report.logits,
            lambda: report.margins,
            lambda: report.distances(simplex_etf(4)),
        ):
            with pytest.raises(ValueError, match="class 2 is without samples"):
                read()
        out = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert out["missing"] == [2]
        assert out["geometry"] is None
        assert report.to_table().caption == "class 2 is without samples"
        assert report.plot() is not None

    @pytest.mark.parametrize("bias", ["none", "free"])
    def test_seli_of_classes_of_which_one_has_no_samples(self, network, bias):
        """The missing class counts as one of next to no samples: the frame of a limit."""
        x, y, w, b = network
        kept = y != 2
        moments = gather(x[kept], y[kept], 4)
        given = b if bias == "free" else None
        options = {"targets": "seli", "missing": "leave_out"}
        with pytest.warns(RuntimeWarning, match="class 2 .*without samples"):
            got = values(CollapseReport.measure(moments, w, given, **options))
        counts = np.array(COUNTS) * 10**10
        counts[2] = 1
        frame, index = seli(counts, bias), [0, 1, 3]
        (name,) = {target for metric, _, target in got if metric == "nc3"}
        means = np.stack([x[y == k].mean(axis=0) for k in index])
        for part, measured, target in (
            ("means", means @ means.T, frame.means[np.ix_(index, index)]),
            ("classifier", w @ w.T, frame.classifier),
        ):
            want = normalized_distance(measured, target)
            assert got["nc2", part, name] == pytest.approx(want, rel=1e-4)

    def test_too_few(self):
        with pytest.raises(ValueError, match="1 of 3 classes have samples, need 2"):
            CollapseReport.measure(
                ClassMoments(3).update([[1.0]], [0]), np.ones((3, 1)), missing="leave_out"
            )
        with pytest.raises(ValueError, match="missing: got 'drop', allowed are"):
            CollapseReport.measure(gather(np.eye(2), np.arange(2), 2), np.eye(2), missing="drop")
        with pytest.raises(ValueError, match="class 2 is without samples; missing='leave_out'"):
            CollapseReport.from_loader([(np.eye(2, 3), [0, 1])], np.eye(3))
        with pytest.warns(RuntimeWarning, match="class 2"):
            report = CollapseReport.from_loader(
                [(np.eye(2, 3), [0, 1])], np.eye(3), nc4=False, missing="leave_out"
            )
        assert report.missing == (2,)
        with pytest.raises(ValueError, match="got 1 class, need at least 2"):
            CollapseReport.measure(ClassMoments(1).update([[1.0]], [0]), np.ones((1, 1)))

    def test_many_classes(self):
        rng = torch.Generator().manual_seed(0)
        x, w = torch.randn(5000, 3, generator=rng), torch.randn(5000, 3, generator=rng)
        moments = ClassMoments(5000).update(x, torch.arange(5000))
        report = CollapseReport.measure(moments, w)
        with pytest.raises(ValueError, match="5000 classes would need"):
            _ = report.geometry
        got = values(report)
        assert got["nc2", "classifier", "simplex ETF"] == pytest.approx(nc2(w), rel=1e-12)
        floor = etf_distance_floor(5000, 3)
        assert got["nc2", "centered_means", "simplex ETF"] > floor > 1
        assert report.to_dict()["logits"] is None


class TestLoader:
    def batches(self, x, y, size=7):
        return [(x[i : i + size], y[i : i + size]) for i in range(0, len(y), size)]

    @pytest.mark.parametrize("kind", ["list", "callable", "loader"])
    def test_equals_one_batch(self, network, kind):
        x, y, w, b = network
        batches = self.batches(x, y)
        if kind == "callable":
            given = lambda: iter(batches)  # noqa: E731
        elif kind == "loader":
            data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
            given = torch.utils.data.DataLoader(data, batch_size=9, shuffle=True)
        else:
            given = batches
        report = CollapseReport.from_loader(given, w, b, targets=["etf"])
        want = CollapseReport.measure(gather(x, y, 4), w, b, features=x, labels=y, targets=["etf"])
        got, want = values(report), values(want)
        assert got.keys() == want.keys()
        assert got == pytest.approx(want, rel=1e-9, abs=1e-10)

    def test_features_of_a_network_without_a_graph(self, network):
        x, y, w, b = network
        layer = torch.nn.Linear(6, 6).double()
        seen = []

        def features(inputs):
            seen.append(torch.is_grad_enabled())
            return layer(inputs)

        batches = [(torch.tensor(a), torch.tensor(c)) for a, c in self.batches(x, y)]
        report = CollapseReport.from_loader(batches, w, b, features=features)
        hidden = layer(torch.tensor(x)).detach()
        want = CollapseReport.measure(gather(hidden.numpy(), y, 4), w, b, features=hidden)
        assert report.nc1 == pytest.approx(want.nc1, rel=1e-9)
        assert report.nc4 == want.nc4
        assert seen == [False] * 2 * len(batches)

    def test_one_pass(self, network):
        x, y, w, _ = network
        batches = self.batches(x, y)
        passes = []

        def given():
            passes.append(1)
            return batches

        report = CollapseReport.from_loader(given, w, nc4=False)
        assert report.nc4 is None
        assert report.accuracy is None
        assert len(passes) == 1
        CollapseReport.from_loader(given, w)
        assert len(passes) == 3
        assert CollapseReport.from_loader(iter(batches), w, nc4=False).nc1 == report.nc1
        light = CollapseReport.from_loader(batches, w, scatter=False, nc4=False)
        assert light.nc1 is None

    def test_refusals(self, network):
        x, y, w, _ = network
        batches = self.batches(x, y)
        with pytest.raises(ValueError, match="batches: got an iterator, which can be used only"):
            CollapseReport.from_loader(iter(batches), w)
        with pytest.raises(ValueError, match="batches: got no samples"):
            CollapseReport.from_loader([], w)
        with pytest.raises(ValueError, match="batches: batch 0 is a ndarray, need a pair"):
            CollapseReport.from_loader([x], w)
        with pytest.raises(ValueError, match="weight: missing"):
            CollapseReport.from_loader(batches)
        turns = iter([batches, batches[:-1]])
        with pytest.raises(ValueError, match="batches: the second pass gave 49 samples"):
            CollapseReport.from_loader(lambda: next(turns), w)
        moments = gather(x, y, 4)
        with pytest.raises(ValueError, match="weight: missing; give it, or the layers"):
            CollapseReport.measure(moments)
        with pytest.raises(ValueError, match="labels: given without features"):
            CollapseReport.measure(moments, w, labels=y)
        with pytest.raises(ValueError, match="targets: got 'frame'"):
            CollapseReport.measure(moments, w, targets=["frame"])
        with pytest.raises(ValueError, match="targets: got a geometry of 3 classes, need 4"):
            CollapseReport.measure(moments, w, targets=simplex_etf(3))
        with pytest.raises(ValueError, match="targets: got int, need a list"):
            CollapseReport.measure(moments, w, targets=3)
        with pytest.raises(ValueError, match=r"groups: got shape \(2,\)"):
            CollapseReport.measure(moments, w, groups=[1, 2])


class TestViews:
    @pytest.fixture
    def report(self, network):
        x, y, w, b = network
        return CollapseReport.measure(gather(x, y, 4), w, b, features=x)

    def test_frame(self, report):
        frame = report.to_frame()
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.columns) == ["metric", "part", "target", "value"]
        assert frame.value.dtype == np.float64
        assert [tuple(row) for row in frame.itertuples(index=False)] == list(report.rows)
        assert not frame.duplicated(["metric", "part", "target"]).any()

    def test_json(self, report, tmp_path):
        text = report.to_json(tmp_path / "deep" / "report.json")
        assert read_json(tmp_path / "deep" / "report.json") == json.loads(text)
        assert json.loads(text) == report.to_dict()
        rows = [tuple(row.values()) for row in json.loads(text)["metrics"]]
        assert rows == list(report.rows)
        assert report.to_json() == text

    def test_table(self, report):
        table = report.to_table()
        assert table.row_count == len(report.rows)
        console = Console(width=120, file=io.StringIO())
        console.print(report)
        shown = console.file.getvalue()
        assert f"{report.nc1:.6g}" in shown
        assert "50 samples, 4 classes" in shown
        assert shown.count("simplex ETF") == sum(row.target == "simplex ETF" for row in report.rows)

    def test_of_many_classes_is_shown_at_once(self, network, monkeypatch):
        x, y, w, _ = network
        many = CollapseReport.measure(gather(x, y, 4), w)
        monkeypatch.setattr("tightframe.metrics.report.MAX_DENSE_CLASSES", 3)

        def shown():
            console = Console(width=120, file=io.StringIO())
            console.print(many)
            return console.file.getvalue()

        text = shown()
        assert f"{many.nc1:.6g}" in text
        assert "nc2" not in text
        assert "`rows` and `to_frame` have them" in text
        assert len(many.rows) > len(many.numbers)
        assert "nc2" in shown()  # as it is known now

    def test_plot(self, report, tmp_path):
        figure, _ = report.plot()
        distances, norms, logits = figure.axes[:3]
        widths = sorted(patch.get_width() for patch in distances.patches)
        want = sorted(row.value for row in report.rows if row.metric in ("nc2", "nc3"))
        np.testing.assert_allclose(widths, want)
        line = norms.lines[0].get_ydata()
        own = report.norms()["classifier"]
        np.testing.assert_allclose(line, own / own.mean())
        np.testing.assert_array_equal(logits.images[0].get_array(), report.logits)
        figure.savefig(tmp_path / "report.png")
        assert (tmp_path / "report.png").stat().st_size > 10_000

    def test_plot_names_the_classes(self):
        names = ["T-shirt/top", "$5 to $10", "<b>bold</b>", "a name that is much too long for it"]
        moments = gather(np.random.default_rng(0).normal(size=(40, 5)), np.arange(40) % 4, 4)
        report = CollapseReport.measure(moments, np.eye(4, 5), class_names=names)
        figure, _ = report.plot()
        figure.canvas.draw()
        _, norms, logits = figure.axes[:3]
        for labels in (norms.get_xticklabels(), logits.get_xticklabels(), logits.get_yticklabels()):
            read = [label._preprocess_math(label.get_text()) for label in labels]
            assert [text for text, _ in read[:3]] == names[:3]
            assert not any(mathematics for _, mathematics in read)
            assert len(read[3][0]) <= 16
        for panel in sheet_of(report).blocks[0].panels[1:]:
            (axis,) = (plotly.draw(panel)["layout"][f"{a}axis"] for a in "x")
            # What Plotly shows of HTML.
            assert [html.unescape(text) for text in axis["ticktext"]][:3] == names[:3]
            assert "<b>" not in " ".join(axis["ticktext"])

    def test_plot_of_nothing_that_has_a_value(self):
        moments = gather(np.ones((6, 4)), np.arange(6) % 3, 3)
        with pytest.warns(RuntimeWarning):
            report = CollapseReport.measure(moments, np.zeros((3, 4)))
        with pytest.warns(RuntimeWarning):
            figure, _ = report.plot()
        texts = [text.get_text() for axis in figure.axes for text in axis.texts]
        assert "all vectors are zero" in texts

    def test_missing_packages_are_named(self, report, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)
        with pytest.raises(ImportError, match="to_frame needs pandas: pip install"):
            report.to_frame()
        monkeypatch.setitem(__import__("sys").modules, "tightframe.figures.mpl", None)
        with pytest.raises(ImportError, match="plot needs matplotlib: pip install"):
            report.plot()
