"""No argument of `Problem` that changes the loss is taken and ignored, wherever one goes."""

import json

import numpy as np
import pytest
import torch

import tightframe as tf
from tests.problems import make
from tightframe import landscape
from tightframe.geometry.states import measured_states
from tightframe.heads import LastLayer
from tightframe.metrics import ClassMoments, certificate_gap, collapse_report
from tightframe.metrics.classes import class_table
from tightframe.pages.explore import compute
from tightframe.pages.explore.state import State
from tightframe.runs.config import RunConfig
from tightframe.sweeps.grid import Grid, run_grid
from tightframe.theory import thresholds as closed
from tightframe.theory.certificate import factored_objective
from tightframe.training import CollapseModule, ProblemLoss, UFMLoss, group_margins, train_ufm

COUNTS, K, D = "12x2,5x2,3", 5, 6

#: What each argument is set to.
ARGUMENTS = {
    "label_smoothing": 0.2,
    "smoothing_weights": "labels",
    "class_margins": "1x2,.5x2,.2",
    "logit_scale": "1x2,.7x2,.5",
    "feature_weights": "contexts",
    "targets": 0.8 * np.eye(K) + 0.2 * np.roll(np.eye(K), 1, axis=0),
    "class_weights": "1x2,2x2,3",
    "logit_adjustment": "prior",
}

#: What is set beside it and without it: alone it would mean nothing.
BESIDE = {"smoothing_weights": {"class_weights": "1x2,2x2,3", "label_smoothing": 0.2}}

RNG = np.random.default_rng(0)
WEIGHT, MEANS = RNG.normal(size=(K, D)), RNG.normal(size=(D, K))
LOGITS = WEIGHT @ MEANS
LABELS = np.repeat(range(K), [12, 12, 5, 5, 3])
FEATURES = np.abs(MEANS.T[LABELS] + 0.1 * RNG.normal(size=(37, D)))
BATCH = torch.tensor(FEATURES, dtype=torch.float32), torch.tensor(LABELS)


def head():
    torch.manual_seed(0)
    return torch.nn.Linear(D, K, bias=False)


def moments():
    found = ClassMoments(K, D)
    found.update(torch.tensor(FEATURES), BATCH[1])
    return found


def point():
    return landscape.Point(WEIGHT, MEANS)


def decays(problem):
    found = tf.calibrate(problem, np.eye(K), 1.5 * np.eye(K)[LABELS], LABELS)
    return found.weight_decay, found.feature_decay


def limits(problem):
    found = tf.path_limits(problem)
    return found.total_collapse, found.vanishing and found.vanishing.classifier.tolist()


#: Everything public that takes a Problem, and a number or record that shows what it made of it.
CALLS = {
    "solve": lambda p: tf.solve(p).objective,
    "states": lambda p: tf.solve(p).states.decision_margin.tolist(),
    "certify": lambda p: tf.certify(p, LOGITS).primal,
    "path": lambda p: tf.path(p, weight_decay=[1e-3, 1e-2]).solutions[0].objective,
    "thresholds": lambda p: tf.thresholds(p).to_dict(),
    "closed thresholds": lambda p: closed.thresholds(p).to_dict(),
    "state_changes": lambda p: tf.state_changes(p).to_dict(),
    "rank_changes": lambda p: tf.rank_changes(p, points=10),
    "path_limits": limits,
    "advise": lambda p: tf.advise(p).to_dict(),
    "calibrate": decays,
    "landscape.objective": lambda p: landscape.objective(p, WEIGHT, MEANS),
    "landscape.gradient": lambda p: landscape.gradient(p, WEIGHT, MEANS),
    "landscape.hessian": lambda p: landscape.hessian(p, WEIGHT, MEANS) @ np.arange(2.0 * D * K),
    "landscape.gauss_newton": lambda p: (
        landscape.gauss_newton(p, WEIGHT, MEANS) @ np.arange(2.0 * D * K)
    ),
    "landscape.critical_point": lambda p: landscape.critical_point(p, WEIGHT, MEANS).objective,
    "landscape.saddle": lambda p: landscape.saddle(p, 2).weights,
    "Landscape": lambda p: landscape.Landscape(p, D).objective(point()),
    "factored_objective": lambda p: factored_objective(p, [WEIGHT], FEATURES, LABELS),
    "ProblemLoss": lambda p: float(ProblemLoss(p)(torch.tensor(LOGITS.T[LABELS]), BATCH[1])),
    "UFMLoss": lambda p: UFMLoss(p)(*BATCH, head()).item(),
    "CollapseModule": lambda p: (
        CollapseModule(torch.nn.Flatten(), head(), p).loss(*BATCH, head()).item()
    ),
    "train_ufm": lambda p: [
        run.logits.tolist() for run in train_ufm(p, seeds=[1], dim=D, lr=0.1, iterations=2)
    ],
    "group_margins": lambda p: group_margins(p, LOGITS),
    "measured_states": lambda p: measured_states(p, LOGITS),
    "class_table": lambda p: class_table(LastLayer(FEATURES, LABELS, WEIGHT), problem=p).to_dict(),
    "certificate_gap": lambda p: certificate_gap(p, moments(), WEIGHT),
    "collapse_report": lambda p: {
        name: report.to_dict()
        for name, report in collapse_report(
            torch.nn.Sequential(torch.nn.Identity(), head()), [BATCH], problem=p
        ).items()
    },
    "run configuration": lambda p: (
        RunConfig(data="gaussian_mixture", settings=[p]).problems[0].to_dict()
    ),
    "link of the explorer": lambda p: (
        State.from_query(State.from_problem(p).query()).problem().to_dict()
    ),
    "explorer": lambda p: compute.solve(p).objective,
    "explorer's phases": compute.phases,
    "grid": lambda p: run_grid(
        Grid(p, {"weight_decay": [1e-2], "feature_decay": [1e-2]}, (COUNTS,), None, 1e-8, 300)
    ),
}

# At test time nobody knows a sample's class: these go by logits before all that, as their
# docstrings say, and by which classes are alike.
BEFORE_THE_LOSS = set(ARGUMENTS) - {"targets"}

#: What says nothing there, for a reason.
SAYS_NOTHING = {
    "group_margins": BEFORE_THE_LOSS,
    "measured_states": BEFORE_THE_LOSS,
    "class_table": BEFORE_THE_LOSS,
    "ProblemLoss": {"feature_weights"},  # of the decays, which it has not
    "landscape.gauss_newton": {"label_smoothing"},  # the softmax's curvature knows no label
}


def outcome(call, problem):
    """Return what a call makes of a problem, or the error's text."""
    try:
        return json.dumps(call(problem), default=repr, sort_keys=True)
    except ValueError as error:
        return error


#: Slow ones go without what they have known for long.
SLOW = {"thresholds", "state_changes", "rank_changes", "advise"}


@pytest.mark.filterwarnings("ignore:calibrate")
@pytest.mark.parametrize("name", CALLS)
def test_no_argument_is_ignored(name):
    ignored, plain = set(), outcome(CALLS[name], make(COUNTS))
    for argument, value in ARGUMENTS.items():
        if name in SLOW and argument in ("class_weights", "logit_adjustment"):
            continue
        beside = BESIDE.get(argument, {})
        expected = outcome(CALLS[name], make(COUNTS, **beside)) if beside else plain
        found = outcome(CALLS[name], make(COUNTS, **beside, **{argument: value}))
        if isinstance(found, ValueError):
            named = [word for word in (argument, *beside) if word in str(found)]
            assert named, f"{argument}: {found}"
        elif found == expected:
            ignored.add(argument)
    assert ignored == SAYS_NOTHING.get(name, set())


@pytest.mark.parametrize(
    "argument", ["label_smoothing", "class_margins", "logit_scale", "targets", "logit_adjustment"]
)
def test_mean_squared_error_refuses_what_needs_a_softmax(argument):
    with pytest.raises(ValueError, match=f"^({argument}|loss): got "):
        make(COUNTS, "mse", **{argument: ARGUMENTS[argument]})


@pytest.mark.parametrize("options", [{"depth": 2}, {"features": "nonnegative"}])
@pytest.mark.parametrize("argument", ["label_smoothing", "class_margins", "logit_scale"])
@pytest.mark.parametrize("name", ["solve", "thresholds", "path", "state_changes", "advise"])
def test_layers_and_features_that_do_not_know_them_refuse(name, argument, options):
    with pytest.raises(ValueError, match=rf"{argument}|{'|'.join(options)}"):
        CALLS[name](make(COUNTS, **options, **{argument: ARGUMENTS[argument]}))
