"""
Measure a saved network
=======================

What goes into the last layer, the labels and that layer are enough. The numbers
below are those of the papers, NC1 to NC4, and distances to *predicted* shapes,
not only to the simplex ETF.
"""

# %%
# Features of a network
# ---------------------
#
# Here of a small one that is trained for a moment; yours come out of a file.
# Collapse is a property of the *training* set, in eval mode and without
# augmentation.

import numpy as np
import torch
from torch import nn

import tightframe as tf

digits = tf.data.standardize(
    tf.data.subset(tf.data.load("digits"), "100x5,20x5")
)
inputs, labels = (
    torch.from_numpy(digits.train_inputs),
    torch.from_numpy(digits.train_labels),
)
torch.manual_seed(0)
body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))
head = nn.Linear(32, 10, bias=False)
optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=3e-3)
for _ in range(300):
    features = body(inputs)
    loss = nn.functional.cross_entropy(head(features), labels)
    loss = (
        loss
        + 5e-3 * head.weight.square().sum()
        + 5e-5 * features.square().sum()
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %%
# One report
# ----------
#
# Arrays of NumPy, PyTorch, JAX or TensorFlow; of a stream of batches,
# ``CollapseReport.from_loader`` keeps none.

problem = tf.Problem("100x5,20x5", weight_decay=1e-2, feature_decay=1e-4)
solution = tf.solve(problem)
arrays = {
    "features": features.detach().numpy(),
    "labels": digits.train_labels,
    "weight": head.weight.detach().numpy(),
}
moments = tf.metrics.ClassMoments(10).update(
    arrays["features"], arrays["labels"]
)
report = tf.metrics.CollapseReport.measure(
    moments,
    arrays["weight"],
    features=arrays["features"],
    labels=arrays["labels"],
    targets=["etf", "seli", solution],
    problem=problem,
)
print(
    f"NC1 {report.nc1:.3f}, NC4 {report.nc4:.2f}, accuracy {report.accuracy:.2f}"
)
for target in (tf.simplex_etf(10), solution.geometry):
    for part, distance in report.distances(target).items():
        print(f"{part} to {target.name}: {distance:.2f}")

# %%
# Distances to all three targets, norms by class, and the mean logits:

report.plot()

# %%
# Predicted and measured in one picture: rings are where theory sends the
# classes, marks where the network does.

tf.report.wheel(solution, report)

# %%
# Class by class
# --------------
#
# Angles hide what a class loses. The table is of the samples' own answers,
# worst class first.

report.class_table()

# %%
# From the shell
# --------------
#
# The same arrays in a file are what the command reads: ``tightframe measure
# network.npz --weight-decay 1e-2 --feature-decay 1e-4``. Safetensors and .mat
# files will do, too.

import tempfile
from pathlib import Path

from tightframe.cli import run_command

path = Path(tempfile.mkdtemp()) / "network.npz"
np.savez(path, **arrays)
decays = ["--weight-decay", "1e-2", "--feature-decay", "1e-4"]
exit_code = run_command(["measure", str(path), *decays])
