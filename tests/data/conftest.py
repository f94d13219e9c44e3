import dataclasses

import pytest

from tightframe.data import images, registry


@pytest.fixture
def no_places(monkeypatch, tmp_path):
    """No data set on this machine but what a test puts there; return the cache folder."""
    monkeypatch.delenv("TIGHTFRAME_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, source in images.IMAGE_SOURCES.items():
        monkeypatch.setitem(registry.SOURCES, name, dataclasses.replace(source, system=()))
    return tmp_path / "cache" / "tightframe"
