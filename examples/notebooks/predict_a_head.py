"""
Predict a head from counts and decays
=====================================

No network and no data: class counts, loss and decays determine where every
class is sent at the end of training, and from which decay on classes are told
apart no more.
"""

# %%
# The minimum
# -----------
#
# Five classes of 100 samples and five of 10, with a decay of the classifier and
# one of the features. The solution is a global minimum, with a certificate:
# ``gap`` bounds how far below it any network could go.

import tightframe as tf

problem = tf.Problem("100x5,10x5", weight_decay=0.02, feature_decay=2e-4)
solution = tf.solve(problem)
solution

# %%
# The wheel shows where every class is sent. A mark on the rim is a class that
# the network is certain of, a mark at the cross one without any decision.

tf.report.wheel(solution)

# %%
# The thresholds
# --------------
#
# From which decay on do classes merge? The answer is exact and needs no sweep.
# What counts is the geometric mean λ of both decays.

limits = tf.thresholds(problem)
limits

# %%
# Along λ every class is a line; where lines join, these classes share one
# prediction.

tf.report.merge_tree(problem)

# %%
# Four times the decays, and the small classes have merged. Merged is not
# vanished: their common mean still differs from that of the large classes.

merged = tf.solve(problem.replace(weight_decay=0.08, feature_decay=8e-4))
tf.report.wheel(merged)

# %%
# How large a small class has to be
# ---------------------------------
#
# At these decays, all other counts unchanged, this many samples keep a class
# apart:

harder = problem.replace(weight_decay=0.08, feature_decay=8e-4)
low, high = tf.thresholds(harder).groups[1].distinct_counts
print(f"distinct with {low:.0f} to {high:.0f} samples a class")
