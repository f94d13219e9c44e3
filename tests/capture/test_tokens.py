"""Sequence models: causal language models and classifiers that read one token, tiny and random."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.reference import two_pass
from tightframe.capture.layers import collapse_report
from tightframe.capture.watch import watch

transformers = pytest.importorskip("transformers")

from tightframe.capture.huggingface import CollapseTrainerCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

WORDS, LENGTH = 7, 8
IDS = (torch.arange(21)[:, None] % WORDS + 3 * torch.arange(LENGTH)) % WORDS  # each is 3 more
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}


def counting_model():
    """A causal language model whose next token is always right: trained on the rule of `IDS`."""
    torch.manual_seed(0)
    sizes = {"vocab_size": WORDS, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": LENGTH}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = transformers.GPT2Config(**sizes, **dropout, **SPECIAL)
    model = transformers.GPT2LMHeadModel(config)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = model(IDS).logits[:, :-1].argmax(dim=2)
    assert bool((found == IDS[:, 1:]).all())
    return model


@pytest.fixture(scope="module")
def causal():
    return counting_model()


def own_numbers(model):
    with torch.no_grad():
        x = model.transformer(IDS)[0][:, :-1].flatten(0, 1).double().numpy()
    y = IDS[:, 1:].flatten().numpy()
    return two_pass.nc1_quotient(x, y, WORDS), np.bincount(y, minlength=WORDS).tolist()


def as_dictionary(ids):
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize(
    "batch",
    [
        as_dictionary(IDS),
        {"input_ids": IDS, "labels": IDS},
        (IDS, IDS),
        (IDS[:, :-1], IDS[:, 1:]),  # shifted by the data set
    ],
    ids=["dictionary", "no mask", "pair", "shifted already"],
)
def test_a_token_predicts_the_next_ones_label(causal, batch):
    (report,) = collapse_report(causal, [batch]).values()
    quotient, counts = own_numbers(causal)
    assert report.accuracy == 1.0
    assert report.counts.tolist() == counts
    assert report.nc1_quotient == pytest.approx(quotient, rel=1e-3)


def test_what_the_caller_says_goes_before(causal):
    (report,) = collapse_report(causal, [as_dictionary(IDS)], reduce="tokens").values()
    assert report.accuracy == 0.0
    (report,) = collapse_report(causal, [as_dictionary(IDS)], reduce="next_token").values()
    assert report.accuracy == 1.0


def test_padding_of_causal_models_is_left_out(causal):
    batch = as_dictionary(IDS)
    batch["attention_mask"][:, -3:] = 0
    batch["labels"][:, -3:] = -100
    (report,) = collapse_report(causal, [batch]).values()
    assert report.num_samples == len(IDS) * (LENGTH - 4)
    assert report.accuracy == 1.0


def test_watching_a_causal_model(causal):
    quotient, _ = own_numbers(causal)
    with torch.no_grad():
        with watch(causal, labels="labels") as named:
            causal(**as_dictionary(IDS))
        with watch(causal) as given:
            causal(IDS)
            given.labels(IDS)
        with watch(causal) as shifted:
            causal(IDS[:, :-1])
            shifted.labels(IDS[:, 1:])
    for watched in (named, given, shifted):
        assert watched.report().nc1_quotient == pytest.approx(quotient, rel=1e-3)


def test_the_trainer_callback(causal, tmp_path):
    rows = [{"input_ids": ids, "labels": ids} for ids in IDS]
    arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    trainer = transformers.Trainer(causal, arguments, eval_dataset=rows)
    callback = CollapseTrainerCallback(min_count=2).attach(trainer)
    trainer.evaluate()
    assert callback.history[0]["accuracy"] == 1.0


def test_the_lightning_monitor(causal):
    lightning = pytest.importorskip("lightning")
    from tightframe.capture.lightning import CollapseMonitor

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner = causal

        def validation_step(self, batch, batch_idx):
            self.inner(**batch)

    monitor = CollapseMonitor("inner.lm_head")
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[monitor]
    )
    loader = torch.utils.data.DataLoader([as_dictionary(IDS)], batch_size=None)
    trainer.validate(Module(), loader, verbose=False)
    assert monitor.history[0]["accuracy"] == 1.0


def test_masked_models_predict_the_tokens_own_label():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS + 1,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=LENGTH,
    )
    model = transformers.BertForMaskedLM(config).eval()
    masked = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    inputs = IDS.masked_fill(masked, WORDS)
    labels = IDS.masked_fill(~masked, -100)
    batch = {"input_ids": inputs, "labels": labels}
    (report,) = collapse_report(
        model, [batch], (), "cls.predictions.decoder", scatter=False
    ).values()
    with torch.no_grad():
        right = model(inputs).logits.argmax(dim=2) == labels
    assert report.accuracy == pytest.approx(float(right[masked].float().mean()))
    assert report.num_samples == int(masked.sum())


class Own(nn.Module):
    """Nobody's class, without a loss."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, WORDS)

    def forward(self, ids):
        return self.head(self.embedding(ids))


class Wrapped(nn.Module):
    """Of no known class; its own loss tells which label belongs to a token."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, labels=None, attention_mask=None):
        return self.inner(input_ids=input_ids, labels=labels)


def test_a_batch_without_labels_does_not_settle_which_token_is_meant(causal):
    nothing = {"input_ids": IDS, "labels": torch.full_like(IDS, -100)}
    (report,) = collapse_report(Wrapped(causal), [nothing, as_dictionary(IDS)]).values()
    assert report.accuracy == 1.0


def test_labels_that_are_the_inputs_of_an_unknown_model_are_refused():
    with pytest.raises(ValueError, match=r"the labels are the inputs themselves.*'next_token'"):
        collapse_report(Own(), [(IDS, IDS)])
    model = Own()
    with watch(model) as watched:
        model(IDS)
        with pytest.raises(ValueError, match="the inputs themselves"):
            watched.labels(IDS)
    (report,) = collapse_report(Own(), [(IDS, IDS)], reduce="next_token").values()
    assert report.num_samples == len(IDS) * (LENGTH - 1)
    other = (IDS + 1) % WORDS  # of the token itself
    (report,) = collapse_report(Own(), [(IDS, other)]).values()
    assert report.num_samples == len(IDS) * LENGTH


def test_two_tokens_seen_once_make_cdnv_infinite_unless_left_out(causal):
    model = Own()
    with torch.no_grad():
        model.embedding.weight[0] = model.embedding.weight[1]
    ids = torch.tensor([[0, 1, 2, 3, 2, 3, 4, 4]])
    batches = [(ids, ids)]
    with pytest.warns(RuntimeWarning, match="CDNV is infinite"):
        (report,) = collapse_report(model, batches, reduce="tokens").values()
    assert report.cdnv == np.inf
    with pytest.warns(RuntimeWarning, match="classes 0, 1, 5, 6 are of fewer than 2 samples"):
        (report,) = collapse_report(model, batches, reduce="tokens", min_count=2).values()
    assert report.cdnv == 0.0  # the others' samples are equal
    assert report.counts.tolist() == [0, 0, 2, 2, 2, 0, 0]
    assert report.missing == (0, 1, 5, 6)


# -- sequence classifiers --------------------------------------------------------------------------

PAD = 0


def classifier(pad=PAD):
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}
    config = transformers.GPT2Config(num_labels=3, pad_token_id=pad, **sizes, **SPECIAL)
    return transformers.GPT2ForSequenceClassification(config).eval()


class First(nn.Module):
    """Scores every token and reads the first."""

    def __init__(self, read):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.classifier = nn.Embedding(20, 8), nn.Linear(8, 3)
        self.read = read

    def forward(self, input_ids, attention_mask=None):
        return self.read(self.classifier(self.embedding(input_ids)))


def padded(side):
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(1, 20, (12, 6), generator=generator)
    lengths = torch.randint(2, 6, (12, 1), generator=generator)
    places = torch.arange(6) if side == "right" else torch.arange(5, -1, -1)
    rows = rows.masked_fill(places >= lengths, PAD)
    mask = (rows != PAD).long()
    return {"input_ids": rows, "attention_mask": mask, "labels": torch.arange(12) % 3}


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "make",
    [
        classifier,
        lambda: First(lambda logits: logits[:, 0]),
        lambda: First(lambda logits: logits[:, -1]),
        lambda: First(lambda logits: {"logits": logits[:, 2]}),
    ],
    ids=["gpt2", "first", "last", "third"],
)
def test_the_token_that_the_model_reads(make, side, with_mask):
    model, batch = make(), padded(side)
    if not with_mask:
        del batch["attention_mask"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        output = model(**inputs)
    logits = output if isinstance(output, torch.Tensor) else output["logits"]
    (report,) = collapse_report(model, [batch]).values()
    expected = torch.stack([logits[batch["labels"] == k].mean(dim=0) for k in range(3)], dim=1)
    assert report.logits == pytest.approx(expected.double().numpy(), abs=1e-5)
    right = logits.argmax(dim=1) == batch["labels"]
    assert report.accuracy == pytest.approx(float(right.float().mean()))


def test_without_a_padding_token_batches_of_one_are_read_at_the_end():
    model = classifier(pad=None)
    batch = padded("right")
    singles = [
        {name: value[i : i + 1] for name, value in batch.items() if name != "attention_mask"}
        for i in range(12)
    ]
    (report,) = collapse_report(model, singles).values()
    with torch.no_grad():
        logits = torch.cat([model(single["input_ids"]).logits for single in singles])
    right = logits.argmax(dim=1) == batch["labels"]
    assert report.accuracy == pytest.approx(float(right.float().mean()))


def test_a_prediction_of_no_single_token_is_refused():
    model = First(lambda logits: logits.mean(dim=1))
    with pytest.raises(ValueError, match=r"'classifier' takes in .* is that of no single token"):
        collapse_report(model, [padded("right")])
    (report,) = collapse_report(
        model, [padded("right")], reduce={"classifier": lambda x, _: x.mean(1)}
    ).values()
    assert report.num_samples == 12


def test_a_head_that_gives_all_tokens_the_same_reads_the_usual_one():
    model, batch = classifier(), padded("right")
    with torch.no_grad():
        model.score.weight.zero_()
        hidden = model.transformer(batch["input_ids"])[0]
    last = batch["attention_mask"].sum(dim=1) - 1
    x = hidden[torch.arange(12), last].double().numpy()
    (report,) = collapse_report(model, [batch], nc4=False).values()
    assert report.nc1_quotient == pytest.approx(
        two_pass.nc1_quotient(x, batch["labels"].numpy(), 3), rel=1e-4
    )


def test_an_adapter_on_the_head_does_not_hide_the_token():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["score"], r=2, init_lora_weights=False)
    model, batch = peft.get_peft_model(classifier(), config).eval(), padded("right")
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"]).logits
    (report,) = collapse_report(model, [batch]).values()
    right = logits.argmax(dim=1) == batch["labels"]
    assert report.accuracy == pytest.approx(float(right.float().mean()))
