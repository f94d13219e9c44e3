"""What the theory says of a training of which only a callback's record is known."""

from __future__ import annotations

import numpy as np

from tightframe.capture.record import TrainingRecord
from tightframe.diagnosis.theory import TheoryAnswer, ask_theory
from tightframe.heads.last_layer import LastLayer
from tightframe.heads.scores import own_margins
from tightframe.metrics.wheels import assumed_problem
from tightframe.problem.problem import Problem


def recorded_problem(record: TrainingRecord) -> Problem | None:
    """Return the problem that was given, or else assumed; None if a class has no samples.

    One of other counts than were measured, or with targets, is not taken.
    """
    given = record.problem
    if not record.counts.all():
        return None
    plain = given if given is not None and given.targets is None else None
    if plain is not None and np.array_equal(plain.counts, record.counts):
        return plain
    return assumed_problem(record.counts, record.bias is not None, record.classes.names)


def ask_of_record(record: TrainingRecord) -> TheoryAnswer:
    """Compare the theory with a recorded training, with decays fitted to the kept features."""
    if record.on_training_set is False:
        return TheoryAnswer(False, "it is about training samples, and other samples were measured")
    problem = recorded_problem(record)
    if problem is None:
        return TheoryAnswer(False, "classes without samples have no place in the theory")
    if not len(record.labels):
        return TheoryAnswer(False, f"of {record.num_classes} classes no features were kept")
    scores = record.class_means @ record.weight.T
    scores = scores if record.bias is None else scores + record.bias
    accuracies = record.classes.class_accuracy
    return ask_theory(
        LastLayer.of(
            record.features,
            record.labels,
            record.weight,
            record.bias,
            class_names=record.classes.names,
        ),
        problem,
        np.ones(record.num_classes) if accuracies is None else accuracies,
        recorded=problem is record.problem,
        margins=own_margins(scores, np.arange(record.num_classes)),
    )
