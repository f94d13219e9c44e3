"""Records that somebody has changed by hand: the page is written, or a line names the folder."""

import copy
import functools
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.pages.conftest import FINISHED
from tests.reproduce.toy_paper import GOOD
from tightframe.pages.reproduction import write_reproduction
from tightframe.pages.run import write_report
from tightframe.pages.tables import write_tables
from tightframe.reproduce import spec
from tightframe.reproduce.folder import reproduce
from tightframe.runs.calibrated import calibrate_saved
from tightframe.runs.config import RunConfig
from tightframe.runs.folder import using_record
from tightframe.runs.plots import save_plots
from tightframe.runs.store import load_run, setting_paths

VALUES = (None, "x", -1, 1e308, [], {}, True, [1], {"x": 1}, "../../x", 10**30, [[1, 2], [3]])


def refusal(function, *arguments):
    """Return what a function says against its arguments; nothing where it takes them."""
    try:
        function(*arguments)
    except ValueError as error:
        return str(error)
    return ""


def places(value, path=()):
    """Give the paths of all values inside a JSON value; of long lists, the first three."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = list(enumerate(value))[:3] if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, rng):
    """Return a JSON value with the one at a path taken out, or replaced."""
    value = copy.deepcopy(value)
    *way, last = path
    holder = functools.reduce(lambda inner, key: inner[key], way, value)
    choice = rng.integers(len(VALUES) + 2)
    if choice < len(VALUES):
        holder[last] = VALUES[choice]
    else:
        del holder[last]
    return value


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("prediction.json", ("groups", 0, "class_weight"), {}),
        ("prediction.json", ("groups",), 3),
        ("result.json", ("verdicts",), [None]),
    ],
)
def test_a_changed_entry_is_named(run_folder, tmp_path, name, path, value):
    shutil.copytree(run_folder, folder := tmp_path / "run")
    file = setting_paths(folder, FINISHED).folder / name
    whole = json.loads(file.read_text())
    *way, last = path
    functools.reduce(lambda inner, key: inner[key], way, whole)[last] = value
    file.write_text(json.dumps(whole))
    message = refusal(write_report, folder)
    assert message.startswith(f"{folder}: not the record of a run (")
    assert refusal(write_tables, folder) in ("", message)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["run.json", "prediction.json", "result.json"])
def test_a_changed_run_is_shown_or_named(run_folder, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    file = folder / name if name == "run.json" else setting_paths(folder, FINISHED).folder / name
    whole = json.loads(file.read_text())
    paths = [path for path in places(whole) if path]
    rng = np.random.default_rng(0)
    refused = 0
    for i in rng.permutation(len(paths))[:12]:
        file.write_text(json.dumps(changed(whole, paths[i], rng)))
        for act in (write_report, write_tables, lambda folder: calibrate_saved(folder, FINISHED)):
            message = refusal(act, folder)
            assert not message or str(folder) in message or message.startswith("setting: ")
            refused += bool(message)
    assert refused


@pytest.mark.parametrize("name", ["history.parquet", "final.npz", "prediction.npz"])
def test_a_table_of_something_else_is_shown_or_named(run_folder, tmp_path, name, unrendered):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    file = setting_paths(folder, FINISHED).folder / name
    if name.endswith("npz"):
        np.savez(file, logits=np.array(["a"]), weight=np.zeros(3))
    else:
        pd.DataFrame({"epoch": ["a", "b"]}).to_parquet(file)
    for act in (
        write_report,
        lambda folder: save_plots(load_run(folder), tmp_path / "plots"),
    ):
        message = refusal(act, folder)
        assert not message or (str(folder) in message and "\n" not in message)


def test_classes_of_something_else_are_named(run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    file = setting_paths(folder, FINISHED).classes
    for arrays in ({"logits": np.array(["a"])}, {"epochs": np.arange(3.0)}, {"weight": [[{}]]}):
        np.savez(file, **arrays)
        message = refusal(write_report, folder)
        assert message.startswith(f"{file}: not a")
        assert "\n" not in message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["reproduce.json", "verdicts.json", "panels.json"])
def test_a_changed_reproduction_is_shown_or_named(tmp_path, monkeypatch, name):
    folder = tmp_path / "out"
    monkeypatch.setattr(spec, "papers", lambda: GOOD)
    reproduce("all", folder)
    file = next(folder.rglob(name))
    whole = json.loads(file.read_text())
    paths = [path for path in places(whole) if path]
    rng = np.random.default_rng(0)
    refused = 0
    for i in rng.permutation(len(paths))[:25]:
        file.write_text(json.dumps(changed(whole, paths[i], rng)))
        for act in (write_reproduction, write_tables):
            message = refusal(act, folder)
            assert not message or str(folder) in message
            refused += bool(message)
    assert refused


def test_a_figure_s_name_leads_nowhere_else(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    monkeypatch.setattr(spec, "papers", lambda: GOOD)
    reproduce("all", folder)
    text = (folder / "reproduce.json").read_text()
    name = next(iter(json.loads(text)["figures"]))
    (folder / "reproduce.json").write_text(text.replace(f'"{name}"', '"../../../x"'))
    with pytest.raises(ValueError, match=r"figures: got '\.\./\.\./\.\./x', need PAPER/FIGURE"):
        write_reproduction(folder)


@pytest.mark.parametrize("values", [{"hidden": [[1]]}, {"counts": {}}, {"settings": [{}]}])
def test_a_changed_configuration_is_no_traceback(values):
    with pytest.raises(ValueError, match=r"\w+: "):
        RunConfig.from_dict(values)


def test_a_line_that_names_the_folder_stays():
    for error in (ValueError("here: bad"), ValueError("bad"), KeyError("x"), TypeError("x")):
        with pytest.raises(ValueError, match="here: ") as raised, using_record("here", "run"):
            raise error
        assert str(raised.value).count("here") == 1
    with pytest.raises(OSError, match="disk"), using_record("here", "run"):
        raise OSError("disk")
