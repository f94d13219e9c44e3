"""No argument of the library lacks its option, and an error names the option as it was typed."""

import inspect
import json

import numpy as np
import pytest

import tightframe as tf
from tightframe.advice.advise import advise
from tightframe.cli import entry
from tightframe.figures.mpl import FORMATS
from tightframe.problem.scripts import described_problem, training_problem
from tightframe.problem.tokens import next_tokens
from tightframe.reproduce.folder import reproduce
from tightframe.reproduce.spec import SCALES
from tightframe.runs import config
from tightframe.runs.config import RunConfig
from tightframe.runs.text_config import TextConfig
from tightframe.solve import solve
from tightframe.sweeps.grid import Grid, run_grid
from tightframe.sweeps.phase import step_rows

#: Which command passes options on to what, and why an argument has no option there.
BUILDS = [
    ("solve", tf.Problem, {}),
    (
        "solve",
        solve,
        {
            "problem": "made from the options",
            "max_iterations": "not reached by a problem that is solved",
            "progress": "a bar on the terminal",
        },
    ),
    (
        "thresholds",
        tf.Problem,
        {"dim": "thresholds are those of features that are wide enough"},
    ),
    ("path", tf.Problem, {}),
    ("path", run_grid, {"grid": "made from the options", "progress": "a bar on the terminal"}),
    (
        "path",
        Grid,
        {
            "problem": "made from the options",
            "max_iterations": "not reached by a problem that is solved",
            "sweep": "every decay takes several values",
            "rows": "--counts, several times",
        },
    ),
    ("path", step_rows, {"num_classes": "--classes"}),
    ("certify", tf.Problem, {}),
    *((command, next_tokens, {}) for command in ("solve", "thresholds", "path", "certify")),
    (
        "advise",
        tf.Problem,
        {
            "depth": "advice is for one layer",
            "dim": "advice is for features that are wide enough",
            "targets": "advice is for one class a context",
        },
    ),
    (
        "advise",
        advise,
        {"problem": "made from the options", "tol": "the numbers are shown with four digits"},
    ),
    (
        "advise",
        described_problem,
        {"rest": "see training_problem", "notice": "prints what was read"},
    ),
    ("advise", training_problem, {"rest": "see Problem"}),
    (
        "measure",
        tf.Problem,
        {
            "counts": "the file's labels are counted",
            "depth": "the file has one layer",
            "dim": "the width of the file's features",
            "targets": "the file's labels are classes",
        },
    ),
    ("run", tf.Problem, {"targets": "labels are those of the data"}),
    ("run", RunConfig, {}),
    ("run", TextConfig, {"digest": "what the record has of the text"}),
    (
        "reproduce",
        reproduce,
        {
            "names": "an argument, not an option",
            "progress": "a bar on the terminal",
            "on_figure": "draws the figure",
            "on_start": "prints the estimate",
        },
    ),
]


def _options(command):
    return getattr(entry, command).options


@pytest.mark.parametrize(("command", "built", "without"), BUILDS)
def test_every_argument_has_an_option(command, built, without):
    arguments = set(inspect.signature(built).parameters) - {"self"}
    filled = {name for option in _options(command) for name in option.arguments}
    assert arguments - filled == set(without)


def test_every_command_is_looked_at():
    without = {"report", "explore"}  # what they pass on are paths, formats and a port
    commands = {command.callback.__name__ for command in entry.app.registered_commands}
    assert commands == {command for command, _, _ in BUILDS} | without


@pytest.mark.parametrize("command", ["solve", "thresholds", "path", "certify", "advise", "measure"])
def test_defaults_are_those_of_the_problem(command):
    arguments = inspect.signature(tf.Problem).parameters
    for option in _options(command):
        default = getattr(arguments.get(option.name), "default", inspect.Parameter.empty)
        if default is not inspect.Parameter.empty:
            assert option.default == default, option.name


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        ("run", "labels", config.LABELS),
        ("run", "head", config.HEADS),
        ("run", "device", config.DEVICES),
        ("run", "strategy", config.STRATEGIES),
        ("reproduce", "device", config.DEVICES),
        ("reproduce", "scale", SCALES),
        ("report", "formats", FORMATS),
    ],
)
def test_words_are_those_of_the_library(command, name, words):
    """The command's help loads too little to ask the library for them."""
    (option,) = (option for option in _options(command) if option.name == name)
    assert option.kind.metavar == "|".join(words)


def test_several_options_that_set_one_argument_are_all_named(fails, tmp_path):
    decays = ["--weight-decay", "1e-2", "--feature-decay", "1e-3"]
    message = fails("run", "--out", tmp_path / "run", *decays, *decays)
    assert "--weight-decay, --feature-decay: w0.01-h0.001 is given twice" in message


@pytest.fixture
def network(tmp_path):
    """A file of features whose labels count to 6,4,5, and its arrays."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [6, 4, 5])
    weight = rng.normal(size=(3, 4))
    arrays = {"features": weight[labels], "labels": labels, "weight": weight}
    np.savez(tmp_path / "x.npz", **arrays)
    return tmp_path / "x.npz", arrays


DECAYS = ["--weight-decay", "5e-3", "--feature-decay", "1e-3"]


def test_an_error_about_an_array_is_not_about_the_option_of_that_name(fails, network):
    path, arrays = network
    assert "tightframe: --bias: got 'often'" in fails("measure", path, *DECAYS, "--bias", "often")
    np.savez(path, **arrays, bias=np.ones(2))
    message = fails("measure", path, *DECAYS, "--bias", "free")
    assert f"{path}: bias: got shape (2,)" in message
    np.savez(path, logits=np.eye(3), bias=np.ones(2))
    message = fails("certify", path, "--counts", "6,4,5", *DECAYS, "--bias", "free")
    assert f"{path}: bias: got shape (2,)" in message


def test_measure_takes_class_weights_and_logit_adjustment(command, network):
    path, _ = network
    terms = {"class_weights": "1,2,1", "logit_adjustment": "prior"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in terms.items()]
    code, out, err = command("measure", path, *DECAYS, *options, "--json")
    assert (code, err) == (0, "")
    problem = tf.Problem("6,4,5", weight_decay=5e-3, feature_decay=1e-3, dim=4, **terms)
    found = json.loads(out)["prediction"]
    assert found["problem"] == problem.to_dict()
    assert found["objective"] == pytest.approx(tf.solve(problem).objective, rel=1e-9)
