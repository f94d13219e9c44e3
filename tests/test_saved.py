"""Files of results: written and read again without a difference, and nothing runs of them."""

import dataclasses
import io
import json
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests import test_shown
from tests.problems import make
from tests.strategies import label_options, per_class
from tightframe import files, metrics
from tightframe.saved import TEXT, Saved
from tightframe.shown import Shown

#: Results of `tests.test_shown` that can be kept.
NAMES = [
    *("Problem", "Problem with contexts", "Solution", "Solution of many classes"),
    *("ContextSolution", "Path", "Path of contexts", "Thresholds", "ContextThresholds"),
    *("StateChanges", "States", "PathLimits", "Geometry", "LabelLimits", "Advice"),
    *("ContextAdvice", "Calibration", "PhaseDiagram", "RegressionCollapse", "FocalCollapse"),
    *("NormalizedHead", "SupervisedContrastive", "UFMRuns", "LargerDecay", "ClassTable"),
    *("CollapseReport", "RegressionReport", "Diagnosis", "FittedHead", "LastLayer", "Savings"),
    *("Certificate", "SvmCertificate", "GroupedGeometry", "Embedding", "CriticalPoint"),
    *("Descent", "Point", "Dataset", "TrainingRecord"),
]

#: Parts of results, which are in their files; what may change; and a network, which has its own.
NO_FILE = {
    *("Targets", "BlockMatrix", "Partition", "Stats", "GroupedMatrix", "Search", "Candidate"),
    *("GroupThreshold", "LabelThreshold", "StateChange", "ClassState", "RankChange", "Outlook"),
    *("GroupOutlook", "Proposal", "Safety", "Scores", "Eigenpair", "MetricRow", "Answers"),
    *("ClassRow", "CosineStatistics", "GroupAngles", "KernelStatistics", "LayerMetrics"),
    *("NC1Details", "NRC3Details", "UFMRun", "HeadAnswer", "Remedies", "TheoryAnswer"),
    *("ClassMoments", "Decisions", "Landscape", "Continuation", "Text"),
}


def same(a, b):
    """Tell whether two values are the same to the last bit, whatever they are made of."""
    if type(a) is not type(b):
        # Numbers of NumPy are Python's afterwards.
        return isinstance(a, np.generic) and same(a.item(), b)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.cpu(), b)
    if hasattr(a, "_packed") and not isinstance(a, Shown):
        return same(a._packed(), b._packed())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if dataclasses.is_dataclass(a):
        return all(same(vars(a)[f.name], vars(b)[f.name]) for f in fields_of(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if type(a).__name__ == "Partition":
        named = [name for name in vars(a) if isinstance(vars(a)[name], (float, np.ndarray))]
        return all(same(vars(a)[n], vars(b)[n]) for n in named if n in vars(b))
    return a == b or (a != a and b != b)


def fields_of(value):
    return [field for field in dataclasses.fields(value) if field.name in vars(value)]


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_there_again(name, tmp_path):
    result = test_shown.made(name)
    result.save(tmp_path / "result.npz")
    found = type(result).load(tmp_path / "result.npz")
    assert same(result, found)
    assert repr(found) == repr(result)
    assert found._repr_html_() == result._repr_html_()


def test_all_results_can_be_kept():
    kinds = {name.split()[0] for name in test_shown.RESULTS}
    able = {name for name in kinds if hasattr(type(test_shown.made(name)), "save")}
    assert able == {name.split()[0] for name in NAMES}
    assert kinds - able == NO_FILE


@pytest.mark.parametrize("name", NAMES)
def test_damaged_foreign_and_future_files_are_refused_by_name(name, tmp_path):
    result, path = test_shown.made(name), tmp_path / "result.npz"
    result.save(path)
    whole, arrays = path.read_bytes(), files.read_npz(path)
    stored = json.loads(arrays[TEXT].tobytes())
    text = json.dumps(stored | {"format": 9}).encode()
    files.write_npz(path, **(arrays | {TEXT: np.frombuffer(text, dtype=np.uint8)}))
    with pytest.raises(ValueError, match=r"result\.npz: .*format 9, need 1"):
        type(result).load(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"result\.npz: not an \.npz file"):
        type(result).load(path)
    other = test_shown.made("Geometry" if name != "Geometry" else "Path")
    other.save(path)
    with pytest.raises(ValueError, match=rf"result\.npz: .*it holds a {type(other).__name__}"):
        type(result).load(path)


def test_a_report_from_a_file_has_everything_that_is_computed_later(tmp_path):
    moments = metrics.ClassMoments(5, 6).update(test_shown.FEATURES, test_shown.LABELS)
    layers = [np.random.default_rng(3).normal(size=shape) for shape in ((6, 6), (5, 6))]
    report = metrics.CollapseReport.measure(
        moments,
        weights=layers,
        bias=np.arange(5.0),
        features=test_shown.FEATURES,
        labels=test_shown.LABELS,
        targets=["etf", "seli", tf.simplex_etf(5)],
        problem=test_shown.problem().replace(bias="free"),
        class_names=["a", "b", "c", "d", "e"],
        center="sample",
    )
    report.save(tmp_path / "r.npz")
    found = metrics.CollapseReport.load(tmp_path / "r.npz")
    assert [row[:3] for row in found.rows] == [row[:3] for row in report.rows]
    values = [[row.value for row in one.rows] for one in (found, report)]
    np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-12)  # sums in another order
    assert found.class_table().to_dict() == report.class_table().to_dict()
    assert found.notes == report.notes
    assert found.norms()["classifier"].tolist() == report.norms()["classifier"].tolist()


def test_a_solution_works_as_before(tmp_path):
    for problem in (make("12x2,5", dim=1), make("12x2,5", features="nonnegative")):
        solution = tf.solve(problem, starts=2)
        solution.save(tmp_path / "s.npz")
        found = tf.Solution.load(tmp_path / "s.npz")
        assert found.to_dict() == solution.to_dict()
        np.testing.assert_array_equal(found.logits, solution.logits)
        np.testing.assert_array_equal(found.class_means, solution.class_means)
    assert pickle.loads(pickle.dumps(found)).to_dict() == solution.to_dict()  # for other processes
    # Either kind of solution, by the kind that both are.
    test_shown.made("ContextSolution").save(tmp_path / "c.npz")
    assert isinstance(tf.Solution.load(tmp_path / "c.npz"), tf.ContextSolution)


# -- problems --------------------------------------------------------------------------------------


@st.composite
def problems(draw):
    """Draw a problem with any of the terms that there are."""
    counts = draw(st.lists(st.integers(1, 40), min_size=2, max_size=6))
    loss = draw(st.sampled_from(["cross_entropy", "cross_entropy", "mse"]))
    depth = draw(st.integers(1, 3))
    positive = st.floats(1e-9, 1e3)
    layers = st.lists(positive, min_size=depth, max_size=depth)
    widths = st.lists(st.integers(1, 9), min_size=depth, max_size=depth)
    bias = draw(st.sampled_from(["none", "free", "decayed"]))
    names = [f"n{'æ' * i}'\"{i}" for i in range(len(counts))]
    terms = {"class_weights": draw(st.sampled_from([None, "balanced"]))}
    terms["class_weights"] = terms["class_weights"] or per_class(draw, [0.3, 1.0, 1 / 3], counts)
    terms["feature_weights"] = per_class(draw, [0.7, 12.0], counts) or draw(
        st.sampled_from(["samples", "contexts"])
    )
    if loss == "cross_entropy":
        terms |= label_options(draw, counts)
        terms["logit_scale"] = per_class(draw, [0.5, 0.1 + 0.2, 1.0], counts)
        rules = st.sampled_from([None, "prior", "0.3*prior", "0*prior"])
        terms["logit_adjustment"] = draw(rules) or per_class(draw, [-2.0, 0.0, 0.7], counts)
    return tf.Problem(
        counts,
        loss,
        weight_decay=draw(positive | layers),
        feature_decay=draw(positive),
        bias=bias,
        bias_decay=draw(positive) if bias == "decayed" else None,
        features=draw(st.sampled_from(["real", "nonnegative"])),
        depth=depth,
        dim=draw(st.none() | st.integers(1, 9) | widths),
        class_names=draw(st.sampled_from([None, names])),
        **terms,
    )


@given(problem=problems())
@settings(max_examples=60)
def test_problem_is_what_its_repr_says(problem):
    found = eval(repr(problem), {"Problem": tf.Problem})
    assert found == problem
    assert hash(found) == hash(problem)
    assert found.class_names == problem.class_names


@given(problem=problems())
@settings(max_examples=25)
def test_problem_is_what_its_file_says(problem, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "problem.npz"
    problem.save(file)
    found = tf.Problem.load(file)
    assert found == problem
    assert found.class_names == problem.class_names


def test_the_repr_of_a_problem_is_written_as_a_person_would():
    assert repr(make("60x2,9")) == "Problem('60x2,9', weight_decay=0.01, feature_decay=0.01)"
    rules = {"class_weights": "balanced", "logit_adjustment": "prior"}
    text = repr(make("60x2,9", bias="free", feature_weights="contexts", **rules))
    assert text == (
        "Problem('60x2,9', weight_decay=0.01, feature_decay=0.01, bias='free', "
        "class_weights='balanced', logit_adjustment='prior', feature_weights='contexts')"
    )


def test_a_problem_of_very_many_counts_is_told_in_short(tmp_path):
    problem = make(",".join(map(str, range(1000, 1, -1))), class_weights="balanced")
    assert repr(problem).startswith("<Problem: 999 counts from 2 to 1000, weight_decay=0.01,")
    assert len(repr(problem)) < 200
    problem.save(tmp_path / "p.npz")
    assert tf.Problem.load(tmp_path / "p.npz") == problem


def test_targets_keep_every_bit(tmp_path):
    shares = np.random.default_rng(0).dirichlet(np.full(3000, 0.1), size=4).T
    problem = tf.Problem([9, 5, 4, 1], targets=shares, weight_decay=0.1, feature_decay=0.1)
    problem.save(tmp_path / "p.npz")
    assert tf.Problem.load(tmp_path / "p.npz") == problem


# -- files -----------------------------------------------------------------------------------------


def written(path, change):
    """Write a problem's file with another text."""
    make().save(path)
    arrays = files.read_npz(path)
    stored = json.loads(arrays[TEXT].tobytes())
    text = json.dumps(change(stored)).encode()
    files.write_npz(path, **(arrays | {TEXT: np.frombuffer(text, dtype=np.uint8)}))
    return path


DAMAGED = {
    "another class": lambda stored: stored | {"value": {"kind": "Path", "fields": {}}},
    "no class of ours": lambda stored: stored | {"value": {"kind": "Popen", "fields": {}}},
    "another format": lambda stored: stored | {"format": 2},
    "a list": lambda stored: [stored],
    "no value": lambda stored: {"format": 1},
    "another value": lambda stored: stored | {"value": 3},
    "an unknown part": lambda stored: stored | {"value": {"lambda": 3}},
    "an array that is not there": lambda stored: stored | {"value": {"array": "x"}},
    "a decay below zero": lambda stored: _with(stored, feature_decay=-1.0),
    "an argument too many": lambda stored: _with(stored, color="red"),
    "nested without end": lambda stored: json.loads("[" * 900 + "]" * 900),
}


def _with(stored, **changes):
    value = stored["value"]
    return stored | {"value": value | {"fields": value["fields"] | changes}}


@pytest.mark.parametrize("name", DAMAGED)
def test_files_that_hold_something_else_are_refused_by_name(name, tmp_path):
    path = written(tmp_path / "p.npz", DAMAGED[name])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        tf.Problem.load(path)


def test_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "other.npz"
    with pytest.raises(ValueError, match=r"other\.npz: no such file"):
        tf.Path.load(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: no Path that was saved here"):
        tf.Path.load(path)
    make().save(path)
    with pytest.raises(ValueError, match=r"other\.npz: not a saved Path \(it holds a Problem\)"):
        tf.Path.load(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"other\.npz: not an \.npz file"):
        tf.Problem.load(path)


def test_targets_of_a_file_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "p.npz"
    test_shown.contexts().save(path)
    arrays = files.read_npz(path)
    (name,) = [name for name in arrays if name.endswith("targets.labels")]
    files.write_npz(path, **(arrays | {name: arrays[name] + 10**6}))
    with pytest.raises(ValueError, match=r"p\.npz: not a saved Problem \(targets: got a mapping"):
        tf.Problem.load(path)


@dataclasses.dataclass(eq=False)
class Anything(Saved):
    """A result of whatever somebody has."""

    x: object


@pytest.mark.parametrize(
    "names",
    [
        ("a.b", "b"),
        ("x", "x.npy", "x.npy_"),
        ("a\0b", "a\0c"),
        ("\ud800", "?"),
        ("n" * 70_000, "n" * 70_001),
        ("../x", "/x", "C:\\x", "", "."),
        (1, "1", True, None),
        ((1, 2), 1.5),
        ("kind", "array", "dict"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_arrays_of_any_names_are_told_apart(names, tmp_path):
    arrays = {name: np.arange(float(i)) for i, name in enumerate(names, 2)}
    result = Anything({"a": {"b": np.ones(9), "c": arrays}} | arrays | {"a.c": arrays})
    result.save(tmp_path / "r.npz")
    assert same(Anything.load(tmp_path / "r.npz").x, result.x)


def test_no_pickle_is_in_a_file(tmp_path):
    test_shown.made("UFMRuns").save(tmp_path / "r.npz")
    with np.load(io.BytesIO((tmp_path / "r.npz").read_bytes()), allow_pickle=False) as arrays:
        assert not any(arrays[name].dtype.hasobject for name in arrays)
        assert arrays["runs.0.class_means"].shape == (10, 5)
