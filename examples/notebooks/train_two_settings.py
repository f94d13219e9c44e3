"""
Train two settings and report
=============================

One data set, two decays: below the threshold all ten classes stay apart, above
it five of them merge. The prediction comes first, then the networks.
"""

# %%
# Predict
# -------
#
# ``A`` and ``B`` are the two trainings to come.

import tempfile
from pathlib import Path

import tightframe as tf
from tightframe.runs.config import RunConfig
from tightframe.runs.store import load_run
from tightframe.runs.train import run

COUNTS = "100x5,10x5"
DECAYS = [(0.02, 2e-4), (0.08, 8e-4)]
problems = [
    tf.Problem(COUNTS, weight_decay=w, feature_decay=h) for w, h in DECAYS
]
lambdas = [(w * h) ** 0.5 for w, h in DECAYS]
tf.report.merge_tree(
    problems[0], {"A": (lambdas[0], None), "B": (lambdas[1], None)}
)

# %%
# Train
# -----
#
# The objective is exactly that of the problems: cross-entropy and both decays.
# A run is a folder, which goes on after a kill.

folder = Path(tempfile.mkdtemp()) / "two-settings"
config = RunConfig(counts=COUNTS, settings=DECAYS, epochs=200, measure_every=50)
for result in run(config, folder, progress=False):
    states = {
        verdict["count"]: verdict["measured"] for verdict in result["verdicts"]
    }
    print(result["status"], "after", result["epochs"], "epochs:", states)

# %%
# Compare
# -------
#
# Rings are where theory sends the classes, marks where the networks do.

record = load_run(folder)
pairs = list(zip(problems, record.settings, strict=True))


def measured(setting):
    """Return the network's mean logits and its bias."""
    return setting.final["logits"], setting.final["bias"]


tf.report.wheel(tf.solve(pairs[0][0]), measured(pairs[0][1]))

# %%

tf.report.wheel(tf.solve(pairs[1][0]), measured(pairs[1][1]))

# %%
# Report
# ------
#
# ``write_report`` makes one page of it that needs no server and no network
# connection; ``tightframe report FOLDER`` does the same.

page = tf.report.write_report(folder)
print(page.name, f"{page.stat().st_size / 1e6:.1f} MB")
