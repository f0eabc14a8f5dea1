"""Fixtures for the tests of the store."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a store may be, in a directory of its own."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "store.db"
