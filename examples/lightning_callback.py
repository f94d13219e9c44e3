"""Collapse of any LightningModule, logged by whatever loggers the Trainer has, and as a page."""

import logging
import tempfile
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tightframe as tf
from tightframe.training import CollapseMonitor


class Classifier(lightning.LightningModule):
    """An ordinary module, which knows nothing of neural collapse."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 12), nn.ReLU())
        self.fc = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.fc(self.net(x))
        return logits

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the loss."""
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.Adam(self.parameters(), lr=5e-3, weight_decay=1e-4)


def main() -> None:
    """Train with the monitor attached, read back what the loggers wrote, and write a page."""
    lightning.seed_everything(0, verbose=False)
    labels = torch.arange(400) % 4
    inputs = torch.randn(400, 10) + 3 * torch.eye(10)[labels]
    data = TensorDataset(inputs, labels)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=6,
            logger=[CSVLogger(folder), TensorBoardLogger(folder)],
            callbacks=[CollapseMonitor(class_names=["cat", "dog", "fox", "owl"])],  # the one line
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # Collapse is a property of the training set, so that is what is measured.
        trainer.fit(Classifier(), DataLoader(data, 50, shuffle=True), DataLoader(data, 200))
        monitor = trainer.callbacks[0]
        for row in monitor.history:
            print(
                f"epoch {row['epoch']:.0f}  NC1 {row['nc1']:7.4f}  "
                f"classifier to ETF {row['classifier_to_simplex_etf']:.4f}  NC4 {row['nc4']:.3f}"
            )
        print(f"callback_metrics: collapse/nc1 = {trainer.callback_metrics['collapse/nc1']:.4f}")
        written = (Path(folder) / "lightning_logs" / "version_0" / "metrics.csv").read_text()
        print(
            f"metrics.csv has {sum('collapse/' in c for c in written.split(','))} columns of ours"
        )
        # TensorBoard has a wheel of most of these epochs besides, and the projector the features.
        events = EventAccumulator(trainer.loggers[1].log_dir).Reload()
        steps = [image.step for image in events.Images("collapse/wheel")]
        print(f"TensorBoard has wheels, the last after step {steps[-1]}")
        page = tf.report.write_training(monitor, Path(folder) / "training.html")
        print(f"page: {page.name}, {page.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    main()
