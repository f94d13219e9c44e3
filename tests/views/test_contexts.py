"""Frames, tables and maps of label distributions, against dense arrays and SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import rel_entr, softmax

import tightframe as tf
from tests.test_contexts import COUNTS, TARGETS
from tightframe.figures.formats import to_console
from tightframe.views.contexts import contexts_table, solution_map, visible

DECAYS = {"weight_decay": 0.01, "feature_decay": 0.01}
#: Labels 3 and 4 have equal rows, contexts 0 and 5 are one.
MERGING = np.column_stack([TARGETS, TARGETS[:, 0]])
MERGING = np.vstack([MERGING[:3], MERGING[3:] / 2, MERGING[3:] / 2])


@pytest.fixture(scope="module")
def solution():
    options = {"bias": "free", "class_names": list("abcde")}
    return tf.solve(tf.Problem([*COUNTS, 15], targets=MERGING, **options, **DECAYS), 1e-11)


def test_a_row_a_context(solution):
    frame = solution.to_frame()
    q = softmax(solution.logits + solution.bias[:, None], axis=0)
    names = np.array(list("abcde"))
    assert frame["count"].tolist() == frame["feature_weight"].tolist() == [*COUNTS, 15]
    assert frame["label"].tolist() == names[MERGING.argmax(axis=0)].tolist()
    assert frame["predicted"].tolist() == names[q.argmax(axis=0)].tolist()
    np.testing.assert_allclose(frame["share"], MERGING.max(axis=0))
    np.testing.assert_allclose(frame["probability"], q.max(axis=0), rtol=1e-12)
    np.testing.assert_allclose(frame["kl"], rel_entr(MERGING, q).sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(
        frame["entropy"], -(MERGING * np.log(np.where(MERGING > 0, MERGING, 1))).sum(axis=0)
    )
    np.testing.assert_allclose(
        frame["norm"], np.linalg.norm(solution.class_means, axis=0), rtol=1e-12
    )


def test_contexts_may_have_names(solution):
    assert solution.to_frame(list("uvwxyz"))["context"].tolist() == list("uvwxyz")
    with pytest.raises(ValueError, match="context_names: got 2, need one for each of 6"):
        solution.to_frame(["u", "v"])
    with pytest.raises(ValueError, match="context_names: got 'uvwxyz'"):
        solution.to_frame("uvwxyz")
    # Without names of labels there are numbers.
    plain = tf.solve(solution.problem.replace(class_names=None))
    assert pd.api.types.is_integer_dtype(plain.to_frame()["label"])


def test_the_map_has_the_logits(solution):
    panel = solution_map(solution)
    values = np.array(panel.maps[0].values)
    p = MERGING @ [*COUNTS, 15]
    order = np.argsort(-p, kind="stable")
    assert [name for _, name in panel.ticks] == [list("abcde")[v] for v in order]
    logits = (solution.logits + solution.bias[:, None])[order]
    # Contexts in another order: by the label predicted.
    assert sorted(values.T.tolist()) == sorted(logits.T.tolist())
    assert np.argmax(values, axis=0).tolist() == sorted(np.argmax(values, axis=0))
    figure, axis = solution.plot()
    assert figure is axis.figure
    np.testing.assert_allclose(axis.images[0].get_array(), values)
    assert axis.get_title(loc="left") == "Predicted logits"


def test_of_many_contexts_those_of_most_samples_are_shown():
    rng = np.random.default_rng(0)
    counts = rng.permutation(40) + 1
    problem = tf.Problem(counts, targets=rng.dirichlet(np.ones(20), 40).T, **DECAYS)
    found = tf.solve(problem)
    assert np.shape(solution_map(found).maps[0].values) == (16, 32)
    table = contexts_table(found, most=3)
    assert [row[1] for row in table.rows] == [40, 39, 38]
    assert table.note == "37 more contexts."
    _, axis = found.plot()
    assert axis.get_title(loc="left") == "Predicted logits, 32 of 40 contexts"


@pytest.mark.parametrize("width", [80, 40])
def test_tables_fit_a_narrow_console(solution, width):
    lines = to_console(contexts_table(solution), width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("predicted" in line for line in lines)


def test_what_is_not_seen_has_a_sign():
    names = ["e", " ", "\n", "th", "golden retriever", " the"]
    seen = ["e", "␣", "⏎", "th", "golden retriever", "␣the"]
    assert [visible(name) for name in names] == seen


def test_words_and_pages(solution):
    html = solution._repr_html_()
    assert "rank" in html
    assert "<table" in html
    assert "&lt;" not in html


@pytest.mark.parametrize("targets", [TARGETS, np.full((3, 5), 1 / 3)])
def test_limits(targets):
    limits = tf.label_limits(targets, COUNTS)
    figure, axis = limits.plot()
    assert figure is axis.figure
    whole = limits.direction if limits.finite_logits is None else limits.finite_logits
    drawn = np.asarray(axis.images[0].get_array())
    assert drawn.shape == targets.shape
    np.testing.assert_allclose(np.sort(drawn, axis=None), np.sort(whole, axis=None), atol=1e-12)
    np.testing.assert_array_equal(limits.part(np.array([1]), np.array([0, 2])), whole[1:2, [0, 2]])
    html = limits._repr_html_()
    assert "certified gap" in html
    assert limits.note.split(":")[0] in html
