"""Measure uneven data with both callbacks, alone or as one of several processes; keep numbers."""

import json
import logging
import os
import warnings

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from tightframe.training import CollapseMonitor, CollapseTrainerCallback

K = 3
SHOWN = ("nc1", "nc4", "cdnv")


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 6), nn.ReLU())
        self.fc = nn.Linear(6, K)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.fc(self.net(batch[0])), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.training_step(batch, batch_idx), sync_dist=True)

    def forward(self, x):
        return self.fc(self.net(x))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def numbers(reports, name):
    report = reports[name]
    return {"counts": report.counts.tolist()} | {n: getattr(report, n) for n in SHOWN}


def with_lightning(samples, processes, loader):
    torch.manual_seed(0)
    labels = torch.arange(samples) % K
    data = TensorDataset(torch.randn(samples, 5) + labels[:, None], labels)
    monitor = CollapseMonitor(loader=loader)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=1,
        logger=False,
        callbacks=[monitor],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Module(), DataLoader(data, 7, shuffle=True), DataLoader(data, 7))
    return numbers(monitor.reports, "fc")


def with_transformers(samples, folder):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=4,
        num_labels=K,
    )
    rows = [
        {"input_ids": torch.tensor([1 + i % 19, 2 + i % 5, 3]), "labels": torch.tensor(i % K)}
        for i in range(samples)
    ]
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_eval_batch_size=7,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        ddp_backend="gloo" if "RANK" in os.environ else None,
    )
    trainer = Trainer(BertForSequenceClassification(config), arguments, eval_dataset=rows)
    callback = CollapseTrainerCallback().attach(trainer)
    trainer.evaluate()
    return numbers(callback.reports, "classifier")


def measure(samples, folder, processes=1, rank=0, port=None):
    """Write what this process finds; of several with the environment that torchrun gives them."""
    if processes > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "tests",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
        }
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    found = {"validation": with_lightning(samples, processes, "validation")}
    found["train"] = with_lightning(samples, processes, "train")
    found["transformers"] = with_transformers(samples, folder)
    with open(f"{folder}/{processes}-{rank}.json", "w") as file:
        json.dump(found, file)
