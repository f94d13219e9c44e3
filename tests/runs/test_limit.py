"""How a limit of time is written."""

import pytest

from tightframe.runs.limit import is_over, seconds_of


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), (" 1.5h ", 5400), (2, 2), (0.5, 0.5)],
)
def test_units(limit, seconds):
    assert seconds_of(limit) == seconds


@pytest.mark.parametrize(
    "limit", ["15", "m", "15 m", "-1s", "0s", "1.2.3s", "2w", "", None, 0, -1, float("nan"), [1]]
)
def test_what_is_no_time_is_refused(limit):
    with pytest.raises(ValueError, match=r"limit: got .*need a positive time such as 90s, 15m"):
        seconds_of(limit)


def test_no_limit_is_never_over():
    assert not is_over(None)
    assert is_over(0.0)
    assert not is_over(float("inf"))
