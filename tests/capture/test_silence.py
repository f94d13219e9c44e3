"""Nothing vanishes silently: what is not measured, or is not what it seems, is counted and told."""

import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

lightning = pytest.importorskip("lightning")

from lightning.pytorch.callbacks import WeightAveraging  # noqa: E402

import tightframe as tf  # noqa: E402
from tightframe.capture.last_layer import last_layer  # noqa: E402
from tightframe.capture.layers import collapse_report  # noqa: E402
from tightframe.capture.lightning import CollapseMonitor  # noqa: E402
from tightframe.capture.watch import watch  # noqa: E402
from tightframe.metrics import ClassMoments  # noqa: E402
from tightframe.problem.labels import label_counts  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*(rank|span|tied|equal)"),
]

LABELS = torch.arange(90) % 3
INPUTS = torch.randn(90, 5, generator=torch.Generator().manual_seed(2)) + LABELS[:, None]
DATA = TensorDataset(INPUTS, LABELS)


class Module(lightning.LightningModule):
    def __init__(self, skip=()):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.5))
        self.fc = nn.Linear(6, 3)
        self.skip = skip

    def forward(self, x):
        return self.fc(self.net(x))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        if batch_idx not in self.skip:
            self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(*callbacks, model=None, validation=True, epochs=1, **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    model = Module() if model is None else model
    trainer.fit(
        model, DataLoader(DATA, 30, shuffle=True), DataLoader(DATA, 30) if validation else None
    )
    return trainer


def warned(record):
    return [str(w.message) for w in record if issubclass(w.category, RuntimeWarning)]


# -- Lightning ------------------------------------------------------------------------------------


def test_the_training_set_is_measured_by_default_and_it_is_said():
    monitor = CollapseMonitor()
    model = Module()
    trainer = fit(monitor, model=model)
    (report,) = collapse_report(model, [(INPUTS, LABELS)], targets="etf").values()
    assert monitor.history[0]["nc1"] == pytest.approx(report.nc1, rel=1e-4)
    assert monitor.split == "train"
    assert float(trainer.callback_metrics["collapse/on_training_set"]) == 1.0
    assert monitor.reports["fc"].notes == (
        "Measured on the training set in epoch 0, after step 3.",
    )


def test_the_validation_set_when_it_is_asked_for():
    monitor = CollapseMonitor(loader="validation")
    trainer = fit(monitor)
    assert monitor.split == "validation"
    assert float(trainer.callback_metrics["collapse/on_training_set"]) == 0.0
    assert "the validation set" in monitor.reports["fc"].measured_on


def test_a_training_set_that_cannot_be_run_gives_way_to_the_validation_set():
    class Other(Module):
        def forward(self, x, y):  # of two inputs, which a batch has not
            return self.fc(self.net(x)) + 0 * y

        def training_step(self, batch, batch_idx):
            return self.fc(self.net(batch[0])).square().mean()

        def validation_step(self, batch, batch_idx):
            self.fc(self.net(batch[0]))

    monitor = CollapseMonitor()
    with pytest.warns(RuntimeWarning, match="the training set cannot be measured .*forward"):
        fit(monitor, model=Other(), epochs=2)
    assert [row["epoch"] for row in monitor.history] == [1]
    assert monitor.split == "validation"


def test_batches_that_skip_the_head_are_counted():
    monitor = CollapseMonitor(loader="validation")
    with pytest.warns(RuntimeWarning, match="of 1 batch with labels nothing passed through 'fc'"):
        fit(monitor, model=Module(skip=[1]))
    assert monitor.reports["fc"].num_samples == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": False}, "there is no validation loader, or limit_val_batches is 0"),
        ({"limit_val_batches": 0}, "there is no validation loader, or limit_val_batches is 0"),
        (
            {"check_val_every_n_epoch": 3, "epochs": 3, "every": 2},
            r"every=2, and of 3 epochs none .*check_val_every_n_epoch=3",
        ),
        ({"every": 5, "loader": "train"}, "every=5, and there was 1 epoch"),
    ],
)
def test_a_training_without_a_measurement_ends_with_a_warning(options, message):
    own = {name: options.pop(name) for name in ("every", "loader") if name in options}
    monitor = CollapseMonitor(**{"loader": "validation"} | own)
    with pytest.warns(RuntimeWarning, match="CollapseMonitor: measured nothing: " + message):
        fit(monitor, **options)
    assert monitor.history == []


def test_a_measurement_is_no_reason_to_warn():
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fit(CollapseMonitor(), CollapseMonitor(loader="validation", prefix="v/"), epochs=2)
    assert not [text for text in warned(record) if "measure" in text or "watch" in text]


@pytest.mark.parametrize(
    "compiled",
    [
        lambda m: m.compile(backend="eager"),
        lambda m: setattr(m, "validation_step", torch.compile(m.validation_step, backend="eager")),
        lambda m: setattr(m, "forward", torch.compile(m.forward, backend="eager")),
        lambda m: setattr(m, "net", torch.compile(m.net, backend="eager")),
        lambda m: m.fc.compile(backend="eager"),
        lambda m: torch.compile(m, backend="eager"),
    ],
    ids=["module.compile", "validation_step", "forward", "net", "fc.compile", "torch.compile"],
)
def test_compiled_modules_lose_no_batch(compiled):
    model = Module()
    wrapped = compiled(model)
    model = model if wrapped is None else wrapped
    monitor = CollapseMonitor(loader="validation")
    # Compiled in the sanity check, before the hooks are there; the last batch is a smaller one.
    fit(monitor, model=model, num_sanity_val_steps=2, limit_val_batches=3)
    assert monitor.reports["fc"].num_samples == 90


def test_compiled_functions_in_a_loop_of_ones_own():
    model = Module().eval()
    run = torch.compile(lambda x: model(x), backend="eager")
    run(INPUTS)
    with watch(model) as watched:
        for x, y in DataLoader(DATA, 40):
            run(x)
            watched.labels(y)
    assert watched.report().num_samples == 90
    assert torch._dynamo.eval_frame._stance.stance == "default"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("loader", ["validation", "train"])
def test_head_and_features_are_of_one_moment_whoever_swaps_the_weights(first, loader):
    """Weight averaging gives the validation loop other weights, and takes them back after it."""

    class Seen(Module):
        def validation_step(self, batch, batch_idx):
            self(batch[0])
            self.averaged = {name: p.clone() for name, p in self.state_dict().items()}

        def on_train_epoch_end(self):
            self.trained = {name: p.clone() for name, p in self.state_dict().items()}

    monitor = CollapseMonitor(loader=loader)
    averaging = WeightAveraging(avg_fn=lambda average, new, count: 0.9 * average + 0.1 * new)
    model = Seen()
    fit(*([averaging, monitor] if first else [monitor, averaging]), model=model, epochs=2)
    assert not torch.equal(model.averaged["fc.weight"], model.trained["fc.weight"])
    model.load_state_dict(model.averaged if loader == "validation" else model.trained)
    (expected,) = collapse_report(model, [(INPUTS, LABELS)]).values()
    report = monitor.reports["fc"]
    assert report.logits == pytest.approx(expected.logits, abs=1e-5)
    assert report.accuracy == expected.accuracy


# -- a loop of one's own ---------------------------------------------------------------------------


class Choosy(nn.Module):
    """Runs its head on some batches only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.fc = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x, labels=None, run=True):
        return self.fc(self.net(x)) if run else None


@pytest.mark.parametrize("how", ["after", "before", "argument"])
def test_passes_that_skip_the_head_are_counted_in_any_loop(how):
    model = Choosy()
    with watch(model, labels="labels" if how == "argument" else None) as watched:
        for i in range(5):
            x, y = INPUTS[15 * i : 15 * i + 15], LABELS[15 * i : 15 * i + 15]
            if how == "before":
                watched.labels(y)
            model(x, labels=y, run=i not in (1, 4))
            if how == "after":
                watched.labels(y)
    assert watched.skipped == 2
    with pytest.warns(RuntimeWarning, match="of 2 batches with labels nothing passed"):
        assert watched.report().num_samples == 45


def test_dropout_while_watching_is_warned_of():
    model = Module()
    with watch(model) as watched:
        model(INPUTS)
        with pytest.warns(RuntimeWarning, match=r"net\.2 \(Dropout\)"):
            watched.labels(LABELS)


class Noisy(Dataset):
    """Augmented: another input at every read."""

    def __init__(self, noise=0.1):
        self.noise = noise

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, i):
        return INPUTS[i] + self.noise * torch.randn(5), LABELS[i]


def test_augmentation_is_warned_of():
    model = Module()
    with pytest.warns(RuntimeWarning, match="others when they are read again, so augmentation"):
        collapse_report(model, DataLoader(Noisy(), 30))

    def masking(samples):
        x = torch.stack([sample[0] for sample in samples])
        return x * (torch.rand_like(x) > 0.1), torch.stack([sample[1] for sample in samples])

    with pytest.warns(RuntimeWarning, match="or a collator's masking"):
        collapse_report(model, DataLoader(DATA, 30, collate_fn=masking))
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for loader in (DataLoader(Noisy(0.0), 30), DataLoader(DATA, 30, shuffle=True)):
            collapse_report(model, loader)
    assert not [text for text in warned(record) if "read again" in text]


class Pairs(Sampler):
    """Batches of two, some samples in several of them."""

    def __iter__(self):
        return iter([[0, 1], [1, 40], [40, 80]])

    def __len__(self):
        return 3


@pytest.mark.parametrize("how", [tf.advise, last_layer, collapse_report])
def test_a_sampler_that_repeats_samples_is_warned_of(how):
    torch.manual_seed(0)
    model = Module()

    def rare():
        weights, generator = [1.0] * 80 + [9.0] * 10, torch.Generator().manual_seed(0)
        return WeightedRandomSampler(weights, len(DATA), generator=generator)

    met = len(set(rare()))
    with pytest.warns(RuntimeWarning, match=f"from {len(DATA)} samples and meets {met} of them"):
        how(model, DataLoader(DATA, 30, sampler=rare()))
    with pytest.warns(RuntimeWarning, match=f"samples and meets {met} of them"):
        how(model, DataLoader(DATA, batch_sampler=BatchSampler(rare(), 30, False)))
    with pytest.warns(RuntimeWarning, match="draws 6 times .* meets 4 of them"):
        how(model, DataLoader(DATA, batch_sampler=Pairs()))
    with pytest.warns(RuntimeWarning, match="drop_last leaves its 6 samples out"):
        how(model, DataLoader(DATA, 7, drop_last=True))
    with pytest.warns(RuntimeWarning, match="drop_last leaves its 6 samples out"):
        how(model, DataLoader(DATA, batch_sampler=BatchSampler(range(len(DATA)), 7, True)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for loader in (
            DataLoader(DATA, 30, shuffle=True, drop_last=True),
            DataLoader(DATA, 30, sampler=SubsetRandomSampler(range(len(DATA)))),
        ):
            how(model, loader)


@pytest.mark.parametrize("how", [tf.advise, collapse_report])
def test_a_loader_of_single_samples_is_refused(how):
    with pytest.raises(ValueError, match=r"gives rows of shape \(\d+,\), need \(B, D\)"):
        how(Module(), DataLoader(DATA, batch_size=None))


class Noise(Module):
    """Dropout that acts in eval mode too."""

    def forward(self, x):
        return self.fc(nn.functional.dropout(self.net(x), 0.5))


@pytest.mark.parametrize("how", [tf.advise, last_layer], ids=["advise", "last_layer"])
def test_advice_on_features_that_change_is_warned_of(how):
    torch.manual_seed(0)
    model = Module()
    torch.optim.LBFGS(model.parameters(), max_iter=20).step(lambda: descended(model))
    with pytest.warns(RuntimeWarning, match="so augmentation"):
        how(model, DataLoader(Noisy(), 30))
    noise = Noise()
    noise.load_state_dict(model.state_dict())
    with pytest.warns(RuntimeWarning, match="so dropout, noise or sampling acts in eval mode"):
        how(noise, DataLoader(DATA, 30))
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        how(model, DataLoader(DATA, 30, shuffle=True))
    assert not [text for text in warned(record) if "again" in text or "second time" in text]


def descended(model):
    """Return the loss after its gradient was made."""
    model.eval().zero_grad()
    loss = nn.functional.cross_entropy(model(INPUTS), LABELS)
    loss.backward()
    return loss


def test_a_loaders_own_generator_is_as_before():
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(DATA, 30, shuffle=True, generator=generator)
    before = generator.get_state()
    collapse_report(Module(), loader)
    assert torch.equal(generator.get_state(), before)


# -- arrays ----------------------------------------------------------------------------------------


def test_masked_arrays_are_refused():
    labels = np.ma.masked_array(LABELS.numpy(), LABELS.numpy() == 2)
    features = np.ma.masked_array(INPUTS.numpy(), np.zeros(INPUTS.shape, bool))
    moments = ClassMoments(3)
    with pytest.raises(ValueError, match=re.escape("labels: 30 entries are masked")):
        moments.update(INPUTS, labels)
    assert moments.num_samples == 0
    assert moments.update(features, LABELS).num_samples == 90  # nothing is masked
    features[0, 0] = np.ma.masked
    with pytest.raises(ValueError, match="features: 1 entries are masked"):
        moments.update(features, LABELS)
    with pytest.raises(ValueError, match="labels: 30 entries are masked"):
        label_counts(labels)
    assert label_counts(labels.compressed()).tolist() == [30, 30]
