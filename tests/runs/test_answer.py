"""What a run says in the end, against recounted answers."""

import dataclasses
import re

import numpy as np
import pytest
from rich.console import Console

from tightframe.cli.console import print_run
from tightframe.runs import store
from tightframe.runs.answer import answer, diagnosis_of
from tightframe.runs.config import RunConfig
from tightframe.runs.diagnosed import diagnose_saved
from tightframe.runs.train import run

CONFIG = RunConfig(
    counts="40x5,4x5",
    settings=((2e-2, 2e-4), (8e-2, 8e-4)),
    hidden=(32,),
    epochs=120,
    measure_every=120,
    class_names=[f"digit {k}" for k in range(10)],
)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    run(CONFIG, folder)
    return store.load_run(folder)


def recount(setting, part=""):
    """The share of every class's samples that the stored classifier gets right."""
    final = setting.final
    scores = final[f"{part}features"].astype(float) @ final["weight"].T
    scores += 0 if setting.problem.bias == "none" else final["bias"]
    labels = final[f"{part}labels"]
    return np.array([(scores.argmax(1) == labels)[labels == k].mean() for k in range(10)])


def test_the_answer_names_what_is_lost_and_the_recall_of_every_group(record):
    for setting in record.settings:
        recalls = recount(setting, "held_out_")
        found = diagnosis_of(setting)
        assert [found.classes.of(k).held_out_recall for k in range(10)] == pytest.approx(recalls)
        text = "\n".join(answer(setting))
        large, small = (f"{100 * part.mean():.1f}%" for part in (recalls[:5], recalls[5:]))
        assert f"{large} of 5 classes of 40, {small} of 5 classes of 4" in text
        assert answer(setting)[0].startswith(found.classes.headline)
        assert found.remedies.advised[0].text in text
        assert re.search("theory (describes|does not describe) this network", text)
        lost = np.flatnonzero(recount(setting) < 0.5).tolist()
        assert lost
        assert sorted(row.label for row in found.classes.lost) == lost


def test_a_diagnosis_of_the_folder_says_the_same(record):
    for setting in record.settings:
        ours, theirs = diagnosis_of(setting), diagnose_saved(record.folder, setting.name)
        assert theirs.classes.to_dict() == ours.classes.to_dict()
        assert (
            theirs.head.rows[0].held_out.recalls.tolist() == recount(setting, "held_out_").tolist()
        )


def test_a_printed_run_ends_with_the_answer(record, capsys):
    print_run(Console(width=200), record.folder)
    printed = " ".join(capsys.readouterr().out.split())
    last = " ".join(" ".join(answer(record.settings[-1])).split())
    assert printed.replace("- ", "").endswith(last.replace("- ", ""))


def test_an_older_record_has_an_answer_without_held_out_samples(record):
    setting = record.settings[0]
    final = {name: part for name, part in setting.final.items() if "held_out" not in name}
    setting = dataclasses.replace(setting, final=final)
    assert answer(setting)
    assert not any("Held-out recall" in sentence for sentence in answer(setting))


def test_an_unfinished_setting_has_no_answer(record):
    for setting in record.settings:
        assert answer(dataclasses.replace(setting, result=None)) == []
        assert answer(dataclasses.replace(setting, final=None)) == []
