"""
Diagnose a network
==================

An ordinary network with ordinary weight decay, and classes that it loses: which
ones, to whom, is it the head or the features, and what helped other networks in
this state?
"""

# %%
# A network that loses classes
# ----------------------------

import torch
from torch import nn

import tightframe as tf

COUNTS = "100x5,10x5"
digits = tf.data.standardize(tf.data.subset(tf.data.load("digits"), COUNTS))
inputs, labels = (
    torch.from_numpy(digits.train_inputs),
    torch.from_numpy(digits.train_labels),
)
held_out = [
    (torch.from_numpy(digits.test_inputs), torch.from_numpy(digits.test_labels))
]
loader = list(zip(inputs.split(100), labels.split(100), strict=True))


def train(weight_decay, adjustment=0.0, steps=400):
    """Return a network of three layers, trained by SGD with weight decay on all of them."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(
            model(inputs) + adjustment, labels
        ).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


model = train(weight_decay=5e-2)

# %%
# The answer, in its order
# ------------------------
#
# The classes, the head, what to do, and theory last: where it does not describe
# the network, it says so.

answer = tf.advise(model, loader, held_out=held_out, weight_decay=5e-2)
answer

# %%
# What each class loses, as a picture:

answer.plot()

# %%
# Do the first, and ask again
# ---------------------------

print(answer.remedies.advised[0].text)
log_prior = (labels.bincount() / len(labels)).log()
better = tf.advise(
    train(weight_decay=5e-3, adjustment=log_prior),
    loader,
    held_out=held_out,
    weight_decay=5e-3,
    logit_adjustment="prior",
)
for name, one in {"before": answer, "after": better}.items():
    balanced = one.head.rows[0].held_out.balanced
    print(
        f"{name}: {len(one.classes.lost)} classes lost, held out {balanced:.2f}"
    )

# %%

better.classes
