"""The Hugging Face callback on tiny randomly initialised models; nothing is downloaded."""

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.reference import two_pass
from tightframe.capture.layers import collapse_report, layer_scalars

transformers = pytest.importorskip("transformers")

from tightframe.capture.huggingface import CollapseTrainerCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

K, PAD = 3, 0
SIZES = {"num_labels": K, "vocab_size": 20, "pad_token_id": PAD}
ENCODER = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16} | SIZES
RNG = np.random.default_rng(1)


def samples(count=18, *, left=False):
    rows = []
    for i in range(count):
        length = int(RNG.integers(3, 7))
        ids = RNG.integers(1, 20, size=length)
        ids[0] = 1 + i % K
        padding = np.full(6 - length, PAD)
        ids = np.r_[padding, ids] if left else np.r_[ids, padding]
        mask = (ids != PAD).astype(int)
        row = {"input_ids": ids, "attention_mask": mask}
        rows.append({n: torch.tensor(v) for n, v in row.items()} | {"labels": i % K})
    return rows


DATA = samples()


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers=2, max_position_embeddings=8, **ENCODER)
    return transformers.BertForSequenceClassification(config)


def roberta():
    torch.manual_seed(0)
    config = transformers.RobertaConfig(num_hidden_layers=1, max_position_embeddings=12, **ENCODER)
    return transformers.RobertaForSequenceClassification(config)


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=8, **SIZES)
    return transformers.GPT2ForSequenceClassification(config)


def make_trainer(model, folder, **options):
    settings = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 6,
        "per_device_eval_batch_size": 7,
        "eval_strategy": "epoch",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
    } | options
    arguments = transformers.TrainingArguments(output_dir=str(folder), **settings)
    return transformers.Trainer(model, arguments, train_dataset=DATA, eval_dataset=DATA)


def head_features(model):
    """Features, logits and labels in NumPy, from the model's outputs and explicit indexing."""
    model.eval()
    batch = transformers.default_data_collator(DATA)
    y = batch.pop("labels").numpy()
    with torch.no_grad():
        logits = model(**batch).logits.double().numpy()
        if isinstance(model, transformers.BertForSequenceClassification):
            x = model.bert(**batch).pooler_output
        elif isinstance(model, transformers.RobertaForSequenceClassification):
            x = model.classifier.dense(model.roberta(**batch)[0][:, 0]).tanh()
        else:
            hidden = model.transformer(**batch)[0]
            last = batch["attention_mask"].sum(dim=1) - 1
            x = hidden[torch.arange(len(hidden)), last]
    return x.double().numpy(), logits, y


@pytest.mark.parametrize(
    ("make", "name"),
    [(bert, "classifier"), (roberta, "classifier.out_proj"), (gpt2, "score")],
)
def test_features_are_those_the_model_decides_by(make, name, tmp_path):
    model = make()
    trainer = make_trainer(model, tmp_path)
    callback = CollapseTrainerCallback().attach(trainer)
    metrics = trainer.evaluate()
    x, logits, y = head_features(model)
    assert list(callback.reports) == [name]
    row = callback.history[0]
    assert row["nc1"] == pytest.approx(two_pass.nc1(x, y, K), rel=1e-3)
    assert row["nc1_quotient"] == pytest.approx(two_pass.nc1_quotient(x, y, K), rel=1e-4)
    # The accuracy ties the features to the model's own logits.
    assert row["accuracy"] == np.mean(logits.argmax(axis=1) == y)
    assert metrics["eval_collapse/nc1"] == row["nc1"]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_training_logs_everywhere(tmp_path):
    trainer = make_trainer(
        bert(),
        tmp_path,
        report_to=["tensorboard"],
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_collapse/nc1",
        greater_is_better=False,
    )
    callback = CollapseTrainerCallback(
        layers=["bert.encoder.layer.0"], reduce={"bert.encoder.layer.0": "mean"}
    ).attach(trainer)
    trainer.train()
    assert [row["epoch"] for row in callback.history] == [1, 2]
    written = [row["nc1"] for row in callback.history]
    key = "eval_collapse/nc1"
    assert [row[key] for row in trainer.state.log_history if key in row] == written
    assert trainer.state.best_metric == min(written)
    assert "eval_collapse/bert.encoder.layer.0/nc1" in str(trainer.state.log_history)
    (folder,) = {path.parent for path in tmp_path.rglob("events.out*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    board = [event.value for event in events.Scalars("eval/collapse/nc1")]
    assert board == pytest.approx(written, rel=1e-5)


def test_attached_twice_it_measures_once(tmp_path):
    trainer = make_trainer(bert(), tmp_path)
    callback = CollapseTrainerCallback(loader="evaluation")
    trainer.add_callback(callback)
    callback.attach(trainer).attach(trainer)
    trainer.evaluate()
    assert len(callback.history) == 1


def test_training_data_every_other_epoch_and_training_unchanged(tmp_path):
    states = []
    for attach in (False, True):
        trainer = make_trainer(bert(), tmp_path, eval_strategy="no")
        callback = CollapseTrainerCallback(loader="train", every=2, targets="etf")
        if attach:
            callback.attach(trainer)
        trainer.train()
        states.append(trainer.model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    (row,) = callback.history
    batches = [transformers.default_data_collator(DATA)]
    expected = layer_scalars(collapse_report(trainer.model, batches, targets="etf"))
    assert row["nc1"] == pytest.approx(expected["nc1"], rel=1e-3)
    assert row["nc4"] == expected["nc4"]
    logged = [r for r in trainer.state.log_history if "collapse/nc1" in r]
    assert [r["collapse/nc1"] for r in logged] == [row["nc1"]]


def test_given_to_the_trainer_it_fills_history_and_metrics(tmp_path):
    model, callback = bert(), CollapseTrainerCallback(nc4=False)
    arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    trainer = transformers.Trainer(model, arguments, eval_dataset=DATA, callbacks=[callback])
    metrics = trainer.evaluate()
    assert metrics["eval_collapse/nc1"] == callback.history[0]["nc1"]
    assert trainer.state.log_history[-1]["eval_collapse/nc1"] == callback.history[0]["nc1"]
    assert "eval_collapse/nc4" not in metrics


def test_padding_on_the_left_and_no_mask(tmp_path):
    model, rows = gpt2(), samples(left=True)
    for row in rows:
        del row["attention_mask"]
    arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    trainer = transformers.Trainer(model, arguments, eval_dataset=rows)
    callback = CollapseTrainerCallback().attach(trainer)
    trainer.evaluate()
    (row,) = callback.history
    batch = transformers.default_data_collator(rows)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"]).logits
        x = model.transformer(batch["input_ids"])[0][:, -1].double().numpy()
    y = batch["labels"].numpy()
    assert row["accuracy"] == np.mean(logits.argmax(dim=1).numpy() == y)
    assert row["nc1_quotient"] == pytest.approx(two_pass.nc1_quotient(x, y, K), rel=1e-4)


def test_token_classification(tmp_path):
    torch.manual_seed(0)
    config = bert().config
    model = transformers.BertForTokenClassification(config)
    rows = []
    for row in DATA:
        labels = torch.where(row["attention_mask"] == 1, row["input_ids"] % K, -100)
        rows.append(row | {"labels": labels})
    arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    trainer = transformers.Trainer(model, arguments, eval_dataset=rows)
    callback = CollapseTrainerCallback().attach(trainer)
    trainer.evaluate()
    batch = transformers.default_data_collator(rows)
    labels = batch.pop("labels")
    with torch.no_grad():
        x = model.bert(**batch)[0][labels >= 0].double().numpy()
    y = labels[labels >= 0].numpy()
    assert callback.history[0]["nc1_quotient"] == pytest.approx(
        two_pass.nc1_quotient(x, y, K), rel=1e-4
    )


def test_the_training_set_is_measured_by_default_and_it_is_said(tmp_path):
    trainer = make_trainer(bert(), tmp_path)
    callback = CollapseTrainerCallback().attach(trainer)
    trainer.train()
    assert [row["epoch"] for row in callback.history] == [1, 2]
    rows = [row for row in trainer.state.log_history if "collapse/nc1" in row]
    assert [row["collapse/on_training_set"] for row in rows] == [1.0, 1.0]
    assert not any("eval_collapse/nc1" in row for row in trainer.state.log_history)
    assert callback.split == "train"
    assert callback.reports["classifier"].notes == ("Measured on the training set, after step 6.",)


def test_evaluation_sets_have_their_prefix(tmp_path):
    trainer = make_trainer(bert(), tmp_path)
    trainer.eval_dataset = {"first": DATA[:9], "other": DATA[9:]}
    callback = CollapseTrainerCallback(loader="evaluation", every=2).attach(trainer)
    trainer.train()
    # Every other evaluation of each set.
    assert [row["set"] for row in callback.history] == ["eval_first", "eval_other"]
    log = trainer.state.log_history
    for name, row in zip(("first", "other"), callback.history, strict=True):
        key = f"eval_{name}_collapse/nc1"
        assert [logged[key] for logged in log if key in logged] == [row["nc1"]]
    assert "the evaluation set 'other'" in callback.reports["classifier"].measured_on
    metrics = trainer.evaluate(DATA[:9], metric_key_prefix="test")
    assert "test_loss" in metrics
    assert not any("eval" in name for name in metrics)


def test_a_training_without_a_measurement_ends_with_a_warning(tmp_path):
    def train(message, **options):
        trainer = make_trainer(bert(), tmp_path, eval_strategy=options.pop("strategy", "no"))
        callback = CollapseTrainerCallback(**options).attach(trainer)
        with pytest.warns(RuntimeWarning, match="measured nothing: " + message):
            trainer.train()
        assert callback.history == []

    train(r"loader is 'evaluation', and there was none \(eval_strategy='no'\)", loader="evaluation")
    train("every=3, and there were 2 epochs", every=3)
    train("every=3, and there were 2 evaluations", every=3, loader="evaluation", strategy="epoch")


def test_features_that_are_not_finite_are_no_reason_to_stop(tmp_path):
    model = bert()
    with torch.no_grad():
        model.bert.pooler.dense.bias[0] = float("nan")
    trainer = make_trainer(model, tmp_path)
    callback = CollapseTrainerCallback().attach(trainer)
    with pytest.warns(RuntimeWarning, match="not measured: features: those at 'classifier'"):
        trainer.evaluate()
    assert callback.history == []


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="loader: got 'test', allowed are evaluation, train"):
        CollapseTrainerCallback(loader="test")
    trainer = make_trainer(bert(), tmp_path)
    CollapseTrainerCallback("score").attach(trainer)
    with pytest.raises(ValueError, match="has no module 'score'"):
        trainer.evaluate()
