"""Figures of papers cut down to what a test needs."""

import pytest

from tightframe.reproduce.papers.dang_2023 import deep_ce


@pytest.fixture
def few_points(monkeypatch):
    """Three points of deep cross-entropy instead of eight."""
    points = ((4, 1, 3e-3, 3e-4), (4, 2, 2e-3, 2e-3), (4, 3, 3e-3, 3e-4))
    monkeypatch.setattr(deep_ce, "_CE_POINTS", points)
    monkeypatch.setattr(deep_ce, "_CE_LONG", ())
    deep_ce._etf_of.cache_clear()
