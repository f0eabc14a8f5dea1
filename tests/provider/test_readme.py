"""The Dag of the README runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from smsverify.simulator import Simulator

README = Path(__file__).parents[2] / "README.md"


def test_the_dag_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connection: Any, session: Any, sim: Simulator
) -> None:
    from airflow import settings
    from airflow.dag_processing.dagbag import DagBag

    (source,) = re.findall(r"```python\n([^`]*task\.smsverify[^`]*)```", README.read_text())
    (tmp_path / "readme.py").write_text(source)
    monkeypatch.setattr(settings, "DAGS_FOLDER", str(tmp_path))
    bag = DagBag(tmp_path)
    assert bag.import_errors == {}
    assert str(bag.dags["sign_up"].test().state) == "success"
    assert [order.status for order in sim.orders()] == ["completed"]
