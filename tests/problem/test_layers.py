"""What is said layer by layer is read as it is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightframe.problem.layers import format_layers, parse_layers

NUMBERS = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@given(NUMBERS)
def test_one_number_says_the_same_of_every_layer(value):
    assert parse_layers(repr(value), float) == value


@given(st.lists(NUMBERS, min_size=2, max_size=5))
def test_what_was_written_is_read_again(values):
    assert parse_layers(format_layers(values), float) == tuple(values)


def test_slashes_stand_between_layers_and_commas_are_read_as_slashes():
    assert format_layers([1e-3, 2e-3]) == "0.001/0.002"
    assert parse_layers(" 1e-3/2e-3", float) == parse_layers("1e-3,2e-3", float) == (1e-3, 2e-3)


@pytest.mark.parametrize("text", ["", "1,", "1,x", "1/", "/2", "1/x"])
def test_what_is_no_number_is_refused_in_the_words_of_who_asks(text):
    def number(part):
        try:
            return float(part)
        except ValueError:
            raise ValueError(f"mine: {part}") from None

    with pytest.raises(ValueError, match="mine: "):
        parse_layers(text, number)
