"""`tightframe run --data text`: options, output, errors in one line."""

import json

import pytest

from tests.problems import SMALL_TEXT
from tightframe.cli import run_command
from tightframe.runs import train
from tightframe.runs.store import load_run
from tightframe.runs.text_config import TextConfig

OPTIONS = {
    "data": ("text:novel.md", "text:novel.md"),
    "data_root": ("/data", "/data"),
    "tokens": ("words", "words"),
    "context": ("3", 3),
    "min_count": ("7", 7),
    "bias": ("decayed", "decayed"),
    "bias_decay": ("0.01", 0.01),
    "feature_weights": ("contexts", "contexts"),
    "embedding_dim": ("16", 16),
    "hidden": ("32,16", (32, 16)),
    "feature_dim": ("24", 24),
    "optimizer": ("sgd", "sgd"),
    "lr": ("0.1", 0.1),
    "momentum": ("0.8", 0.8),
    "schedule": ("milestones", "milestones"),
    "milestones": ("2,3", (2, 3)),
    "backbone_weight_decay": ("1e-4", 1e-4),
    "epochs": ("4", 4),
    "measure_every": ("2", 2),
    "max_seconds": ("60", 60.0),
    "seed": ("3", 3),
    "device": ("cpu", "cpu"),
    "threads": ("2", 2),
}


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "cat.txt"
    path.write_text(SMALL_TEXT)
    return [
        f"--data={path}", "--min-count=5", "--weight-decay=0.02", "--feature-decay=2e-4",
        "--hidden=8", "--embedding-dim=4", f"--out={tmp_path / 'run'}",
    ]  # fmt: skip


def test_options_are_the_configuration(monkeypatch, tmp_path):
    asked = []

    def refuse(config, out, **_):
        asked.append(config)
        raise ValueError("stop: here")

    monkeypatch.setattr(train, "run", refuse)
    typed = {name: name.replace("_", "-") for name in OPTIONS} | {"tokens": "token-kind"}
    flags = [f"--{typed[name]}={text}" for name, (text, _) in OPTIONS.items()]
    assert run_command(["run", f"--out={tmp_path / 'run'}", *flags]) == 2
    (config,) = asked
    want = {name: value for name, (_, value) in OPTIONS.items()}
    assert {name: getattr(config, name) for name in want} == want
    assert config.settings == TextConfig(feature_weights="contexts").settings


def test_a_run_prints_one_object_and_goes_on(tmp_path, small, command, fails, unrendered):
    code, text, _ = command("run", "--json", "--epochs=2", *small)
    assert code == 0
    answer = json.loads(text)
    (result,) = answer["results"]
    assert result == load_run(tmp_path / "run").settings[0].result
    assert result["epochs"] == 2
    assert answer["report"] == str(tmp_path / "run" / "report.html")
    code, text, _ = command("run", "--resume", f"--out={tmp_path / 'run'}")
    assert code == 0
    assert "The file cat.txt: 405 characters, as 404 letters." in text
    assert "nearest" in text
    assert "As predicted: objective within 1e-05 of the certified bound" in text
    for use in (["measure"], ["advise", "--from-run"]):
        assert "is of a run on text" in fails(*use, tmp_path / "run")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--counts=5,5"], "tightframe: --counts: not for text, whose runs have data"),
        (["--loss=mse"], "tightframe: --loss: not for text"),
        (["--context=0"], "tightframe: --context: got 0"),
        (["--min-count=900"], "tightframe: --min-count: got 900, and the most frequent context"),
        (["--feature-dim=1"], "tightframe: --feature-dim: got 1, and the minimiser has rank"),
        (["--token-kind=lines"], "tightframe: --token-kind: got 'lines', allowed are letters"),
        (["--data=no.txt"], "tightframe: --data: no.txt: no such file"),
        (["--data=digits"], "tightframe: --embedding-dim: for text only, and data is 'digits'"),
    ],
)
def test_bad_options_are_named_before_a_folder_is_made(fails, tmp_path, small, flags, message):
    assert message in fails("run", *small, *flags)
    assert not (tmp_path / "run").exists()
