"""
Advise before a training
========================

A training is planned: its counts and decays are known, its network is not.
Which classes would be lost at the minimum, and what keeps them apart?
"""

# %%
# What theory lets happen
# -----------------------

import tightframe as tf

problem = tf.Problem("500x5,100x5", weight_decay=0.01, feature_decay=0.002)
advice = tf.advise(problem)
advice

# %%
# The margins of all classes, as they are and with every proposal that helps:

advice.plot()

# %%
# A proposal, followed
# --------------------
#
# Every proposal was solved and certified before it was printed, and those that
# do not help say why. Here class weights, as heavy as they are safe:

(weights,) = (
    proposal
    for proposal in advice.proposals
    if proposal.kind == "class_weights"
)
balanced = problem.replace(class_weights="balanced")
planned = {
    "as it is": problem,
    "as proposed": weights.problem,
    "balanced weights": balanced,
}
for name, one in planned.items():
    solution = tf.solve(one)
    print(
        f"{name}: sibling margins {solution.group_margins.round(2)}, {solution.status}"
    )

# %%
# Balanced weights are too heavy at these decays: now the five large classes
# merge. Their lines join first:

tf.report.merge_tree(balanced)
