"""Calls of the public functions with junk in them: an answer without NaN, or a ValueError.

Every function starts from arguments that work; one or two of them become values of other types,
shapes and sizes. Python's own TypeError is allowed where a whole kind of object is wrong.
"""

import dataclasses
import datetime
import decimal
import fractions
import functools
import math
import pathlib
import traceback

import numpy as np
import pytest
import torch

import tightframe as tf
from tests.fuzz.guards import ending, numbers_checked
from tightframe.problem.scripts import described_problem, training_problem, training_settings

ARRAY_LIKE = np.arange(6.0).reshape(2, 3)


class Odd:
    """An object of nobody's kind."""

    def __repr__(self):
        return "Odd()"


def junk(rng):
    """Return one value that few arguments are meant for."""
    pool = [
        *(None, True, False, 0, 1, -1, 2, 3, 7, 10**30, -(10**30), 0.0, -0.0, 0.5, 1e-3, 1e308),
        *(-1e308, 5e-324, 1e-300, math.nan, math.inf, -math.inf, 1j, b"", b"\xff", Odd(), Odd),
        *("", "x", "nan", "1", "5x2,3", "prior", "balanced", "etf", "\udcff", "a" * 3000),
        *([], [1], [1, 2], [[1, 2], [3]], [math.nan], [None], ["a"], [1e400, 1], (), (3, 2, 1)),
        *({}, {"a": 1}, {0: 5, 1: 3}, {1, 2}, frozenset(), range(3), range(0), slice(1)),
        *(np.float32(0.1), np.float16(0.1), np.int8(3), np.uint64(2**63), np.bool_(True)),
        *(np.array(0.1), np.array(3), np.array(True), np.array([]), np.array([math.nan, 1])),
        *(np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((3, 3, 3)), np.array(["a", "b"])),
        *(np.array([1, None], dtype=object), np.array([1 + 1j]), np.ones((2, 2), dtype=bool)),
        *(np.array([1, 2], dtype="datetime64[D]"), np.full(3, 1e300), np.full((3, 3), 1e-320)),
        *(np.ma.array([1.0, 2.0], mask=[0, 1]), np.arange(3, dtype=np.float16) * 3e4, ARRAY_LIKE),
        *(torch.tensor(0.1), torch.tensor([1, 2]), torch.tensor([], dtype=torch.int64)),
        *(torch.ones(3, 3, dtype=torch.bfloat16), torch.tensor([1.0], requires_grad=True)),
        *(torch.tensor([math.nan]), torch.ones(2, 2, dtype=torch.complex64)),
        *(decimal.Decimal("0.1"), fractions.Fraction(1, 3), datetime.date(2020, 1, 1)),
        *(pathlib.Path("nowhere"), lambda: 1, iter([1, 2]), (i for i in range(3)), NotImplemented),
        *(..., memoryview(b"ab"), bytearray(b"ab"), type, print, tf, ValueError("x")),
    ]
    value = pool[int(rng.integers(len(pool)))]
    if isinstance(value, np.ndarray) and rng.random() < 0.3:
        value = torch.tensor(value) if value.dtype.kind in "fiub" else value.tolist()
    return value


@functools.cache
def regressed():
    """Return targets and their solution: one object, whose methods are the same in every call."""
    real = np.random.default_rng(1).normal(size=(13, 2))
    return real, tf.regression_collapse(real, weight_decay=0.02, feature_decay=0.01)


def workable():
    """Return each function with arguments that work: positional ones, then by keyword."""
    rng = np.random.default_rng(0)
    problem = tf.Problem("5x2,3", weight_decay=0.02, feature_decay=0.01)
    labels = np.repeat(np.arange(3), [5, 5, 3])
    weight = rng.normal(size=(3, 4))
    features = 3 * weight[labels] + 0.1 * rng.normal(size=(13, 4))
    trained = tf.solve(problem)
    square = rng.normal(size=(3, 3))
    moments = tf.metrics.ClassMoments(3, 4).update(features, labels)
    means, point = rng.normal(size=(4, 3)), rng.normal(size=(3, 4))
    made = {"counts": "5x2,3", "loss": "cross_entropy", "weight_decay": 0.02}
    made |= {"feature_decay": 0.01, "bias": "none", "bias_decay": None, "features": "real"}
    made |= {"depth": 1, "dim": None, "class_weights": None, "logit_adjustment": None}
    described = {"counts": "5x2,3", "weight_decay": 0.02, "batch_feature_decay": 0.1}
    described |= {"batch_size": 4, "reduction": "mean", "weighted_mean": False}
    blobs = tf.data.gaussian_mixture(3, 4, 5)
    size = {"num_classes": 3, "dim": 4, "train_per_class": 5, "test_per_class": 5, "seed": 0}
    measures = tf.metrics
    real, regression = regressed()
    return {
        tf.Problem: made,
        tf.solve: {"problem": problem, "tol": 1e-6, "starts": 2, "seed": 0},
        tf.certify: {"problem": problem, "logits": square, "bias": None, "lower_bound": None},
        tf.path: {"problem": problem, "weight_decay": [0.1, 0.01], "tol": 1e-6, "seed": 0},
        tf.thresholds: {"problem": problem},
        tf.state_changes: {"problem": problem, "takers": True},
        tf.rank_changes: {"problem": problem, "points": 5, "lowest": 1e-3},
        tf.advise: {"problem": problem, "margin": 1.0, "angle": None, "tol": 1e-6},
        tf.calibrate: {
            **{"problem": problem, "weight": trained.weights[0], "labels": labels},
            "features": trained.class_means.T[labels],
            "bias": None,
        },
        tf.certify_svm: {"counts": "5x2,3", "logits": None},
        tf.path_limits: {"problem": problem},
        tf.phase_diagram: {
            **{"num_classes": 4, "logit_decays": [0.1, 0.2], "ratios": [1, 5]},
            **{"minority": 4, "fraction": 0.5, "loss": "cross_entropy", "bias": "none"},
        },
        tf.seli: {"counts": "5x2,3", "bias": "none", "logit_scale": None},
        tf.label_limits: {
            **{"targets": np.eye(3)[:, [0, 1, 2, 0]], "counts": "5x2,3,4", "bias": "none"},
            **{"feature_weights": "samples", "logit_scale": None, "tol": 1e-6},
        },
        tf.regression_collapse: {
            **{"targets": real, "weight_decay": 0.02, "feature_decay": 0.01, "bias": "free"},
            **{"depth": 1, "dim": None},
        },
        tf.focal_collapse: {
            **{"num_classes": 5, "samples_per_class": 10, "gamma": 2.0, "weight_decay": 0.02},
            **{"feature_decay": 0.01, "starts": 1, "seed": 0},
        },
        tf.normalized_head: {"counts": "5x2,3", "scale": 4.0, "margin": 0.1, "tol": 1e-6},
        tf.supervised_contrastive: {"counts": "5x2,3", "temperature": 0.5, "tol": 1e-6, "seed": 0},
        regression.certify: {
            **{"targets": real, "features": regression.features, "weights": regression.weights},
            **{"bias": regression.bias},
        },
        regression.distance: {"weight": regression.weights[0]},
        regression.shares_at: {"mean_decay": 0.1},
        measures.nrc1: {"features": features, "num_targets": 2, "center": False},
        measures.nrc2: {"features": features, "weight": weight, "center": False},
        measures.nrc3: {"weight": weight[:2], "targets": real, "gamma": None},
        measures.RegressionReport.measure: {
            **{"features": features, "targets": real, "weight": weight[:2], "bias": None},
            **{"weight_decay": 0.02, "feature_decay": 0.01, "bias_kind": None},
        },
        tf.simplex_etf: {"num_classes": 3},
        tf.orthogonal_frame: {"num_classes": 3},
        tf.normalized_distance: {"a": square, "b": square + 1},
        tf.data.gaussian_mixture: size | {"separation": 4.0, "noise": 1.0, "means": None},
        tf.data.long_tailed_counts: {"num_classes": 5, "majority": 50, "ratio": 10.0},
        tf.data.step_counts: {"num_classes": 4, "majority": 50, "ratio": 10.0, "fraction": 0.5},
        tf.data.subset: {"dataset": blobs, "counts": "3,2,1", "seed": 0},
        tf.data.oversample: {"dataset": blobs, "factors": "1,2,3", "seed": 0},
        tf.data.random_labels: {"dataset": blobs, "seed": 0},
        tf.data.standardize: {"dataset": blobs},
        tf.data.load: {"name": "digits", "train_per_class": 5, "seed": 0, "root": None},
        tf.heads.FixedETF: {"in_features": 4, "num_classes": 3, "bias": False, "scale": 1.0},
        tf.heads.parameter_savings: {"architecture": "resnet18", "num_classes": 10, "width": None},
        tf.landscape.objective: {"problem": problem, "weights": point, "class_means": means},
        tf.landscape.gradient: {"problem": problem, "weights": point, "class_means": means},
        tf.landscape.critical_point: {
            **{"problem": problem, "weights": point, "class_means": means},
            **{"tol": 1e-6, "seed": 0},
        },
        tf.landscape.saddle: {"problem": problem, "keep": 1, "dim": 4, "seed": 0},
        measures.nc1: {"moments": moments, "weighting": "class", "rtol": None},
        measures.nc2: {"vectors": weight, "target": "etf", "part": None},
        measures.nc3: {"moments": moments, "weight": weight, "target": "etf", "centered": True},
        measures.nc4: {"features": features, "moments": moments, "weight": weight, "bias": None},
        measures.nc5: {"moments": moments, "ood": features, "centered": True},
        measures.cdnv: {"moments": moments, "power": 1.0},
        measures.class_variability: {"moments": moments, "weighting": "class"},
        measures.alignment: {"moments": moments, "weight": weight, "cosine": True},
        measures.bias_alignment: {"moments": moments, "weight": weight, "bias": [1.0, 2, 3]},
        measures.certificate_gap: {"problem": problem, "moments": moments, "weight": weight},
        measures.cosine_statistics: {"vectors": weight},
        measures.equiangularity: {"vectors": weight},
        measures.equinorm: {"vectors": weight},
        measures.mutual_coherence: {"vectors": weight},
        measures.group_angles: {"vectors": weight, "groups": [0, 0, 1]},
        measures.uniformity: {"vectors": weight, "kernel": "log", "s": None},
        measures.margins: {"moments": moments, "weight": weight},
        measures.self_duality: {"moments": moments, "weight": weight, "target": None},
        measures.layer_metrics: {"moments": moments, "weights": [weight], "target": "etf"},
        measures.measured_geometry: {"moments": moments, "weight": weight},
        measures.nc1_quotient: {"moments": moments, "weighting": "class"},
        measures.ClassMoments: {"num_classes": 3, "dim": 4, "scatter": True, "buffer": None},
        updated_moments: {"features": features, "labels": labels},
        tf.training.group_margins: {"problem": problem, "logits": square},
        tf.training.linear_head: {"feature_dim": 4, "num_classes": 3, "depth": 1, "bias": False},
        tf.training.MLP: {"in_dim": 4, "feature_dim": 3, "hidden": (4,), "features": "real"},
        training_problem: described,
        described_problem: described | {"labels": None, "config": None},
        training_settings: {"source": {"weight_decay": 0.1}},
    }


def updated_moments(features, labels):
    return tf.metrics.ClassMoments(3, 4).update(features, labels)


def numbers_in(value, depth=0):
    """Yield all floating numbers in a result, without asking it for anything it has not."""
    if isinstance(value, (float, np.floating)):
        yield float(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        yield from value.ravel()[:1000]
    elif isinstance(value, torch.Tensor) and value.is_floating_point() and not value.is_meta:
        yield from value.detach().ravel()[:1000].tolist()
    elif depth < 4 and isinstance(value, (list, tuple)):
        for item in value[:100]:
            yield from numbers_in(item, depth + 1)
    elif depth < 4 and isinstance(value, dict):
        yield from numbers_in(list(value.values()), depth)
    elif depth < 4 and dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [getattr(value, f.name) for f in dataclasses.fields(value)]
        yield from numbers_in(fields, depth + 1)


#: Results in which NaN is a documented answer: no sibling, nothing to compare with, a failed row.
NAN_ALLOWED = {
    *(tf.state_changes, tf.phase_diagram, tf.normalized_distance, tf.metrics.group_angles),
    *(tf.metrics.class_variability, tf.metrics.nc1_quotient, tf.metrics.uniformity),
    *(tf.metrics.nrc1, tf.metrics.nrc2, tf.metrics.nrc3, tf.metrics.RegressionReport.measure),
}


def _described(error):
    places = [p for p in traceback.extract_tb(error.__traceback__) if "tightframe" in p.filename]
    where = f" ({places[-1].filename}:{places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {str(error)[:200]}{where}"


def check(function, arguments):
    """Call, and return what breaks the contract, None if nothing does."""
    try:
        with ending(60), numbers_checked():
            result = function(**arguments)
    except (ValueError, TypeError):
        return None
    except RuntimeError as error:  # where NumPy raises a ValueError
        if "Boolean value of Tensor" in str(error):
            return None
        return _described(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _described(error)
    if function not in NAN_ALLOWED and any(math.isnan(x) for x in numbers_in(result)):
        return f"NaN in {str(result)[:200]}"
    return None


def fuzz(seed, calls):
    rng = np.random.default_rng(seed)
    table = workable()
    functions = list(table)
    found = []
    for _ in range(calls):
        function = functions[int(rng.integers(len(functions)))]
        arguments = dict(table[function])
        names = list(arguments)
        changed = [names[int(rng.integers(len(names)))] for _ in range(rng.integers(1, 3))]
        for name in changed:
            arguments[name] = junk(rng)
            if name == "depth" and isinstance(arguments[name], int):
                arguments[name] = 2  # asked for, not junk: every layer takes its time
        broken = check(function, arguments)
        if broken:
            shown = {name: repr(arguments[name])[:80] for name in changed}
            found.append(f"{function.__module__}.{function.__qualname__} {shown}\n    {broken}")
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("function", workable(), ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_what_is_started_from_works(function):
    assert check(function, workable()[function]) is None
    with numbers_checked():
        function(**workable()[function])


def test_a_sample_of_calls():
    fuzz(0, 150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_calls(seed):
    fuzz(seed, 1000)
