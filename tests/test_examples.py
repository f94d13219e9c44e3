"""Every script in examples/ runs, and what it prints is what it should have computed."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

#: Most run in this process, so that torch and Lightning are imported once.
IN_PROCESS = (
    "plain_pytorch",
    "layerwise",
    "offline_measure",
    "heads",
    "lightning_callback",
    "huggingface_trainer",
)


def run(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def numbers(pattern, text):
    return [float(value) for value in re.findall(pattern, text)]


def test_all_are_here():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == {*IN_PROCESS, "lm_head"}
    listed = re.findall(r"`(\w+)\.py`", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert set(listed) == scripts
    page = (EXAMPLES.parent / "docs" / "guide" / "examples.md").read_text(encoding="utf-8")
    assert (
        set(re.findall(r"^```\{literalinclude\} ../../examples/(\w+)\.py$", page, re.M)) == scripts
    )


def test_plain_pytorch(capsys, monkeypatch):
    text = run("plain_pytorch", capsys, monkeypatch)
    predicted = numbers(r"prediction (\d\.\d+)", text)
    etf = numbers(r"to ETF (\d\.\d+)", text)
    assert len(predicted) == 4
    # The imbalanced network goes to the prediction and not to the ETF.
    assert predicted[-1] < 0.1 < predicted[0]
    assert predicted[-1] < etf[-1] / 1.5
    (objective,), (minimum,) = numbers(r"objective ([\d.]+)", text), numbers(r"minimum (.+)", text)
    assert minimum < objective < 1.1 * minimum


def test_layerwise(capsys, monkeypatch):
    text = run("layerwise", capsys, monkeypatch)
    quotients = numbers(r"│\s+\d+ │\s+([\d.]+) │", text)
    assert len(quotients) == 4
    assert quotients[0] > quotients[1] > quotients[2]  # later layers are more collapsed


def test_offline_measure(capsys, monkeypatch):
    text = run("offline_measure", capsys, monkeypatch)
    (table,) = numbers(r"nc1 +│ +([\d.]+)", text)
    (json,) = numbers(r"NC1 ([\d.]+)", text)
    assert json == pytest.approx(table, abs=1e-4)
    # Adam without any decay: the classes are apart, but the prediction's numbers are not reached.
    assert "which is the predicted state, but the" in " ".join(text.split())
    assert "as the theory predicts" not in " ".join(text.split())


def test_heads(capsys, monkeypatch):
    text = run("heads", capsys, monkeypatch)
    assert min(numbers(r"accuracy ([\d.]+)", text)) > 0.95
    # 6 x 64 weights of the classifier are not trained.
    trained = numbers(r"(\d+) trained", text)
    assert trained[0] - trained[1] == trained[0] - trained[2] == 6 * 64
    assert "d = K = 10: 2,314,100 fewer, 20.70 %" in text


@pytest.mark.filterwarnings("ignore")
def test_lightning_callback(capsys, monkeypatch):
    pytest.importorskip("lightning")
    text = run("lightning_callback", capsys, monkeypatch)
    nc1 = numbers(r"NC1 +([\d.]+)", text)
    assert len(nc1) == 6
    assert nc1[-1] < nc1[0]
    assert numbers(r"collapse/nc1 = ([\d.]+)", text) == [nc1[-1]]
    assert numbers(r"has (\d+) columns", text)[0] > 10


@pytest.mark.filterwarnings("ignore")
def test_huggingface_trainer(capsys, monkeypatch):
    pytest.importorskip("transformers")
    text = run("huggingface_trainer", capsys, monkeypatch)
    nc1 = numbers(r"  NC1 +([\d.]+)", text)
    assert len(nc1) == 6
    assert nc1[-1] < nc1[0] / 2
    assert numbers(r"accuracy ([\d.]+)", text)[0] > 0.9


def test_lm_head_within_its_memory():
    # A process of its own, whose peak memory is its own. A K x K matrix would be 1.1 GiB.
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "lm_head.py"), "--classes", "12000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "optimal" in done.stdout
    assert "all 71,994,000 pairs" in done.stdout
    (used,) = numbers(r"peak memory (\d+) MiB", done.stdout)
    assert 0 < used < 600
