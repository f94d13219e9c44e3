"""CollapseMetric against the two-pass reference and inside torchmetrics and Lightning."""

import copy
import pickle
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MetricCollection

import tightframe as tf
from tests.metrics.samples import quick, streams
from tests.reference import two_pass
from tightframe.metrics import ClassMoments, CollapseReport, nc1, nc2
from tightframe.metrics.torchmetrics import CollapseMetric

matplotlib.use("Agg")

pytestmark = pytest.mark.filterwarnings("error")

ALONE = ["nc1", "nc1_quotient", "cdnv", "nc2", "equinorm", "equiangularity"]
WITH_CLASSIFIER = [
    "nc2_classifier",
    "nc3",
    "self_duality",
    "bias_alignment",
    "equinorm_classifier",
    "equiangularity_classifier",
]


def samples(n=40, k=4, d=6, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return rng.normal(size=(k, d))[y] + 0.3 * rng.normal(size=(n, d)), y


def linear(k=4, d=6, bias=True):
    layer = nn.Linear(d, k, bias=bias)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    return layer


def numbers(values):
    return {name: float(value) for name, value in values.items()}


def filled(n=40, **options):
    metric = CollapseMetric(4, **options)
    metric.update(*samples(n))
    return metric


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = linear()
        self.metric = CollapseMetric(4, classifier=self.head)


class TestValues:
    def test_against_the_two_pass_reference(self):
        x, y = samples()
        layer = linear()
        w, b = (t.detach().double().numpy() for t in (layer.weight, layer.bias))
        found = numbers(filled(classifier=layer).compute())
        assert list(found) == ALONE + WITH_CLASSIFIER
        grams = two_pass.grams(x, y, 4, w)
        etf = np.eye(4) - 1 / 4
        means = two_pass.class_means(x, y, 4)
        centered = means - means.mean(axis=0)
        norms, rows = np.linalg.norm(centered, axis=1), np.linalg.norm(w, axis=1)
        above = np.triu_indices(4, 1)
        want = {
            "nc1": two_pass.nc1(x, y, 4),
            "nc1_quotient": two_pass.nc1_quotient(x, y, 4),
            "cdnv": two_pass.cdnv(x, y, 4),
            "nc2": two_pass.frobenius_distance(grams["centered_means"], etf),
            "equinorm": norms.std() / norms.mean(),
            "equiangularity": (centered @ centered.T / np.outer(norms, norms))[above].std(),
            "nc2_classifier": two_pass.frobenius_distance(grams["classifier"], etf),
            "nc3": two_pass.frobenius_distance(w @ centered.T, etf),
            "self_duality": two_pass.self_duality(x, y, 4, w),
            "bias_alignment": two_pass.bias_alignment(x, y, 4, w, b),
            "equinorm_classifier": rows.std() / rows.mean(),
            "equiangularity_classifier": (w @ w.T / np.outer(rows, rows))[above].std(),
        }
        assert found == pytest.approx(want, rel=1e-10)

    @quick
    @given(streams(min_classes=2), st.data())
    def test_any_split_order_and_merge_is_the_two_pass_answer(self, stream, data):
        x, y, k = stream
        shards = data.draw(st.integers(1, 4))
        owner = np.array(
            data.draw(st.lists(st.integers(0, shards - 1), min_size=len(y), max_size=len(y)))
        )
        merged = CollapseMetric(k, scatter=False)
        for s in data.draw(st.permutations(range(shards))):
            part = CollapseMetric(k, scatter=False)
            own = np.flatnonzero(owner == s)
            for rows in np.array_split(own, data.draw(st.integers(1, 3))):
                part.update(x[rows], y[rows])
            merged.merge_state(part)
        assert float(merged.compute()["nc1_quotient"]) == pytest.approx(
            two_pass.nc1_quotient(x, y, k), rel=1e-9
        )

    def test_values_are_float64_scalars(self):
        for value in filled().compute().values():
            assert (value.dtype, value.shape) == (torch.float64, ())

    def test_a_predicted_geometry_is_the_target(self):
        x, y = samples()
        seli = tf.seli("10x2,2x2")
        weight = linear().weight
        centered = numbers(filled(classifier=weight, target=seli).compute())
        raw = numbers(filled(classifier=weight, target=seli, centered=False).compute())
        grams = two_pass.grams(x, y, 4, weight.detach().double().numpy())
        for name, measured, want in (
            ("nc2", grams["centered_means"], seli.centered_means),
            ("nc2_classifier", grams["classifier"], seli.classifier),
        ):
            assert centered[name] == pytest.approx(two_pass.frobenius_distance(measured, want))
        for name, measured, want in (
            ("nc2", grams["means"], seli.means),
            ("nc3", grams["logits"], seli.logits),
        ):
            assert raw[name] == pytest.approx(two_pass.frobenius_distance(measured, want))

    def test_the_classifier_picks_the_seli_geometry(self):
        weight, layer = linear().weight, linear()
        for head, bias in ((weight, "none"), (layer, "free")):
            named = numbers(filled(classifier=head, target="seli").compute())
            counts = filled(classifier=head).moments.counts.tolist()
            exact = numbers(filled(classifier=head, target=tf.seli(counts, bias)).compute())
            assert named == pytest.approx(exact, rel=1e-9, nan_ok=True)
        with pytest.raises(ValueError, match="'seli' depends on"):
            CollapseMetric(4, target="seli")

    def test_the_moments_are_a_copy_for_everything_else(self):
        layer = linear()
        metric = filled(classifier=layer)
        report = CollapseReport.measure(metric.moments, layer.weight, layer.bias)
        assert report.nc1 == float(metric.compute()["nc1"])
        metric.moments.update(*samples())
        assert metric.moments.num_samples == 40

    def test_options_of_the_moments(self):
        x, y = samples()
        x[3, 0], y[5] = np.nan, -100
        metric = CollapseMetric(4, scatter=False, ignore_index=-100, nonfinite="drop")
        with pytest.warns(RuntimeWarning, match="dropped 1 row"):
            metric.update(x, y)
        metric.update(x, y)  # no second warning
        assert (metric.moments.num_dropped, metric.moments.num_ignored) == (2, 2)
        assert list(metric.compute()) == ALONE[1:]
        metric.reset()
        assert metric.moments.num_dropped == 0


class TestClassifier:
    def test_every_form_is_the_same(self):
        layer = linear()
        forms = (
            layer,
            (layer.weight, layer.bias),
            lambda: layer,
            lambda: (layer.weight.detach().numpy(), layer.bias),
        )
        want = numbers(filled(classifier=layer).compute())
        for form in forms:
            assert numbers(filled(classifier=form).compute()) == want
        # Without bias, b = 0.
        for form in (layer.weight, layer.weight.tolist(), lambda: layer.weight):
            found = numbers(filled(classifier=form).compute())
            assert found["bias_alignment"] != want["bias_alignment"]
            assert {n: v for n, v in found.items() if n != "bias_alignment"} == {
                n: v for n, v in want.items() if n != "bias_alignment"
            }

    def test_it_is_read_when_computing_and_not_owned(self):
        layer = linear()
        metric = filled(classifier=layer)
        before = numbers(metric.compute())
        with torch.no_grad():
            layer.weight.add_(torch.eye(4, 6))
        after = numbers(metric.compute())
        assert after["nc1"] == before["nc1"]
        assert after["self_duality"] != before["self_duality"]
        assert not list(metric.parameters())
        assert not list(metric.children())

    def test_copies_read_the_same_classifier_unless_it_is_copied_along(self):
        def reads(metric, head):
            metric.reset()
            metric.update(*samples())
            before = metric.compute()["self_duality"]
            with torch.no_grad():
                head.weight.add_(torch.eye(4, 6))
            metric.update(*samples())
            return bool(metric.compute()["self_duality"] != before)

        net = Net()
        assert reads(net.metric.clone(), net.head)
        collection = MetricCollection([net.metric]).clone(prefix="val_")
        assert reads(collection["CollapseMetric"], net.head)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert reads(twin.metric, twin.head)
            assert not reads(twin.metric, net.head)

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            (nn.ReLU(), "classifier: got a ReLU without a weight"),
            (lambda: nn.ReLU(), "classifier: got a ReLU without a weight"),
            (torch.ones(3, 6), r"weight: got shape \(3, 6\), need \(4, 6\)"),
            (lambda: "weight", "classifier: got str"),
        ],
    )
    def test_refusals(self, form, message):
        with pytest.raises(ValueError, match=message):
            filled(classifier=form).compute()


class Scaled(nn.Linear):
    """Twice its weight, and half its bias."""

    def forward(self, x):
        return nn.functional.linear(x, 2 * self.weight, self.bias / 2)


class LowRank(nn.Linear):
    """As peft's adapters: the base layer's weight is not what is applied."""

    def __init__(self, dim, num_classes):
        super().__init__(dim, num_classes)
        self.dropout, self.down = nn.Dropout(0.5), nn.Linear(dim, 2, bias=False)
        self.up = nn.Linear(2, num_classes, bias=False)

    def forward(self, x):
        return super().forward(x) + self.up(self.down(self.dropout(x)))


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(nn.functional.normalize(x), self.weight)


class Squashed(nn.Linear):
    def forward(self, x):
        return super().forward(x).tanh()


class WithLabels(nn.Linear):
    def forward(self, x, labels):
        return super().forward(x) + labels


class TestModulesThatComputeSomethingElse:
    @pytest.mark.parametrize("kind", [Scaled, LowRank])
    def test_what_a_module_applies_counts(self, kind):
        torch.manual_seed(2)
        layer = kind(6, 4)  # in train mode
        with torch.no_grad():
            if kind is Scaled:
                weight, bias = 2 * layer.weight, layer.bias / 2
            else:
                weight, bias = layer.weight + layer.up.weight @ layer.down.weight, layer.bias
        want = numbers(filled(classifier=(weight, bias)).compute())
        assert numbers(filled(classifier=layer).compute()) == pytest.approx(want, rel=1e-4)
        assert layer.training

    def test_a_weight_norm_is_read_as_the_weight_that_it_makes(self):
        torch.manual_seed(2)
        layer = nn.utils.parametrizations.weight_norm(linear())
        pair = (layer.weight.detach(), layer.bias)
        assert numbers(filled(classifier=layer).compute()) == numbers(
            filled(classifier=pair).compute()
        )

    def test_what_is_no_linear_map_of_the_features_is_refused(self):
        with pytest.raises(ValueError, match=r"classifier: got a Cosine, .* of unit length"):
            filled(classifier=Cosine(6, 4, bias=False)).compute()
        with pytest.raises(ValueError, match=r"classifier: got a Squashed, .* give W h \+ b"):
            filled(classifier=Squashed(6, 4)).compute()

    def test_what_cannot_be_probed_is_said(self):
        layer = WithLabels(6, 4)
        with pytest.warns(RuntimeWarning, match="WithLabels does not run on rows of features"):
            found = numbers(filled(classifier=layer).compute())
        assert found == numbers(filled(classifier=(layer.weight, layer.bias)).compute())


class TestStates:
    def test_forward_gives_the_batch_and_gathers_all(self):
        x, y = samples()
        metric = CollapseMetric(4)
        for rows in (slice(0, 13), slice(13, 40)):
            alone = CollapseMetric(4)
            alone.update(x[rows], y[rows])
            assert numbers(metric(x[rows], y[rows])) == pytest.approx(numbers(alone.compute()))
        assert numbers(metric.compute()) == pytest.approx(numbers(filled().compute()), rel=1e-12)
        assert metric.update_count == 2

    def test_reset(self):
        metric = filled()
        metric.reset()
        assert metric.moments.num_samples == 0
        metric.update(np.ones((3, 9)), [0, 1, 2])  # of another width
        assert metric.moments.dim == 9
        fixed = CollapseMetric(4, dim=6)
        fixed.reset()
        with pytest.raises(ValueError, match="got 9 columns, need 6"):
            fixed.update(np.ones((3, 9)), [0, 1, 2])

    def test_a_computed_value_is_not_kept_beyond_its_samples(self):
        metric, other = filled(12), filled(40)
        stale = numbers(metric.compute())
        metric.merge_state(other)
        assert numbers(metric.compute()) != stale
        assert metric.moments.num_samples == 52

    def test_merge_state_of_a_dict_and_of_nothing(self):
        metric, empty = filled(), CollapseMetric(4)
        empty.merge_state(metric.metric_state)
        assert numbers(empty.compute()) == numbers(metric.compute())
        metric.merge_state(CollapseMetric(4))
        assert metric.moments.num_samples == 40
        with pytest.raises(ValueError, match="incoming_state: has no entry 'counts'"):
            metric.merge_state({})
        with pytest.raises(ValueError, match="num_classes is"):
            metric.merge_state(CollapseMetric(3))
        assert metric.moments.num_samples == 40

    def test_saved_and_loaded(self):
        metric = filled()
        assert not metric.state_dict()  # as everywhere in torchmetrics
        metric.persistent(True)
        saved = metric.state_dict()
        loaded = CollapseMetric(4)
        assert not loaded.load_state_dict({n: t.clone() for n, t in saved.items()}).missing_keys
        assert numbers(loaded.compute()) == numbers(metric.compute())
        loaded.update(*samples())
        assert metric.moments.num_samples == 40  # nothing is shared
        for change, message in (
            ({"counts": torch.tensor([1, -1, 0, 0])}, "counts has entries out of range"),
            ({"sums": torch.full((4, 6), np.nan).double()}, "sums has entries out of range"),
            ({"products": torch.zeros(2, 2).double()}, "products is"),
        ):
            with pytest.raises(RuntimeError, match=message):
                loaded.load_state_dict(saved | change)
        assert loaded.moments.num_samples == 80

    def test_clone_and_pickle(self):
        metric = filled()
        for twin in (metric.clone(), pickle.loads(pickle.dumps(metric))):
            assert numbers(twin.compute()) == numbers(metric.compute())
            twin.update(*samples())
            assert twin.moments.num_samples == 80
        assert metric.moments.num_samples == 40

    @pytest.mark.parametrize(
        "convert",
        [
            lambda m: m.half(),
            lambda m: m.to(torch.float16),
            lambda m: m.set_dtype(torch.float16),
            lambda m: nn.ModuleList([m]).half()[0],
            lambda m: nn.ModuleList([m]).to(torch.bfloat16)[0],
            lambda m: nn.ModuleList([m]).to("cpu", torch.float32)[0],
        ],
    )
    def test_no_conversion_touches_the_state(self, convert):
        metric = filled()
        want = numbers(metric.compute())
        metric = convert(metric)
        assert numbers(metric.compute()) == want
        metric.reset()
        assert metric.sums.dtype == metric.products.dtype == torch.float64
        assert metric.counts.dtype == torch.int64

    def test_follows_a_move_to_another_device(self):
        metric = filled().to("meta")  # the one other device that every machine has
        assert metric.device.type == metric.counts.device.type == "meta"
        metric.reset()
        assert metric.counts.device.type == "meta"

    def test_reset_in_inference_mode_and_update_outside(self):
        metric = filled()
        with torch.inference_mode():
            metric.reset()
            metric.update(*samples())
            metric.compute()
            metric.reset()
        metric.update(*samples())
        with torch.inference_mode():
            metric(*samples())
        metric.update(*samples())
        assert metric.moments.num_samples == 120
        with torch.inference_mode():
            twin = metric.clone()  # of tensors that refuse to be written to outside
        twin.update(*samples())
        assert twin.moments.num_samples == 160

    def test_gradients_are_not_followed(self):
        x, y = samples()
        layer = linear().double()
        metric = CollapseMetric(4, classifier=layer)
        values = metric(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y))
        assert not any(value.requires_grad for value in values.values())


class Products(TorchDispatchMode):
    """Counts the D x D products that are added: one panel of each has all D columns."""

    def __init__(self, dim):
        super().__init__()
        self.dim, self.count = dim, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.count += args[0].shape[-1] == self.dim
        return function(*args, **(kwargs or {}))


class TestBuffer:
    """Rows wait for one large product, and nothing can be read before they are summed."""

    def batches(self, number=150, size=32, dim=512):
        generator = torch.Generator().manual_seed(0)
        for _ in range(number):
            yield torch.randn(size, dim, generator=generator), torch.arange(size) % 4

    def test_many_small_updates_cost_few_products(self):
        spent = []
        for gathering in (CollapseMetric(4), ClassMoments(4)):
            with Products(512) as products:
                for batch in self.batches():
                    gathering.update(*batch)
            spent.append(products.count)
        assert spent == [4, 4]

    def test_so_they_do_in_a_collection(self):
        collection = MetricCollection([CollapseMetric(4)])
        with Products(512) as products:
            for batch in self.batches(40):
                collection.update(*batch)
        assert products.count == 1

    def test_metrics_of_a_collection_share_complete_states(self):
        metrics = {"centered": CollapseMetric(4), "raw": CollapseMetric(4, centered=False)}
        collection = MetricCollection(metrics)
        moments = ClassMoments(4)
        for x, y in self.batches(3, dim=6):
            collection.update(x, y)
            moments.update(x, y)
            raw = numbers(collection["raw"].compute())
            assert raw["nc2"] == pytest.approx(nc2(moments, part="means"), rel=1e-10)
        assert len(collection.compute_groups) == 1
        found = numbers(collection.compute())
        assert found["centered_nc2"] == pytest.approx(nc2(moments), rel=1e-10)
        assert found["raw_nc1"] == pytest.approx(nc1(moments), rel=1e-10)
        collection.reset()
        assert collection["raw"].moments.num_samples == 0

    @pytest.mark.parametrize(
        "read",
        [
            lambda m: m.sums,
            lambda m: m.metric_state["sums"],
            lambda m: m.clone().sums,
            lambda m: pickle.loads(pickle.dumps(m)).sums,
            lambda m: (m.persistent(True), m.state_dict()["sums"])[1],
            lambda m: m.moments.tensors().sums,
        ],
    )
    def test_states_are_complete_wherever_they_are_read(self, read):
        metric = filled(30)  # all of them still wait
        x, y = samples(30)
        sums = np.stack([(x[y == k] - x[k]).sum(axis=0) for k in range(4)])
        np.testing.assert_allclose(read(metric), sums, atol=1e-13)

    def test_reset_forgets_the_rows_that_wait(self):
        metric = filled()
        with Products(6) as products:
            metric.reset()
        assert products.count == 0
        metric.update(*samples(20, seed=1))
        fresh = CollapseMetric(4)
        fresh.update(*samples(20, seed=1))
        assert numbers(metric.compute()) == numbers(fresh.compute())

    def test_a_merged_state_is_left_as_it_was(self):
        metric, empty = filled(), CollapseMetric(4)
        empty.merge_state(metric.metric_state)
        empty.update(*samples(20, seed=1))
        assert numbers(metric.compute()) == numbers(filled().compute())


class TestDegenerate:
    @pytest.mark.parametrize("labels", [[], [2, 2, 2]])
    def test_fewer_than_two_classes_are_nan_with_a_warning(self, labels):
        metric = CollapseMetric(4, classifier=linear())
        metric.update(np.ones((len(labels), 6)), labels)
        with pytest.warns(RuntimeWarning, match=r"of 4 classes have samples; with fewer than 2"):
            found = metric.compute()
        assert list(found) == ALONE + WITH_CLASSIFIER
        assert all(torch.isnan(value) for value in found.values())

    def test_missing_classes_are_left_out_with_one_warning(self):
        x, y = samples()
        layer = linear()
        kept = y != 1
        metric = CollapseMetric(4, classifier=layer)
        metric.update(x[kept], y[kept])
        with pytest.warns(RuntimeWarning) as caught:
            found = numbers(metric.compute())
        assert [str(w.message) for w in caught] == [
            "CollapseMetric: class 1 is without samples and left out"
        ]
        three, rows = np.unique(y[kept], return_inverse=True)
        assert found["nc1"] == pytest.approx(two_pass.nc1(x[kept], rows, 3))
        w = layer.weight.detach().double().numpy()[three]
        assert found["self_duality"] == pytest.approx(two_pass.self_duality(x[kept], rows, 3, w))

    def test_equal_means_never_flatter(self):
        metric = CollapseMetric(2)
        metric.update(np.ones((4, 3)), [0, 1, 0, 1])
        with pytest.warns(RuntimeWarning):
            found = numbers(metric.compute())
        assert all(found[n] == np.inf for n in ALONE[:3])
        assert all(np.isnan(found[n]) for n in ALONE[3:])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_classes": 0}, "num_classes: got 0"),
            ({"target": "simplex"}, "target: got 'simplex'"),
            ({"target": tf.simplex_etf(3)}, "target: got a geometry of 3 classes"),
            ({"target": "general_orthogonal_frame"}, "give centered=False"),
            ({"nonfinite": "keep"}, "nonfinite: got 'keep', allowed are raise, drop"),
            ({"dtype": torch.float16}, "dtype: got torch.float16, allowed are torch.float64"),
            ({"ignore_index": 1.5}, "ignore_index: got 1.5"),
            ({"colour": 1}, "Unexpected keyword arguments: `colour`"),
        ],
    )
    def test_refused_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            CollapseMetric(**({"num_classes": 4} | options))

    def test_a_general_orthogonal_frame_without_centring(self):
        found = numbers(filled(target="general_orthogonal_frame", centered=False).compute())
        assert 0 < found["nc2"] < 2


class TestInside:
    def test_a_collection_updates_equal_metrics_once(self):
        x, y = samples()
        layer = linear()
        collection = MetricCollection(
            {"plain": CollapseMetric(4), "head": CollapseMetric(4, classifier=layer)}, prefix="val_"
        )
        for rows in np.array_split(np.arange(40), 3):
            collection.update(x[rows], y[rows])
        found = numbers(collection.compute())
        assert found["val_head_self_duality"] == pytest.approx(
            float(filled(classifier=layer).compute()["self_duality"])
        )
        assert found["val_plain_nc1"] == found["val_head_nc1"]
        assert len(collection.compute_groups) == 1
        collection.reset()
        collection.update(x, y)
        assert collection["plain"].moments.num_samples == 40

    def test_plots_one_value_and_a_series(self):
        from matplotlib import pyplot

        metric = filled()
        _, axes = metric.plot()
        assert len(axes.get_legend_handles_labels()[1]) == len(ALONE)
        _, axes = metric.plot([metric.compute(), metric.compute(), metric.compute()])
        assert {len(line.get_xdata()) for line in axes.get_lines()} >= {3}
        pyplot.close("all")

    def test_lightning_logs_it(self, tmp_path):
        import lightning

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.head = linear().double()
                self.collapse = CollapseMetric(4, classifier=self.head)
                self.steps = MetricCollection([CollapseMetric(4)], prefix="step_")

            def training_step(self, batch):
                x, y = batch
                return nn.functional.cross_entropy(self.head(x), y)

            def validation_step(self, batch):
                self.collapse.update(*batch)
                self.log_dict(self.steps(*batch), on_step=False, on_epoch=True)

            def on_validation_epoch_end(self):
                self.log_dict(self.collapse.compute())
                self.collapse.reset()

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.0)

        x, y = (torch.from_numpy(t) for t in samples())
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 20)
        module = Module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's own
            trainer = lightning.Trainer(
                max_epochs=2,
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=tmp_path,
            )
            trainer.fit(module, loader, loader)
        want = numbers(filled(classifier=module.head).compute())
        logged = numbers(trainer.callback_metrics)
        assert {n: logged[n] for n in want} == pytest.approx(want, rel=1e-6)
        assert logged["step_nc1"] > 0


def test_codes_of_a_quantised_layer_are_no_weight():
    layer = torch.nn.Linear(4, 3)
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="got a Linear, quantised: it stores codes of type int8"):
        CollapseMetric(3, classifier=layer)
