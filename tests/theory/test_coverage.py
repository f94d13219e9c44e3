from itertools import product
from pathlib import Path

import pytest

import tightframe as tf
from tightframe.theory.coverage import coverage, coverage_table, has_compact_form, is_convex

ROOT = Path(__file__).parents[2]
DECAYS = {"weight_decay": 2e-3, "feature_decay": 1e-3}
LOSSES, BIASES = ("cross_entropy", "mse"), ("none", "free", "decayed")


def make(**options):
    if options.get("bias") == "decayed":
        options["bias_decay"] = 1e-2
    return tf.Problem(options.pop("counts", "9,5x2"), **DECAYS, **options)


def expected(loss, bias, features, depth, dim):
    """Say what becomes of a problem of three classes, written out case by case."""
    if features == "nonnegative":
        if bias == "none" and (loss == "mse" or (depth == 1 and dim != 1)):
            return "certified"
        return "searched" if depth == 1 else "refused"
    if loss == "mse" and bias != "decayed":
        return "certified"
    wide = dim is None or dim >= (2 if loss == "cross_entropy" else 3)
    return "certified" if depth == 1 and wide else "searched"


@pytest.mark.parametrize(
    ("loss", "bias", "features", "depth", "dim"),
    [*product(LOSSES, BIASES, ("real", "nonnegative"), (1, 2), (None, 1, 3))],
)
def test_solve_does_what_the_table_says(loss, bias, features, depth, dim):
    problem = make(loss=loss, bias=bias, features=features, depth=depth, dim=dim)
    found = coverage(problem)
    assert found.outcome == expected(loss, bias, features, depth, dim)
    assert (found.reason == "") == found.is_certified
    if found.outcome == "refused":
        with pytest.raises(ValueError, match=r"^problem: ") as error:
            tf.solve(problem)
        assert str(error.value) == f"problem: {found.reason}"
        return
    solution = tf.solve(problem, starts=1)
    if found.is_certified:
        assert solution.status == "optimal"
        assert solution.method.startswith("closed form") == (found.family is not None)
    elif solution.gap is None:
        assert solution.status == "local"
        assert found.reason in solution.note
    else:
        assert depth == 1
        assert solution.rank <= (dim or 3)
        assert dim is not None or features == "nonnegative"


def test_equal_counts_have_a_closed_form_for_cross_entropy():
    assert coverage(make(counts="9x3")).family is not None
    assert coverage(make(counts="9x3", class_weights=[1, 2, 3])).family is None
    assert coverage(make()).family is None


def test_with_relu_features_equal_counts_have_a_closed_form_for_any_bias():
    assert coverage(make(counts="9x3", features="nonnegative", bias="free")).family is not None
    adjusted = make(counts="9x3", features="nonnegative", logit_adjustment=[0, 1, 2])
    assert coverage(adjusted).outcome == "searched"
    assert coverage(adjusted.replace(depth=2, weight_decay=1e-3)).outcome == "refused"


@pytest.mark.parametrize("features", ["real", "nonnegative"])
def test_unequal_class_weights_with_mse_have_a_closed_form_for_one_layer_without_bias(features):
    weighted = make(loss="mse", class_weights=[1, 2, 3], features=features)
    assert coverage(weighted).family is not None
    assert coverage(weighted.replace(bias="free")).family is None
    found = coverage(weighted.replace(depth=2, weight_decay=1e-3))
    assert found.outcome == ("searched" if features == "real" else "refused")
    assert found.reason.endswith("equal class weights")
    equal = weighted.replace(class_weights=[2, 2, 2], depth=2, weight_decay=1e-3)
    assert coverage(equal).is_certified


def test_convex_and_compact_forms():
    assert is_convex(make(dim=2))
    assert not is_convex(make(dim=2, loss="mse"))
    assert not is_convex(make(depth=2))
    assert has_compact_form(make(features="nonnegative", dim=3))
    assert not has_compact_form(make(features="nonnegative", dim=1))
    assert not has_compact_form(make(features="nonnegative", bias="free"))
    assert not has_compact_form(make(features="nonnegative", depth=2))
    assert not has_compact_form(make(dim=1))


def test_the_guide_has_the_table():
    page = ROOT / "docs" / "guide" / "solve.md"
    assert coverage_table() in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"dim": 3}, "; dim of at least 8, or none, has one"),
        ({"dim": 3, "weight_decay": 0.1}, "; dim of at least 5, or none, has one"),
        ({"dim": 3, "loss": "mse", "class_weights": "balanced"}, "; dim of at least 8, or none,"),
        ({"dim": 3, "bias": "free"}, "leaves a gap"),
        ({"bias": "free"}, "leaves a gap"),
    ],
)
def test_too_narrow_relu_features_are_told_the_width_that_is_needed(kwargs, words):
    given = {"weight_decay": 1e-3, "feature_decay": 1e-3, "features": "nonnegative"}
    problem = tf.Problem("100x5,10x3", **given | kwargs)
    reason = coverage(problem).reason
    assert words in reason
    assert ("has one" in reason) == coverage(problem.replace(dim=None)).is_certified
    if "has one" in words:
        width = int(words.split("least ")[1].split(",")[0])
        assert coverage(problem.replace(dim=width)).is_certified
        assert not coverage(problem.replace(dim=width - 1)).is_certified
