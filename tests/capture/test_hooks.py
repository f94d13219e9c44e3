"""Features caught by hooks: layer-wise reports and watched loops against plain NumPy."""

import gc
import random
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from tests import processes
from tests.reference import two_pass
from tightframe.capture.gather import LayerMoments, least_squares_classifier
from tightframe.capture.hooks import Recorder
from tightframe.capture.layers import collapse_report, layer_moments, layer_scalars
from tightframe.capture.watch import watch
from tightframe.data.batches import sample_rows
from tightframe.heads import FixedETF
from tightframe.heads.find import find_head, find_module
from tightframe.heads.modes import evaluating
from tightframe.metrics.class_moments import ClassMoments

pytestmark = pytest.mark.filterwarnings("error")

K = 3
GENERATOR = torch.Generator().manual_seed(5)
LABELS = torch.arange(30) % K
IMAGES = torch.randn(30, 1, 6, 6, generator=GENERATOR) + LABELS[:, None, None, None]
BATCHES = [(IMAGES[:13], LABELS[:13]), (IMAGES[13:14], LABELS[13:14]), (IMAGES[14:], LABELS[14:])]


class Net(nn.Module):
    def __init__(self, dropout=0.5):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Dropout(dropout))
        self.fc = nn.Linear(5, K)

    def forward(self, x):
        return self.fc(self.body(self.norm(self.conv(x))))


def net(**options):
    torch.manual_seed(1)
    return Net(**options)


def arrays(model, x=IMAGES):
    """Features of every layer in float64 NumPy, from explicit calls."""
    model.eval()
    with torch.no_grad():
        conv = model.conv(x)
        last = model.body(model.norm(conv))
        logits = model.fc(last)
    pooled = conv.double().numpy().mean(axis=(2, 3))
    flat = conv.double().numpy().reshape(len(x), -1)
    return pooled, flat, last.double().numpy(), logits.double().numpy()


def nearest(x, y, classes=K):
    means = two_pass.class_means(x, y, classes)
    return np.linalg.norm(x[:, None] - means, axis=2).argmin(axis=1)


# -- finding modules -----------------------------------------------------------------------------


def test_unknown_names_list_near_ones():
    with pytest.raises(ValueError, match=r"Net has no module 'body.L'; near names: .*body"):
        find_module(net(), "body.L")
    with pytest.raises(ValueError, match=r"no module 'head.fc'; near names: fc"):
        collapse_report(net(), BATCHES, head="head.fc")
    with pytest.raises(ValueError, match=r"no module 'convv'; near names: conv"):
        layer_moments(net(), BATCHES, ["convv"], K)


def test_head_without_weight():
    with pytest.raises(ValueError, match=r"head: 'conv' is a Conv2d without a linear layer.*fc"):
        find_head(net(), "conv")


def test_heads_are_found():
    class OutProj(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense, self.dropout = nn.Linear(4, 4), nn.Dropout()
            self.out_proj = nn.Linear(4, 2)

    model = nn.ModuleDict({"bert": nn.Linear(4, 4), "classifier": OutProj()})
    head = find_head(model)
    assert (head.name, head.num_classes) == ("classifier.out_proj", 2)
    assert find_head(nn.ModuleDict({"score": FixedETF(4, 3)})).num_classes == 3
    two = nn.ModuleDict({"fc": nn.Linear(2, 2), "score": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="the model has 'fc' and 'score'; name the classifier"):
        find_head(two)
    with pytest.raises(ValueError, match=r"the model has none; .* linear layers are 0, 1"):
        find_head(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))


def test_deep_linear_head_is_its_product():
    torch.manual_seed(0)
    layers = [nn.Linear(5, 4, bias=False), nn.Linear(4, K)]
    model = net()
    model.fc = nn.Sequential(*layers)
    head = find_head(model, "fc")
    assert torch.allclose(head.weight, layers[1].weight @ layers[0].weight)
    report = collapse_report(model, BATCHES, head="fc")["fc"]
    logits = arrays(model)[3]
    expected = np.stack([logits[k == LABELS].mean(axis=0) for k in range(K)], axis=1)
    assert report.logits == pytest.approx(expected, abs=1e-5)
    assert report.layers


@pytest.mark.parametrize(("bias", "name"), [(False, "SELI"), (True, "free-bias SELI")])
def test_the_head_picks_the_seli_geometry_for_all_layers(bias, name):
    """A hidden layer is read by a probe with a bias; the network has one or not."""
    model = net()
    model.fc = nn.Linear(model.fc.in_features, K, bias=bias)
    reports = collapse_report(model, BATCHES, ["conv"], num_classes=K, targets=["etf", "seli"])
    for report in reports.values():
        names = {row.target for row in report.rows if row.metric == "nc2"}
        assert names == {"simplex ETF", name}
        assert len(report.notes) == 1


# -- one pass for all layers ---------------------------------------------------------------------


def test_reports_of_all_layers_against_numpy():
    model, y = net(), LABELS.numpy()
    reports = collapse_report(
        model, BATCHES, ["conv", "norm"], num_classes=K, reduce={"norm": "flatten"}
    )
    assert list(reports) == ["conv", "norm", "fc"]
    pooled, _, last, logits = arrays(model)
    with torch.no_grad():
        flat = model.norm(model.conv(IMAGES)).double().numpy().reshape(30, -1)
    decided = logits.argmax(axis=1)
    for name, x in (("conv", pooled), ("norm", flat), ("fc", last)):
        report = reports[name]
        assert report.num_samples == 30
        assert report.nc1 == pytest.approx(two_pass.nc1(x, y, K), rel=1e-4)
        assert report.nc1_quotient == pytest.approx(two_pass.nc1_quotient(x, y, K), rel=1e-5)
        assert report.nc4 == pytest.approx(np.mean(nearest(x, y) != decided))
        assert report.nearest_center_accuracy == pytest.approx(np.mean(nearest(x, y) == y))
    assert reports["fc"].accuracy == pytest.approx(np.mean(decided == y))
    weight = model.fc.weight.detach().double().numpy()
    assert reports["fc"].geometry.classifier == pytest.approx(weight @ weight.T)
    assert 0 < reports["conv"].nc4 < 1


def test_one_forward_pass_a_batch_and_a_second_only_for_nc4():
    for nc4, passes in ((False, 3), (True, 6)):
        model, calls = net(), []
        model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        reports = collapse_report(model, BATCHES, ["conv", "body.1"], nc4=nc4, check=False)
        assert len(calls) == passes
        assert all((r.nc4 is not None) == nc4 for r in reports.values())


def test_without_scatter_there_is_everything_but_nc1():
    full = layer_scalars(collapse_report(net(), BATCHES))
    light = layer_scalars(collapse_report(net(), BATCHES, scatter=False))
    assert set(full) - set(light) == {"nc1", "nc1_rank"}
    assert light == pytest.approx({name: full[name] for name in light}, rel=1e-9)
    for call in (
        collapse_report,
        lambda *args, **options: watch(args[0], "fc", args[2], **options),
    ):
        with pytest.raises(ValueError, match="scatter: got False, hidden layers need it"):
            call(net(), BATCHES, ["conv"], scatter=False)
    model = net().eval()
    with watch(model, scatter=False) as watched:
        model(IMAGES)
        watched.labels(LABELS)
    assert watched.report().nc1 is None


def test_an_iterator_is_refused_only_for_nc4():
    with pytest.raises(ValueError, match="loader: got an iterator, which can be read once"):
        collapse_report(net(), iter(BATCHES))
    assert collapse_report(net(), iter(BATCHES), nc4=False)["fc"].num_samples == 30


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(fails):
    model = net()
    model.train()
    model.norm.eval()
    if fails:
        model.body.append(Failing())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    loader = torch.utils.data.DataLoader(
        list(zip(IMAGES, LABELS, strict=True)), batch_size=7, shuffle=True
    )
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            collapse_report(model, loader, ["conv"], "fc")
    else:
        collapse_report(model, loader, ["conv"], "fc")
    assert [m.training for m in model.modules()] == modes
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_features_that_change_are_noticed():
    class AlwaysDrop(nn.Dropout):
        def forward(self, x):
            return nn.functional.dropout(x, 0.5)

    model = net()
    model.body[3] = AlwaysDrop()
    with pytest.warns(RuntimeWarning, match=r"other features at 'fc'.*body.3 \(AlwaysDrop\)"):
        collapse_report(model, BATCHES, nc4=False)
    collapse_report(model, BATCHES, nc4=False, check=False)


def test_missing_class_is_reported():
    batches = [(IMAGES[LABELS < 2], LABELS[LABELS < 2])]
    with pytest.warns(RuntimeWarning, match="class 2 is without samples"):
        report = collapse_report(net(), batches)["fc"]
    assert report.missing == (2,)
    y = LABELS.numpy()[LABELS < 2]
    x = arrays(net())[2][LABELS < 2]
    assert report.nc1_quotient == pytest.approx(two_pass.nc1_quotient(x, y, 2), rel=1e-5)


def test_compiled_models_are_measured():
    plain = collapse_report(net(), BATCHES)["fc"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the compiler's own imports
        compiled = torch.compile(net().eval(), backend="eager")
        compiled(IMAGES)
    assert find_head(compiled).name == "fc"
    assert collapse_report(compiled, BATCHES)["fc"].nc1 == pytest.approx(plain.nc1, rel=1e-6)


def test_bad_loaders_and_layers():
    with pytest.raises(ValueError, match="loader: got int, need an iterable of batches"):
        collapse_report(net(), 5)
    with pytest.raises(ValueError, match="loader: no batch seen"):
        collapse_report(net(), [])
    with pytest.raises(ValueError, match=r"labels: a batch is a tensor of shape \(30, 1, 6, 6\)"):
        collapse_report(net(), [IMAGES])
    with pytest.raises(ValueError, match="labels: got 3"):
        collapse_report(net(), [(IMAGES, LABELS + 1)])
    with pytest.raises(ValueError, match="layers: 'fc' is there twice"):
        collapse_report(net(), BATCHES, ["fc"])
    with pytest.raises(ValueError, match="layers: got the text 'conv'"):
        collapse_report(net(), BATCHES, "conv")
    with pytest.raises(ValueError, match="reduce: got 'conv', the measured layers are fc"):
        collapse_report(net(), BATCHES, reduce={"conv": "pool"})
    with pytest.raises(ValueError, match="reduce: got 'sum', allowed are auto, pool"):
        collapse_report(net(), BATCHES, reduce="sum")
    model = net()
    model.spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="layers: 'spare' did not run in the forward pass"):
        collapse_report(model, BATCHES, ["spare"])
    with pytest.raises(ValueError, match="layers: got no names"):
        layer_moments(net(), BATCHES, [], K)
    with pytest.raises(ValueError, match="features: those at 'fc' have NaN"):
        collapse_report(net(), [(IMAGES * float("nan"), LABELS)], check=False)


def test_a_module_that_runs_twice_is_ambiguous():
    act = nn.ReLU()
    model = nn.Sequential(act, nn.Linear(4, 4), act, nn.Linear(4, 2))
    with pytest.raises(ValueError, match="layers: '0' ran twice"):
        collapse_report(model, [(torch.randn(6, 4), torch.arange(6) % 2)], ["0"], "3")


def test_layers_followed_by_work_in_place():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    x, y = torch.randn(10, 4), torch.arange(10) % 2
    reports = collapse_report(model, [(x, y)], ["0"], "2")
    with torch.no_grad():
        before = model[0](x).double().numpy()
    expected = two_pass.nc1_quotient(before, y.numpy(), 2)
    assert reports["0"].nc1_quotient == pytest.approx(expected, rel=1e-5)
    assert reports["2"].nc1_quotient != pytest.approx(expected, rel=1e-2)


def test_batches_of_other_forms():
    torch.manual_seed(0)
    model, x = net(), IMAGES
    plain = collapse_report(model, BATCHES)["fc"].nc1

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, pixels, scale=None):
            return self.net(pixels if scale is None else pixels * scale)

    named, y = Named(), LABELS
    for batch, options in (
        ({"pixels": x, "label": y}, {}),
        ({"pixels": x, "kind": y}, {"labels": "kind"}),
        (({"pixels": x}, y), {}),
        ((x, torch.ones(1), y[:, None]), {}),
        ((y, x), {"labels": 0}),
        ([x, y], {}),
        (
            {"a": (x, y)},
            {"labels": lambda b: b["a"][1], "forward": lambda m, b: m.net(b["a"][0])},
        ),
    ):
        report = collapse_report(named, [batch], head="net.fc", **options)["net.fc"]
        assert report.nc1 == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((IMAGES, LABELS, ["a.png"] * len(LABELS)), "2 positional inputs, which Net"),
        ({"pixels": IMAGES, "label": LABELS}, "0 positional inputs and pixels, which Net"),
    ],
)
def test_inputs_that_the_model_does_not_take(batch, found):
    with pytest.raises(ValueError, match=f"forward: beside its labels a batch has {found}"):
        collapse_report(net(), [batch])
    reports = collapse_report(net(), [batch], forward=lambda model, _: model(IMAGES))
    assert reports["fc"].nc1 == collapse_report(net(), [(IMAGES, LABELS)])["fc"].nc1


def test_layer_moments_are_those_of_the_features():
    moments = layer_moments(net(), BATCHES, ["conv"], K, reduce="flatten", scatter=False)["conv"]
    flat = arrays(net())[1]
    assert moments.means.numpy() == pytest.approx(
        two_pass.class_means(flat, LABELS.numpy(), K), abs=1e-6
    )
    assert not moments.scatter


# -- sequences -----------------------------------------------------------------------------------

SEQUENCE = torch.arange(24.0).reshape(2, 4, 3)
MASK = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])  # padding on either side


@pytest.mark.parametrize(
    ("how", "mask", "expected"),
    [
        ("first", MASK, [SEQUENCE[0, 0], SEQUENCE[1, 0]]),
        ("last", MASK, [SEQUENCE[0, 1], SEQUENCE[1, 3]]),
        ("last", None, [SEQUENCE[0, 3], SEQUENCE[1, 3]]),
        ("mean", MASK, [SEQUENCE[0, :2].mean(0), SEQUENCE[1, 1:].mean(0)]),
        ("mean", None, [SEQUENCE[0].mean(0), SEQUENCE[1].mean(0)]),
        ("flatten", None, [SEQUENCE[0].flatten(), SEQUENCE[1].flatten()]),
        ("pool", None, [SEQUENCE[0].mean(1), SEQUENCE[1].mean(1)]),
        (lambda x, mask: x[:, 2], MASK, [SEQUENCE[0, 2], SEQUENCE[1, 2]]),
    ],
)
def test_reductions_of_sequences(how, mask, expected):
    rows, labels = sample_rows(SEQUENCE, torch.tensor([1, 0]), how, mask)
    assert torch.equal(rows, torch.stack(expected))
    assert labels.tolist() == [1, 0]


def test_tokens_and_next_tokens():
    labels = torch.tensor([[5, 6, 7, 8], [9, -100, 3, 4]])
    rows, kept = sample_rows(SEQUENCE, labels, "auto", MASK)
    assert kept.tolist() == [5, 6, 3, 4]
    assert torch.equal(rows, torch.cat([SEQUENCE[0, :2], SEQUENCE[1, 2:]]))
    rows, kept = sample_rows(SEQUENCE, labels, "next_token", MASK)
    # Row 0: token 0 predicts 6. Row 1: token 1 predicts 3, token 2 predicts 4.
    assert kept.tolist() == [6, 3, 4]
    assert torch.equal(rows, torch.stack([SEQUENCE[0, 0], SEQUENCE[1, 1], SEQUENCE[1, 2]]))
    _, kept = sample_rows(SEQUENCE[:, 0], torch.tensor([-1, 2]), ignore_index=-1)
    assert kept.tolist() == [2]


def test_ambiguous_or_wrong_sequences():
    y = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"say which rows are meant, one of pool"):
        sample_rows(SEQUENCE, y)
    with pytest.raises(ValueError, match="'tokens' needs a label a token"):
        sample_rows(SEQUENCE, y, "tokens")
    with pytest.raises(ValueError, match=r"'last' needs features of shape \(B, T, D\)"):
        sample_rows(SEQUENCE[:, 0], y, "last")
    with pytest.raises(ValueError, match=r"attention mask is \(2, 3\)"):
        sample_rows(SEQUENCE, y, "mean", MASK[:, :3])
    with pytest.raises(ValueError, match="leaves a sequence without tokens"):
        sample_rows(SEQUENCE, y, "mean", MASK * 0)


def test_averages_of_half_precision_are_taken_in_single():
    x = torch.full((1, 2, 70_000), 1.001, dtype=torch.float16)
    rows, _ = sample_rows(x, torch.tensor([0]), "pool")
    assert rows.dtype == torch.float32
    assert rows[0, 0] == pytest.approx(float(x[0, 0, 0]), rel=1e-6)


# -- the probe of hidden layers ------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(10, 10, 10), (20, 7, 3)])
def test_least_squares_classifier_against_lstsq(counts):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), counts)
    x = rng.normal(size=(30, 4)) + 5 * rng.normal(size=(3, 4))[y] + 7
    weight, bias = least_squares_classifier(ClassMoments(3).update(x, y))
    exact = np.linalg.lstsq(np.c_[x, np.ones(30)], np.eye(3)[y], rcond=None)[0]
    assert weight.numpy() == pytest.approx(exact[:-1].T, abs=1e-4)
    assert bias.numpy() == pytest.approx(exact[-1], abs=1e-3)


def test_least_squares_classifier_of_equal_features_and_missing_classes():
    weight, bias = least_squares_classifier(ClassMoments(2).update(np.ones((4, 2)), [0, 0, 0, 1]))
    assert not weight.any()
    assert bias.tolist() == [0.75, 0.25]
    moments = ClassMoments(3).update(np.eye(4), np.array([0, 0, 2, 2]))
    weight, bias = least_squares_classifier(moments)
    assert not weight[1].any()
    assert bias[1] == 0
    assert weight[0].any()


# -- watching a loop -----------------------------------------------------------------------------


def watched_loop(model, order, **options):
    with watch(model, "fc", **options) as watched:
        for x, y in BATCHES:
            if order == "before":
                watched.labels(y)
            model(x)
            if order == "after":
                watched.labels(y)
    return watched


@pytest.mark.parametrize("order", ["before", "after"])
def test_watching_gives_the_report_of_a_pass(order):
    model = net().eval()
    expected = layer_scalars(collapse_report(model, BATCHES, ["conv"], "fc"))
    watched = watched_loop(model, order, nc4=True, layers=["conv"])
    assert watched.scalars() == pytest.approx(expected, rel=1e-6)
    assert watched.report().nc4 == expected["nc4"]
    assert watched_loop(model, order).report().nc4 is None
    assert not model.fc._forward_pre_hooks
    assert not model._forward_hooks


def test_watching_a_training_loop_changes_nothing():
    warnings.filterwarnings("ignore", "watch: the network is in training mode")
    losses = []
    for watching in (False, True):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with watch(model) as watched:
            for x, y in [*BATCHES[::2], *BATCHES[::2]]:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                if watching:
                    watched.labels(y)
                else:
                    watched.discard()
                loss.backward()
                optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == losses[1]
    assert watched.report().num_samples == 58
    watched.reset()
    with pytest.raises(ValueError, match="watch: no batch seen"):
        watched.report()


def test_labels_in_the_models_own_arguments():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, labels=None):
            return self.net(x)

    model = Model().eval()
    with watch(model, "net.fc", labels="labels") as watched:
        for x, y in BATCHES:
            model(x, labels=y)
        with pytest.raises(ValueError, match="they come from the model's argument 'labels'"):
            watched.labels(y)
        with pytest.raises(ValueError, match="called without its argument 'labels'"):
            model(x)
        watched.discard()
    expected = collapse_report(net(), BATCHES, nc4=False)["fc"]
    assert watched.report().nc1 == pytest.approx(expected.nc1)


def test_passes_and_labels_come_in_pairs():
    model = net().eval()
    (x, y), (x1, y1), _ = BATCHES
    with watch(model) as watched:
        model(x)
        with pytest.raises(ValueError, match=r"'fc' ran twice.*give labels for every pass"):
            model(x)
        watched.labels(y)
        with pytest.raises(ValueError, match="labels: given twice without a forward pass"):
            watched.labels(y)
        watched.discard()
        model(x)
        with pytest.raises(ValueError, match=r"labels: got shape \(1,\), need \(13,\)"):
            watched.labels(y1)
        with pytest.raises(ValueError, match="watch: it is active already"):
            watched.__enter__()
    with pytest.raises(ValueError, match="belongs inside the with block"):
        watched.labels(y)
    with pytest.warns(RuntimeWarning, match="did not come as a pair"), watch(model) as watched:
        model(x1)
    watched = watch(model).__enter__()
    model(x)
    watched.__exit__(KeyError, KeyError(), None)  # no second message on top of an error
    assert not model.fc._forward_pre_hooks


def test_features_hold_no_graph():
    """What autograd saves in the forward pass is freed with the logits, within the block too."""
    warnings.filterwarnings("ignore", "watch: the network is in training mode")
    model, saved = net(), []

    class Box:
        def __init__(self, tensor):
            self.tensor = tensor.detach()  # or box and graph would keep each other

    def pack(tensor):
        box = Box(tensor)
        saved.append(weakref.ref(box))
        return box

    with watch(model, nc4=True) as watched:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
            logits = model(IMAGES)
        watched.labels(LABELS)
        assert any(box() is not None for box in saved)
        del logits
        gc.collect()
        assert all(box() is None for box in saved)


def test_recorder_and_evaluating_on_their_own():
    model = net().train()
    head = find_head(model)
    with Recorder(model, head, ["conv"]) as recorder, evaluating(model):
        assert not model.training
        model(IMAGES)
        assert recorder.filled
        seen = recorder.take()
        assert {name: x.shape[1] for name, x in seen.items()} == {"conv": 4, "fc": 5}
        assert not recorder.filled
    assert model.training


# -- several processes ---------------------------------------------------------------------------


def _process(rank, port, folder):
    import os

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    # An empty share: that process does not even know the width.
    for name, shares in (("uneven", [BATCHES[:1], BATCHES[1:]]), ("empty", [BATCHES, []])):
        reports = collapse_report(net(), shares[rank], ["conv"], "fc", synchronize=True)
        found[name] = layer_scalars(reports)
        model = net().eval()
        with watch(model, "fc", nc4=True) as watched:
            for x, y in shares[rank]:
                model(x)
                watched.labels(y)
        found[f"{name} watched"] = layer_scalars(watched.reports(synchronize=True))
    bad = [(IMAGES * float("inf"), LABELS)] if rank == 1 else BATCHES
    try:
        collapse_report(net(), bad, check=False, synchronize=True)
    except ValueError as error:
        found["error"] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_merge_uneven_and_empty_shares(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    calls = [(_process, rank, port, str(tmp_path)) for rank in range(2)]
    assert processes.run_all(calls) == [0, 0]
    single = layer_scalars(collapse_report(net(), BATCHES, ["conv"], "fc"))
    last = {name: value for name, value in single.items() if "/" not in name}
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert "at 'fc' have NaN or infinite entries (process 1)" in found["error"]
        for name in ("uneven", "empty"):
            assert found[name] == pytest.approx(single, rel=1e-9)
            assert found[f"{name} watched"] == pytest.approx(last, rel=1e-9)


def test_synchronized_outside_a_group_is_the_object_itself():
    moments = LayerMoments(2, ["a"])
    assert moments.synchronized() is moments


def test_second_pass_with_other_samples_is_noticed():
    class Shrinking:
        left = 3

        def __iter__(self):
            self.left -= 1
            return iter(BATCHES[: self.left])

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        collapse_report(net(), Shrinking())
    assert any("second pass brought 13 samples, the first 14" in str(w.message) for w in caught)
