"""Collapse of a Hugging Face sequence classifier, logged by its Trainer.

The model is tiny and randomly initialised from a configuration: nothing is downloaded.
"""

import tempfile

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from tightframe.training import CollapseTrainerCallback

CLASSES = 4


def sentences(count: int = 160) -> list[dict[str, torch.Tensor]]:
    """Return random sentences; the label is which of four words is in it, anywhere."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        ids = rng.integers(1 + CLASSES, 40, size=rng.integers(4, 9))
        ids[rng.integers(len(ids))] = 1 + i % CLASSES
        padded = np.pad(ids, (0, 8 - len(ids)))
        rows.append(
            {
                "input_ids": torch.tensor(padded),
                "attention_mask": torch.tensor((padded > 0).astype(int)),
                "labels": torch.tensor(i % CLASSES),
            }
        )
    return rows


def main() -> None:
    """Train for a few epochs with the callback attached."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # as small as it is
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=8,
        num_labels=CLASSES,
        pad_token_id=0,
    )
    data = sentences()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=6,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=40,
            learning_rate=3e-3,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],  # or ["tensorboard", "wandb", "mlflow"]: numbers and wheels
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
        )
        trainer = Trainer(
            BertForSequenceClassification(config), arguments, train_dataset=data, eval_dataset=data
        )
        trainer.remove_callback(PrinterCallback)  # we print ourselves
        callback = CollapseTrainerCallback(
            loader="evaluation",  # by default the training set is measured
            layers=["bert.encoder.layer.0"],
            reduce={"bert.encoder.layer.0": "first"},
        ).attach(trainer)  # the one line
        trainer.train()
    for row in trainer.state.log_history:
        if "eval_collapse/nc1" in row:
            print(
                f"epoch {row['epoch']:.0f}  NC1 {row['eval_collapse/nc1']:9.4f}  "
                f"first layer's {row['eval_collapse/bert.encoder.layer.0/nc1']:9.4f}  "
                f"NC4 {row['eval_collapse/nc4']:.3f}"
            )
    report = callback.reports["classifier"]
    print(f"accuracy {report.accuracy:.3f}, classes {report.counts.tolist()}")


if __name__ == "__main__":
    main()
