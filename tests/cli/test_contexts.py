"""Label distributions on the command line: files, texts, tables, and what is refused."""

import json

import numpy as np
import pytest
from scipy import sparse

import tightframe as tf
from tests.test_contexts import COUNTS, TARGETS
from tightframe.context_solution import ContextSolution

DECAYS = ["--weight-decay", ".02", "--feature-decay", ".02"]
COUNTS_TEXT = ",".join(map(str, COUNTS))
TEXT = "the cat sat on the mat and the rat ran at the cat " * 3


def problem(**options):
    return tf.Problem(COUNTS, targets=TARGETS, weight_decay=0.02, feature_decay=0.02, **options)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with the same targets in every kind of file, and a text."""
    monkeypatch.chdir(tmp_path)
    np.save("dense.npy", TARGETS)
    np.savez("named.npz", targets=TARGETS, counts=COUNTS, class_names=list("abcd"))
    np.savez("only.npz", p=TARGETS)
    sparse.save_npz("rows.npz", sparse.csr_array(TARGETS))
    sparse.save_npz("entries.npz", sparse.coo_matrix(TARGETS))
    rows = [[n, *row] for n, row in zip(COUNTS, TARGETS.T.tolist(), strict=True)]
    with open("table.csv", "w") as file:
        file.write("count,a,b,c,d\n")
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)
    with open("plain.tsv", "w") as file:
        file.writelines("\t".join(map(str, row[1:])) + "\n" for row in rows)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "has_counts", "names"),
    [
        ("dense.npy", False, None),
        ("only.npz", False, None),
        ("rows.npz", False, None),
        ("entries.npz", False, None),
        ("plain.tsv", False, None),
        ("named.npz", True, list("abcd")),
        ("table.csv", True, list("abcd")),
    ],
)
def test_every_kind_of_file_gives_the_problem(command, files, name, has_counts, names):
    counts = [] if has_counts else ["--counts", COUNTS_TEXT]
    code, out, err = command("solve", "--targets", name, *counts, *DECAYS, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["problem"] == problem(class_names=names).to_dict()
    assert found["objective"] == pytest.approx(1.305938429406, rel=1e-8)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--context", "1", "--min-count", "4"], {"context": 1, "min_count": 4}),
    ],
)
@pytest.mark.parametrize("kind", ["characters", "words"])
def test_texts_give_the_problem_of_their_tokens(command, files, options, arguments, kind):
    asked = ["--tokens", "text.txt", "--token-kind", kind, *options]
    code, out, err = command("thresholds", *asked, *DECAYS, "--json")
    assert (code, err) == (0, "")
    tokens = TEXT if kind == "characters" else TEXT.split()
    decays = {"weight_decay": 0.02, "feature_decay": 0.02}
    assert json.loads(out)["problem"] == (
        tf.Problem.from_tokens(tokens, **arguments, **decays).to_dict()
    )


def test_solutions_are_kept_and_certified_again(command, files):
    asked = ["--targets", "named.npz", *DECAYS]
    assert command("solve", *asked, "--out", "s.npz")[0] == 0
    assert command("solve", *asked, "--out", "s.npz")[0] == 0  # its own may be replaced
    saved = ContextSolution.load(files / "s.npz")
    np.savez("factors.npz", weight=saved.weights[0], class_means=saved.class_means)
    np.savez("logits.npz", logits=saved.logits)
    for name in ("s.npz", "factors.npz", "logits.npz"):
        code, out, _ = command("certify", name, *asked, "--json")
        assert code == 0
        found = json.loads(out)
        assert found["primal"] == pytest.approx(saved.objective, rel=1e-12)
        assert 0 <= found["gap"] <= 1e-7


def test_thresholds_of_a_file(command, files):
    np.savez("one_hot.npz", targets=np.eye(5), counts=[100, 100, 100, 10, 10])
    code, out, _ = command("thresholds", "--targets", "one_hot.npz", *DECAYS, "--json")
    assert code == 0
    found = json.loads(out)
    places = [own["logit_decay"] for own in found["sets"]]
    assert places == pytest.approx([10**0.5 / 320, 100**0.5 / 320], rel=1e-12)
    assert [own["collapsed"] for own in found["sets"]] == [True, False]
    code, out, _ = command("thresholds", "--targets", "one_hot.npz")
    assert code == 0
    assert "0.03125" in out
    assert "all logits are zero from lambda = 0.03125" in out
    assert "now" not in out
    code, out, _ = command("thresholds", "--targets", "named.npz", *DECAYS)
    assert "not known: exchanging such a label with any other changes the problem" in out


def test_a_path_is_that_of_python(command, files):
    decays = [0.005, 0.02, 0.05]
    swept = ["--lambda", ",".join(map(str, decays))]
    code, out, _ = command("path", "--targets", "named.npz", *swept, "--json")
    assert code == 0
    found = json.loads(out)
    path = tf.path(problem(class_names=list("abcd")), weight_decay=decays, feature_decay=decays)
    assert found["sweep"] == path.to_dict()["sweep"]
    assert [point["objective"] for point in found["points"]] == pytest.approx(
        path.objective.tolist(), rel=1e-7
    )
    assert [point["rank"] for point in found["points"]] == path.rank.tolist()
    code, out, _ = command("path", "--targets", "named.npz", *swept)
    assert "nuclear norm" in out


def test_a_path_is_kept_in_a_folder(command, fails, files):
    asked = ["path", "--targets", "named.npz", "--lambda", "0.005,0.02", "--out", "kept"]
    code, out, _ = command(*asked)
    assert code == 0
    assert "kept in kept" in out
    names = {path.name for path in (files / "kept").iterdir() if path.name[0] != "."}
    assert names == {"path.json", "points.json", "points.csv", "path.png"}
    points = json.loads((files / "kept" / "points.json").read_text())["points"]
    lines = (files / "kept" / "points.csv").read_text().splitlines()
    assert lines[0].startswith("point,weight_decay,feature_decay,logit_decay,objective,gap,rank")
    assert [float(line.split(",")[4]) for line in lines[1:]] == [p["objective"] for p in points]
    assert "--out: kept already holds a path" in fails(*asked)


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("name", ["solve", "thresholds", "path"])
def test_tables_fit_the_console(command, files, monkeypatch, name, width):
    """Of many labels a few are shown."""
    monkeypatch.setenv("COLUMNS", str(width))
    asked = ["--tokens", "text.txt", "--context", "1"]
    asked += [] if name == "thresholds" else DECAYS
    code, out, _ = command(name, *asked)
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    table = [line for line in lines if line[:1] in "┏┃┡│└"]
    if table or width == 80:
        assert 3 < len(table) <= 17
    else:  # a block a row
        first = "lambda" if name == "path" else "context"
        assert 1 <= sum(line.startswith(f"{first} ") for line in lines) <= 12
    if name == "solve":
        assert "labels after" in out
        assert "␣" in out
        assert any(line.startswith("rank ") and "width" in line for line in lines)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["solve"], "--counts: missing"),
        (["solve", "--targets", "dense.npy"], "--counts: missing; give one a context"),
        (["solve", "--targets", "none.npy", "--counts", "1,2"], "--targets: none.npy: no such"),
        (["solve", "--targets", "text.txt"], "--targets: text.txt: ends in '.txt'"),
        (["solve", "--targets", "named.npz", "--counts", "1,2"], "--counts: got '1,2', and"),
        (["solve", "--targets", "dense.npy", "--counts", "1,2"], "--targets: got 5 columns"),
        (["certify", "x.npz", "--targets", "twice.npy", "--counts", "5x5"], "--targets: column 0"),
        (["solve", "--targets", "words.csv", "--counts", "1,2"], "--targets: words.csv: column b"),
        (["solve", "--targets", "two.npz"], "--targets: two.npz: need an array targets"),
        (["solve", "--targets", "index.npz"], "--targets: index.npz: no sparse matrix"),
        (["solve", "--targets", "dia.npz"], "--targets: dia.npz: a sparse matrix of format 'dia'"),
        (["solve", "--targets", "zero.npz"], "--targets: zero.npz: counts"),
        (["solve", "--targets", "few.npz"], "--targets: few.npz: class_names: got 2"),
        (["solve", "--targets", "named.npz", "--class-names", "a,b"], "--class-names: got 2"),
        (["solve", "--targets", "named.npz", "--loss", "mse"], "--loss: got 'mse' with targets"),
        (["solve", "--targets", "named.npz", "--dim", "1"], "--dim: got 1, and the minimiser"),
        (["solve", "--targets", "named.npz", "--context", "2"], "--context: got 2 without"),
        (["solve", "--counts", "1,2", "--min-count", "2"], "--min-count: got 2 without --tokens"),
        (["path", "--counts", "1,2", "--token-kind", "words"], "--token-kind: got words without"),
        (["solve", "--tokens", "none.txt"], "--tokens: none.txt"),
        (
            ["solve", "--tokens", "text.txt", "--context", "40"],
            "--context: got 40, need at most",
        ),
        (["solve", "--tokens", "text.txt", "--min-count", "999"], "--min-count: got 999, and"),
        (["solve", "--tokens", "text.txt", "--token-kind", "x"], "--token-kind: got 'x', need one"),
        (["solve", "--tokens", "text.txt", "--counts", "1,2"], "--counts: got '1,2' with --tokens"),
        (["solve", "--tokens", "text.txt", "--class-names", "a"], "--class-names: got 'a' with"),
        (["solve", "--tokens", "text.txt", "--targets", "x.npy"], "--targets: got 'x.npy' with"),
        (["path", "--targets", "named.npz", "--out", "."], "--out: . is not an empty folder"),
        (["path", "--targets", "named.npz", "--out", "x", "--resume"], "--resume: a path of label"),
        (["path", "--targets", "named.npz", "--jobs", "2"], "--jobs: got 2"),
        (["path", "--targets", "named.npz", "--classes", "3"], "--classes: for phase diagrams"),
        (["thresholds", "--targets", "named.npz", "--ranks"], "--targets: rank_changes needs one"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_what_is_refused(fails, files, asked, message):
    np.save("twice.npy", 2 * TARGETS)
    (files / "words.csv").write_text("a,b\n0.5,x\n0.5,0.5\n")
    np.savez("two.npz", a=TARGETS, b=TARGETS)
    parts = {"data": [1.0], "indptr": [0, 1, 1], "shape": [2, 2]}
    np.savez("index.npz", **parts, indices=[7], format=b"csr")
    np.savez("dia.npz", **parts, indices=[0], format=b"dia")
    np.savez("zero.npz", targets=TARGETS, counts=[0, 1, 1, 1, 1])
    np.savez("few.npz", targets=TARGETS, counts=COUNTS, class_names=["a", "b"])
    decays = [] if asked[0] == "thresholds" else DECAYS
    assert f"tightframe: {message}" in fails(*asked, *decays)
