"""Counts of next tokens: the same as a dictionary's, whatever the tokens are and how they come."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tightframe.problem import tokens as module
from tightframe.problem.tokens import next_tokens


def by_dictionary(texts, context, min_count=1):
    pairs = Counter()
    for text in texts:
        for i in range(context, len(text)):
            pairs[tuple(text[i - context : i]), text[i]] += 1
    totals = Counter()
    for (head, _), times in pairs.items():
        totals[head] += times
    kept = {pair: times for pair, times in pairs.items() if totals[pair[0]] >= min_count}
    return kept, sum(times for times in totals.values() if times < min_count)


def as_dictionary(found):
    counts = found.counts.tocoo()
    return {
        (found.contexts[j], found.labels[v]): times
        for v, j, times in zip(*counts.coords, counts.data.tolist(), strict=True)
    }


@given(
    st.lists(st.text("abc", max_size=30), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 50),
)
def test_counts_are_those_of_a_dictionary(texts, context, min_count, chunk):
    kept, left_out = by_dictionary(texts, context, min_count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        words = (list(text) for text in texts)  # an iterator is gone through once
        if not kept:
            with pytest.raises(ValueError, match=r"tokens: no text is longer|min_count: got"):
                next_tokens(words, context, min_count)
            return
        found = next_tokens(words, context, min_count)
    assert as_dictionary(found) == kept
    assert found.left_out == left_out
    assert list(found.contexts) == sorted(found.contexts)
    assert list(found.labels) == sorted(found.labels)
    assert (np.diff(found.counts.indptr) > 0).all()
    assert (found.counts.sum(axis=1) > 0).all()


@pytest.mark.parametrize(
    "form", [list, np.array, lambda text: np.array(text, dtype=np.int16), tuple, iter]
)
def test_numbers_are_sorted_as_numbers(form):
    found = next_tokens(form([10, 9, 10, 9, 2]))
    assert found.labels == ("2", "9", "10")
    assert found.contexts == (("9",), ("10",))
    assert found.counts.toarray().tolist() == [[1, 0], [0, 2], [1, 0]]


def test_tensors_and_rows_of_texts():
    torch = pytest.importorskip("torch")
    rows = torch.tensor([[1, 2, 1], [2, 2, 2]])
    assert as_dictionary(next_tokens(rows)) == as_dictionary(next_tokens([[1, 2, 1], [2, 2, 2]]))


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ("", {}, "tokens: no text is longer than the context of 1"),
        ([], {}, "tokens: got none"),
        ("ab", {"context": 2}, "tokens: no text is longer than the context of 2"),
        ("ab", {"context": 0}, "context: "),
        ("ab", {"context": 33}, "context: got 33, need at most 32"),
        ("abab", {"min_count": 3}, "min_count: got 3, and the most frequent context was seen 2"),
        ({"a", "b"}, {}, "tokens: got set"),
        (b"abab", {}, "tokens: got bytes"),
        (3, {}, "tokens: got 3"),
        (["a", 1], {}, "tokens: got text and numbers"),
        ([1.5, 2.0], {}, "tokens: got 1.5"),
        (np.array([1.0, 2.0]), {}, "tokens: got an array"),
        ([[1, None]], {}, "tokens: got None"),
        ([True, False], {}, "tokens: got True"),
    ],
)
def test_bad_tokens_are_named(tokens, options, message):
    with pytest.raises(ValueError, match=message):
        next_tokens(tokens, **options)


def test_problems_hold_counts_and_distributions_in_the_order_of_the_contexts():
    text = "abracadabra abracadabra"
    found = next_tokens(text, 2)
    problem = tf.Problem.from_tokens(text, context=2, weight_decay=1e-2, feature_decay=1e-2)
    counts = found.counts.toarray()
    assert problem.class_names == found.labels
    assert problem.counts.tolist() == counts.sum(axis=0).tolist()
    assert np.allclose(problem.targets.by_context.toarray().T, counts / counts.sum(axis=0))
    assert tf.solve(problem).status == "optimal"


DECAYS = {"weight_decay": 1e-2, "feature_decay": 1e-2}


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ("ab", {}, "tokens: only one token follows, need at least two"),
        ("abac", {"min_count": 2}, "tokens: only one context is there, need at least two"),
        (["", "a", "", "b"], {}, "tokens: got an empty one"),
        ("abab", {"counts": [1, 2]}, "counts: the tokens say it, got counts too"),
        ("abab", {"targets": np.eye(2)}, "targets: the tokens say it"),
        ("abab", {"class_names": ["a", "b"]}, "class_names: the tokens say it"),
    ],
)
def test_problems_that_tokens_do_not_make_are_refused(tokens, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        tf.Problem.from_tokens(tokens, context=1, **options, **DECAYS)


def test_a_column_of_text_is_text():
    """Pandas holds text as objects."""
    column = np.array(list("abab aba"), dtype=object)
    problem = tf.Problem.from_tokens(column, context=1, **DECAYS)
    assert problem == tf.Problem.from_tokens("abab aba", context=1, **DECAYS)
    with pytest.raises(ValueError, match="tokens: got None, need text or token numbers"):
        tf.Problem.from_tokens(np.array(["a", None, "b"], dtype=object), context=1, **DECAYS)
