"""What is measured of a classifier is what its network computes, for networks of many kinds."""

import copy
import math

import peft
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests.capture.nets import (
    BATCHES,
    INPUTS,
    LABELS,
    OFFSET,
    Behind,
    D,
    K,
    Net,
    Projected,
    mean_logits,
)
from tightframe.capture.layers import collapse_report, layer_moments
from tightframe.capture.watch import watch

pytestmark = pytest.mark.filterwarnings(
    "error",
    "ignore::DeprecationWarning",
    "ignore:.*torch.nn.utils.weight_norm:FutureWarning",
    "ignore:.*torch.quantize_per_tensor:UserWarning",
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def measured(model, how, batches=BATCHES, **options):
    """The report of a loader, or of a loop that is watched."""
    if how == "report":
        return list(collapse_report(model, batches, targets="etf", **options).values())[-1]
    with watch(model, nc4=True, targets="etf", **options) as watched, torch.no_grad():
        for x, y in batches:
            model(x)
            watched.labels(y)
    return watched.report()


both = pytest.mark.parametrize("how", ["report", "watch"])


def check(model, how, logits=None, note=None, abs=1e-5, **options):
    """The report's logits and accuracy are those that the model itself gives."""
    model.eval()
    report = measured(model, how, **options)
    with torch.no_grad():
        out = model(INPUTS) if logits is None else logits
    assert report.logits == pytest.approx(mean_logits(out), abs=abs)
    assert report.accuracy == pytest.approx(float((out.argmax(1) == LABELS).float().mean()))
    notes = " ".join(report.notes)
    assert (note in notes) if note else notes == ""
    return report


# -- the head computes something else than W h + b of its parameters -------------------------------


def adapted(**options):
    torch.manual_seed(5)
    config = peft.LoraConfig(r=2, lora_alpha=16, init_lora_weights=False, **options)
    return peft.get_peft_model(Net(), config)


@both
def test_low_rank_updates_are_merged(how):
    report = check(adapted(target_modules=["fc"]), how, note="low-rank updates merged")
    layer = adapted(target_modules=["fc"]).merge_and_unload().fc
    weight = layer.weight.detach().double().numpy()
    assert report.geometry.classifier == pytest.approx(weight @ weight.T, rel=1e-4)


def test_low_rank_updates_in_train_mode_are_measured_without_their_dropout():
    model = adapted(target_modules=["fc"], lora_dropout=0.5).train()
    with watch(model, targets="etf") as watched:
        model(INPUTS)
        watched.labels(LABELS)
    assert watched.report().logits == pytest.approx(mean_logits(model.eval()(INPUTS)), abs=1e-5)


@both
def test_a_classifier_that_peft_copied(how):
    model = adapted(target_modules=["body.0"], modules_to_save=["fc"])
    with torch.no_grad():
        model.base_model.model.fc.modules_to_save["default"].weight.mul_(-2)
    check(model, how)


class Cosine(nn.Linear):
    def forward(self, x):
        unit = functional.normalize(self.weight, dim=1)
        return 8 * functional.linear(functional.normalize(x, dim=-1), unit, self.bias)


@both
def test_a_cosine_head_is_measured_on_features_of_unit_length(how):
    model = Net(Cosine(D, K))
    report = check(model, how, note="'fc' (Cosine) acts on features of unit length")
    features = functional.normalize(model.body(INPUTS).detach().double(), dim=1)
    means = torch.stack([features[k == LABELS].mean(0) for k in range(K)])
    assert report.geometry.means == pytest.approx((means @ means.T).numpy(), abs=1e-6)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Squared(nn.Linear):
    def forward(self, x):
        return super().forward(x).square()


@both
def test_a_head_with_a_factor_of_its_own_and_one_that_is_not_linear(how):
    check(Net(Doubled(D, K)), how, note="off by 50.00%")
    with pytest.raises(ValueError, match=r"'fc' \(Squared\) does not give W h \+ b .* differ by"):
        measured(Net(Squared(D, K)), how)


@both
@pytest.mark.parametrize("norm", ["weight", "spectral", "old weight", "old spectral"])
def test_normed_and_parametrised_weights(norm, how):
    wrap = {
        "weight": parametrizations.weight_norm,
        "spectral": parametrizations.spectral_norm,
        "old weight": nn.utils.weight_norm,
        "old spectral": nn.utils.spectral_norm,
    }[norm]
    model = Net(wrap(nn.Linear(D, K)))
    check(model, how)
    check(model, how)  # reading it changed nothing


def test_reading_a_spectral_norm_in_train_mode_makes_no_step_of_its_own():
    def buffers(watching):
        torch.manual_seed(4)
        model = Net(parametrizations.spectral_norm(nn.Linear(D, K))).train()
        with watch(model) as watched:
            for x, y in BATCHES:
                model(x)
                if watching:
                    watched.labels(y)
                else:
                    watched.discard()
        return list(model.fc.buffers())

    assert all(torch.equal(a, b) for a, b in zip(buffers(True), buffers(False), strict=True))


# -- between the head and what leaves the model ----------------------------------------------------


@both
@pytest.mark.parametrize(
    ("factor", "offset", "note"),
    [
        (2.5, 0.0, "times 2.5; weight"),
        (1.0, OFFSET, "plus an offset for every class (-2 to 1)"),
        (0.5, OFFSET, "times 0.5 plus an offset for every class (-2 to 1)"),
        ([0.5, 2.0, 3.0], 0.0, "times a factor for every class (0.5 to 3); weight"),
        ([0.5, 2.0, 3.0], OFFSET, "times a factor for every class (0.5 to 3) plus an offset"),
    ],
)
def test_factors_and_logit_adjustment_behind_the_head(factor, offset, note, how):
    check(Behind(factor, offset), how, note=note)


@both
@pytest.mark.parametrize(
    ("squash", "name"),
    [
        (lambda z: z.softmax(1), "the softmax of the logits of 'fc'"),
        (lambda z: z.log_softmax(1), "the log-softmax of the logits of 'fc'"),
        (torch.sigmoid, "the sigmoid of the logits of 'fc'"),
        (lambda z: 2 * (z / 2).tanh(), "the tanh cap at 2 of the logits of 'fc'"),
    ],
)
def test_probabilities_keep_the_order_of_the_logits(squash, name, how):
    model = Behind(squash=squash)
    check(model, how, model.logits(), note=name)


@both
@pytest.mark.parametrize("log", [False, True])
def test_an_offset_and_a_factor_inside_a_softmax(log, how):
    squash = (lambda z: z.log_softmax(1)) if log else (lambda z: z.softmax(1))
    model = Behind(2.0, OFFSET, squash)
    # Behind a softmax logits are known up to a constant: OFFSET sums up to -0.5.
    expected = model.logits() + 0.5 / 3
    check(model, how, expected, note="times 2 plus an offset", abs=1e-4)


@both
@pytest.mark.parametrize(
    "squash",
    [
        lambda z: z.square(),
        lambda z: -z,
        lambda z: z * torch.linspace(0.5, 2, len(z))[:, None],
        lambda z: z.flip(1),
    ],
)
def test_what_no_affine_map_of_the_features_explains_is_refused(squash, how):
    said = r"what leaves the model \(the model's output\) is not W h \+ b of 'fc', with 3 classes"
    with pytest.raises(ValueError, match=said + r".*differ by .* on average, on 40 rows"):
        measured(Behind(squash=squash), how)


def test_few_samples_show_no_offset():
    batches = [(INPUTS[:2], LABELS[:2])]
    with pytest.raises(ValueError, match="below 4 an offset is not recognised"):
        collapse_report(Behind(offset=OFFSET), batches, nc4=False)


def test_dropout_behind_the_head():
    model = Behind(squash=nn.Dropout(0.5))
    check(model, "watch")
    with watch(model.train(), targets="etf") as watched:
        model(INPUTS)
        with pytest.warns(RuntimeWarning, match=r"squash \(Dropout\) and the like add may be in"):
            watched.labels(LABELS)
    assert "Dropout acted on the logits of 'fc'" in watched.report().notes[0]
    assert watched.report().logits == pytest.approx(mean_logits(model.logits()), abs=1e-5)


# -- number formats --------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_rounding_of_the_dtype_is_no_difference(dtype, how):
    model = Net().to(dtype).eval()
    batches = [(x.to(dtype), y) for x, y in BATCHES]
    assert measured(model, how, batches).notes == ()
    model.fc.weight.data[0] *= 1.5
    assert measured(model, how, batches).notes == ()


def test_autocast_rounds_more_than_the_parameters_do():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measured(Net().eval(), "watch").notes == ()
        said = "times 1.5"
        assert said in measured(Behind(1.5).eval(), "watch").notes[0]


class Int8(nn.Linear):
    """As Linear8bitLt of bitsandbytes, which needs a GPU: codes and a scale a row."""

    def quantize(self):
        scale = self.weight.detach().abs().amax(1, keepdim=True) / 127
        codes = (self.weight.detach() / scale).round().to(torch.int8)
        self.scale, self.weight = scale, nn.Parameter(codes, requires_grad=False)
        return self

    def forward(self, x):
        return functional.linear(x, self.weight * self.scale, self.bias)


def eight_bits(kind):
    if kind == "int8":
        model = Net(Int8(D, K))
        model.fc.quantize()
        return model.eval(), model.fc.weight * model.fc.scale, model.fc.bias, "codes of type int8"
    model = torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear}, dtype=torch.qint8)
    return model.eval(), model.fc.weight().dequantize(), model.fc.bias(), "packed codes"


@both
@pytest.mark.parametrize("kind", ["int8", "torch.ao"])
def test_quantised_heads_are_refused_by_name_or_given(kind, how):
    model, weight, bias, codes = eight_bits(kind)
    for name in (None, "fc"):
        said = rf"head: 'fc' is a \w+, quantised: it stores {codes}, .*pass head='fc' with weight="
        with pytest.raises(ValueError, match=said):
            measured(model, how, head=name)
    check(model, how, head="fc", weight=weight, bias=bias, abs=0.05)
    with pytest.raises(ValueError, match="does not give W h"):
        measured(model, how, head="fc", weight=weight.flip(0), bias=bias)
    moments = layer_moments(model, BATCHES, [], K, head="fc")  # the features are what they are
    assert moments["fc"].num_samples == 60


# -- heads that are given --------------------------------------------------------------------------


class NormedLinear(nn.Module):
    """Of the code of Cao et al. (2019): K along the columns, all of unit length."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, K))

    def forward(self, x):
        return functional.normalize(x, dim=1).mm(functional.normalize(self.weight, dim=0))


@both
def test_a_normed_linear_layer_with_classes_along_its_columns(how):
    model = Net(NormedLinear())
    said = "'fc' is a NormedLinear without a linear layer.*pass weight= and bias= beside its name"
    with pytest.raises(ValueError, match=said):
        measured(model, how, head="fc")
    weight = model.fc.weight
    with pytest.raises(ValueError, match=r"weight: got shape \(8, 3\).*pass its transpose"):
        measured(model, how, head="fc", weight=weight)
    with pytest.raises(ValueError, match="does not give W h"):
        measured(model, how, head="fc", weight=weight.T)
    check(
        model,
        how,
        head="fc",
        weight=lambda: functional.normalize(weight, dim=0).T,
        note="features of unit length",
    )


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.body = nn.Sequential(nn.Conv2d(1, D, 2), nn.ReLU())
        self.out = nn.Conv2d(D, K, 1)

    def forward(self, x):
        images = x[:, :4].reshape(-1, 1, 2, 2)
        return self.out(self.body(functional.pad(images, (1, 1, 1, 1)))).mean(dim=(2, 3))


@both
def test_a_convolution_of_one_pixel(how):
    model = Convolutional()
    check(model, how, head="out", weight=model.out.weight, bias=model.out.bias)
    with pytest.raises(ValueError, match="does not give W h"):
        measured(model, how, head="out", weight=-model.out.weight, bias=model.out.bias)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.body = nn.Sequential(nn.Linear(5, D), nn.ReLU())
        self.matrix, self.shift = nn.Parameter(torch.randn(K, D)), nn.Parameter(torch.randn(K))

    def forward(self, x):
        return functional.linear(self.body(x), self.matrix, self.shift)


@both
def test_a_functional_head_on_the_output_of_a_module(how):
    model = Functional()
    with pytest.raises(
        ValueError, match=r"linear layers are body\.0; where it is none of them, pass weight="
    ):
        measured(model, how)
    check(model, how, features="body", weight=model.matrix, bias=model.shift)
    with pytest.raises(ValueError, match="what leaves the model"):
        measured(model, how, features="body", weight=model.matrix.flip(0), bias=model.shift)


class Sigmoid(nn.Module):
    def __init__(self, squash):
        super().__init__()
        torch.manual_seed(8)
        self.body, self.fc, self.squash = nn.Linear(5, D), nn.Linear(D, 1), squash

    def forward(self, x):
        logit = self.fc(self.body(x).relu()).squeeze(1)
        return logit.sigmoid() if self.squash else logit


@both
@pytest.mark.parametrize("squash", [False, True])
def test_a_sigmoid_is_refused_by_name_or_given_as_two_rows(squash, how):
    model = Sigmoid(squash).eval()
    batches = [(x, (y > 0).long()) for x, y in BATCHES]
    w, b = model.fc.weight, model.fc.bias
    for name in (None, "fc"):
        with pytest.raises(ValueError, match="'fc' is a Linear with one row w, as before a"):
            measured(model, how, batches, head=name)
    given = {"weight": torch.cat([-w, w]) / 2, "bias": torch.cat([-b, b]) / 2}
    report = measured(model, how, batches, head="fc", **given)
    chosen = (model(INPUTS) > (0.5 if squash else 0)).long()
    assert report.accuracy == pytest.approx(float((chosen == (LABELS > 0)).float().mean()))
    what = "sigmoid of the difference" if squash else "difference"
    assert f"the {what} of the logits" in report.notes[0]


@both
def test_what_is_given_is_checked(how):
    model = Net()
    for options, said in (
        ({"bias": torch.zeros(K)}, "bias: given without weight"),
        ({"features": "body"}, "features: given without weight"),
        ({"weight": torch.ones(K, D)}, "weight: needs the place of the features too"),
        ({"weight": torch.ones(K, D), "head": "fc", "features": "body"}, "weight: needs the place"),
        ({"weight": torch.ones(K), "head": "fc"}, r"weight: got float32 of shape \(3,\), need"),
        ({"weight": torch.ones(1, D), "head": "fc"}, "at least 2 rows"),
        ({"weight": torch.ones(K, D).long(), "head": "fc"}, "weight: got int64"),
        ({"weight": torch.ones(K, D), "bias": torch.ones(2), "head": "fc"}, r"bias: got .*\(2,\)"),
        ({"weight": torch.ones(K, 4), "head": "fc"}, r"weight: got shape \(3, 4\), the features"),
        ({"weight": torch.ones(K, D), "head": "fcc"}, "no module 'fcc'; near names: fc"),
    ):
        with pytest.raises(ValueError, match=said):
            measured(model, how, **options)


# -- which layer it is -----------------------------------------------------------------------------


class LeNet(nn.Module):
    """The layers of the popular CIFAR collection's LeNet, with functional pooling."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.conv = nn.Conv2d(1, 4, 2, padding=1)
        self.fc1, self.fc2, self.fc3 = nn.Linear(12, 7), nn.Linear(7, D), nn.Linear(D, K)

    def forward(self, x):
        x = functional.max_pool2d(self.conv(x.view(-1, 1, 1, 5)).relu(), 2)
        return self.fc3(self.fc2(self.fc1(x.flatten(1)).relu()).relu())


@both
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Projected, "output"),
        (LeNet, "fc3"),
        (lambda: nn.Sequential(nn.Linear(5, D), nn.ReLU(), nn.Linear(D, K)), "2"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(5, K), nn.Softmax(1))), "1.0"),
    ],
)
def test_the_layer_whose_output_leaves_the_model(make, name, how):
    torch.manual_seed(9)
    model = make().eval()
    assert measured(model, how).notes == measured(model, how, head=name).notes
    assert measured(model, how).logits == pytest.approx(measured(model, how, head=name).logits)
    if how == "report":
        assert list(collapse_report(model, BATCHES, nc4=False)) == [name]


class Exits(nn.Module):
    def __init__(self, give):
        super().__init__()
        torch.manual_seed(10)
        self.body, self.give = nn.Linear(5, D), give
        self.heads = nn.ModuleList(nn.Linear(D, K) for _ in range(3))

    def forward(self, x):
        features = self.body(x).relu()
        return self.give([head(features) for head in self.heads], features)


@both
@pytest.mark.parametrize(
    ("give", "which"),
    [
        (lambda exits, _: exits[0], 0),
        (lambda exits, _: exits[-1], 2),
        (lambda exits, _: {"logits": exits[1], "aux": exits[0]}, 1),
        (lambda exits, features: {"main": exits[1], "features": features}, 1),
        (lambda exits, features: (features, exits[2]), 2),
        (lambda exits, _: (torch.tensor(0.1), exits[1]), 1),
    ],
)
def test_one_of_several_heads(give, which, how):
    model = Exits(give).eval()
    report = measured(model, how)
    with torch.no_grad():
        out = model.heads[which](model.body(INPUTS).relu())
    assert report.logits == pytest.approx(mean_logits(out), abs=1e-5)


@both
@pytest.mark.parametrize("give", [lambda exits, _: exits, lambda exits, _: dict(enumerate(exits))])
def test_several_heads_that_all_could_be_it_are_named(give, how):
    with pytest.raises(ValueError, match=r"'heads\.0', 'heads\.1', 'heads\.2' all give an"):
        measured(Exits(give).eval(), how)
    with pytest.raises(ValueError, match=r"ModuleList of several heads; name one of heads\.0, hea"):
        measured(Exits(give).eval(), how, head="heads")
    report = measured(Exits(give).eval(), how, head="heads.1")
    (note,) = report.notes
    assert note.startswith("'heads.1' gives ")
    assert note.endswith("1 of the model's output.")


@both
def test_no_head_is_found_where_the_output_is_not_finite(how):
    model = Exits(lambda exits, _: sum(exits) * math.nan).eval()
    with pytest.raises(ValueError, match="model: its output is not finite"):
        measured(model, how)


@both
def test_the_average_of_several_heads_is_none_of_them(how):
    model = Exits(lambda exits, _: sum(exits) / 3).eval()
    with pytest.raises(ValueError, match="where it is none of them, pass weight="):
        measured(model, how)
    with pytest.raises(ValueError, match="what leaves the model"):
        measured(model, how, head="heads.2")


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(11)
        self.body, self.fc = nn.Linear(5, D), nn.Linear(D, K)
        self.aux = nn.ModuleDict({"fc": nn.Linear(D, K)})

    def forward(self, x):
        features = self.body(x).relu()
        return self.fc(features), self.aux["fc"](features)


@both
def test_an_auxiliary_head_is_not_the_first_of_the_outputs(how):
    model = Auxiliary().eval()
    report = measured(model, how)
    assert report.logits == pytest.approx(mean_logits(model(INPUTS)[0]), abs=1e-5)


@both
def test_a_layer_that_is_named_and_does_not_give_the_prediction(how):
    with pytest.raises(ValueError, match=r"not W h \+ b of 'body.0', with 8 classes.* 3 columns"):
        measured(Net().eval(), how, head="body.0")


@both
def test_an_output_that_is_not_understood_is_said(how):
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net(x).square().mean()

    report = measured(Loss().eval(), how)
    assert "leave the model as they are was not checked: it gives no logits" in report.notes[0]
    expected = measured(Net().eval(), how)
    assert report.logits == pytest.approx(expected.logits)


# -- sequences -------------------------------------------------------------------------------------


def gpt2():
    torch.manual_seed(12)
    config = transformers.GPT2Config(
        vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=8, num_labels=K, pad_token_id=0
    )
    return transformers.GPT2ForSequenceClassification(config).eval()


def sentences(side):
    """Ids and mask of sentences of two to five tokens, padded on a side."""
    generator = torch.Generator().manual_seed(13)
    ids, mask = torch.zeros(24, 5, dtype=torch.long), torch.zeros(24, 5, dtype=torch.long)
    for i in range(24):
        length = 2 + i % 4
        place = slice(0, length) if side == "right" else slice(5 - length, 5)
        ids[i, place] = torch.randint(1, 30, (length,), generator=generator)
        mask[i, place] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(24) % K}


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_sequence_classifiers_are_followed_to_their_token(side):
    model, batch = gpt2(), sentences(side)
    report = collapse_report(model, [batch], reduce="last", targets="etf")["score"]
    with torch.no_grad():
        out = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    assert report.logits == pytest.approx(mean_logits(out, batch["labels"]), abs=1e-5)
    assert report.notes == ()
    with pytest.raises(ValueError, match=r"what leaves the model \('logits' of the model's output"):
        collapse_report(model, [batch], reduce="first")


def test_token_classifiers_have_logits_for_every_token():
    torch.manual_seed(14)
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=K,
    )
    model = transformers.BertForTokenClassification(config)
    batch = sentences("right")
    labels = torch.where(batch["attention_mask"] == 1, batch["input_ids"] % K, -100)
    report = collapse_report(model, [batch | {"labels": labels}], targets="etf")["classifier"]
    with torch.no_grad():
        out = model.eval()(batch["input_ids"], batch["attention_mask"]).logits[labels >= 0]
    assert report.logits == pytest.approx(mean_logits(out, labels[labels >= 0]), abs=1e-5)
    assert report.notes == ()


class Tied(nn.Module):
    """A language model whose head is its embedding, of which it leaves out two padding rows."""

    def __init__(self, linear):
        super().__init__()
        torch.manual_seed(15)
        self.embedding = nn.Embedding(12, D)
        self.body = nn.Sequential(nn.Linear(D, D), nn.Tanh())
        self.linear = nn.Linear(D, 12, bias=False) if linear else None
        if linear:
            self.linear.weight = self.embedding.weight

    def forward(self, ids):
        x = self.body(self.embedding(ids))
        logits = x @ self.embedding.weight.T if self.linear is None else self.linear(x)
        return logits[..., :10]


@both
@pytest.mark.parametrize("linear", [False, True])
def test_a_head_for_every_token_without_its_padding_rows(linear, how):
    model = Tied(linear).eval()
    ids = torch.arange(60).reshape(6, 10) % 10
    place = {"head": "linear"} if linear else {"features": "body"}
    labels = 7 * ids % 10
    batches, weight = [(ids, labels)], model.embedding.weight
    report = measured(model, how, batches, weight=lambda: weight[:10], **place)
    hits = model(ids).flatten(0, 1).argmax(1) == labels.flatten()
    assert report.accuracy == pytest.approx(float(hits.float().mean()))
    assert report.notes == ()
    with pytest.raises(ValueError, match="what leaves the model"):
        measured(model, how, batches, weight=weight[:10].flip(0), **place)
    if linear:
        with pytest.raises(ValueError, match=r"of 'linear', with 12 classes.* it has 10 columns"):
            measured(model, how, batches)


# -- one moment ------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", ["copy", "data"])
def test_averaged_weights_are_read_with_their_features(swap):
    """As callbacks for averages of weights do: in before the evaluation, back before the report."""
    model, average = Net().eval(), Net().eval()
    with torch.no_grad():
        for p in average.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    own = copy.deepcopy(model.state_dict())
    with watch(model, nc4=True, targets="etf") as watched, torch.no_grad():
        for p, q in zip(model.parameters(), average.parameters(), strict=True):
            if swap == "copy":
                p.data.copy_(q)
            else:
                p.data = q.detach().clone()
        for x, y in BATCHES:
            model(x)
            watched.labels(y)
        for name, p in model.named_parameters():
            p.data.copy_(own[name])
    report = watched.report()
    assert report.logits == pytest.approx(mean_logits(average(INPUTS)), abs=1e-5)
    assert "the model's parameters have changed since" in report.notes[0]


def test_a_changing_network_is_said_and_the_last_batch_counts():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, targets="etf") as watched:
        for x, y in [*BATCHES, *BATCHES]:
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            last = model.fc.weight.detach().double().clone().numpy()
            optimizer.step()
            watched.labels(y)  # after the step, which has changed the weight
    report = watched.report()
    assert report.geometry.classifier == pytest.approx(last @ last.T)
    assert "changed 3 times while batches passed" in report.notes[0]
    assert "changed since" in report.notes[1]
    watched.reset()
    with watched, torch.no_grad():
        model(INPUTS)
        watched.labels(LABELS)
    assert watched.report().notes == ()


def test_a_head_that_changes_what_it_computes_is_compared_again():
    model = Net().eval()
    with watch(model, targets="etf") as watched, torch.no_grad():
        model(INPUTS)
        watched.labels(LABELS)
        model.after = lambda logits: logits.square()
        model.fc.weight.mul_(2)
        model(INPUTS)
        with pytest.raises(ValueError, match="what leaves the model"):
            watched.labels(LABELS)


def test_a_head_that_the_caller_runs_on_what_the_model_gives():
    class Embedding(Net):
        def forward(self, x):
            return self.body(x)

    model = Embedding().eval()
    with watch(model, targets="etf") as watched, torch.no_grad():
        for x, y in BATCHES:
            logits = model.fc(model(x))
            watched.labels(y)
    assert logits.shape == (20, K)
    assert "leave the model as they are was not checked" in watched.report().notes[0]
    assert watched.report().logits == pytest.approx(mean_logits(model.fc(model(INPUTS))), abs=1e-5)


# -- wrappers --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_wrappers_are_looked_into(wrap, how):
    check(wrap(Projected()), how)


@both
def test_compiled_models_are_compared_with_what_leaves_them(how):
    check(torch.compile(Net(), backend="eager"), how)
    check(torch.compile(Behind(2.0, OFFSET), backend="eager"), how, note="times 2 plus an offset")
    with pytest.raises(ValueError, match="what leaves the model"):
        measured(torch.compile(Behind(squash=torch.square), backend="eager").eval(), how)
