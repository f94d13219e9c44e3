"""No argument of the library lacks its option, and an error names the option as it was typed."""

import dataclasses
import inspect
import json
import os
import shlex
import subprocess
import sys

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


COMMANDS = {command.callback.__name__: command for command in entry.app.registered_commands}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_and_what_holds_without_it(command):
    for option in _options(command):
        assert option.help.strip(), option.name
        assert option.default is not None or option.unset, option.name


def test_the_help_of_run_has_the_defaults_of_the_configurations():
    values = {f.name: f.default for f in dataclasses.fields(RunConfig)}
    of_text = {f.name: f.default for f in dataclasses.fields(TextConfig)}
    checked = 0
    for option in _options("run"):
        (name, *_) = option.arguments
        value = values.get(name, of_text.get(name))
        if isinstance(value, str | int | float) and option.kind.is_list is False:
            assert option.unset.partition(", of text")[0] == str(value), name
            if isinstance(of_text.get(name), int | float) and of_text[name] != value:
                assert option.unset.endswith(f", of text {of_text[name]}"), name
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help_are_of_options_that_there_are(name):
    _, *lines = COMMANDS[name].epilog.splitlines()
    assert len(lines) == 2
    for line in lines:
        program, command, *words = shlex.split(line)
        assert (program, command) == ("tightframe", name)
        typed = {word for word in words if word.startswith("--")}
        assert typed <= {option.typed for option in _options(name)}


@pytest.mark.parametrize("name", ["solve", "thresholds", "advise"])
def test_the_examples_of_the_help_run(command, name):
    for line in COMMANDS[name].epilog.splitlines()[1:]:
        words = shlex.split(line)[1:]
        if not any(word.endswith(".npz") for word in words):
            code, out, _ = command(*words, "--json")
            assert code == 0
            assert json.loads(out)["problem"]["counts"] in line


def test_lambda_is_both_decays(command):
    for name in ("solve", "thresholds", "advise"):
        counts = ("--counts", "30x3,6x2")
        _, one, _ = command(name, *counts, "--lambda", "2e-3", "--json")
        both = ("--weight-decay", "2e-3", "--feature-decay", "2e-3")
        _, two, _ = command(name, *counts, *both, "--json")
        one, two = json.loads(one), json.loads(two)
        assert one["problem"] == two["problem"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("solve", "--counts, --weight-decay, --feature-decay: missing"),
        ("solve --counts 5x5", "--weight-decay, --feature-decay: missing"),
        ("certify x.npz --weight-decay 1", "--counts, --feature-decay: missing"),
        ("path --counts 5x5", "--weight-decay, --feature-decay: missing"),
        ("advise --counts 5x5", "--weight-decay, --feature-decay: missing"),
        ("solve --loss focal --counts 5x5 --lambda 1", "--gamma: missing; --loss focal needs it"),
        ("solve --loss focal", "--counts, --gamma, --weight-decay, --feature-decay: missing"),
        ("solve --counts 5x5 --lambda=-1", "--lambda: got -1.0"),
        ("solve --counts 5x5 --lambda 1 --weight-decay 1", "--weight-decay: given with --lambda"),
        ("run --lambda 1 --feature-decay 1", "--feature-decay: given with --lambda"),
        ("measure x.npz --feature-decay 1", "--weight-decay: missing; give both decays or neither"),
        ("reproduce foo", "PAPER[/FIGURE]|all: got 'foo'"),
    ],
)
def test_all_that_is_missing_is_named_as_it_is_typed(fails, line, said):
    assert f"tightframe: {said}" in fails(*line.split())


def test_layers_are_written_alike(command):
    decays = ("--weight-decay", "1e-3/2e-3", "--feature-decay", "1e-3", "--depth", "2")
    _, out, _ = command("solve", "--counts", "6x3", *decays, "--json")
    assert json.loads(out)["problem"]["weight_decay"] == [1e-3, 2e-3]
    _, out, _ = command("path", "--counts", "6x3", *decays, "--json")
    (point,) = json.loads(out)["rows"][0]["points"]
    assert point["problem"]["weight_decay"] == [1e-3, 2e-3]


def test_python_m_is_the_command():
    run = [sys.executable, "-m", "tightframe", "-V"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == tf.__version__


def test_a_shell_can_complete():
    told = os.environ | {
        "_TIGHTFRAME_COMPLETE": "complete_bash",
        "COMP_WORDS": "tightframe thr",
        "COMP_CWORD": "1",
    }
    program = "from tightframe.cli import main; import sys; sys.argv[0] = 'tightframe'; main()"
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, env=told, check=False)
    assert done.stdout.split() == ["thresholds"]
