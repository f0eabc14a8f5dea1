"""What differs between versions of Airflow is in one module, and there it says until when."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

from smsverify.settings import DEFAULT_BASE_URL
from smsverify_provider import versions
from smsverify_provider.connection_form import FIELDS

PROVIDER = Path(versions.__file__).parent


def test_every_name_is_where_the_table_says() -> None:
    for name in versions._PLACES:
        assert getattr(versions, name) is not None
    with pytest.raises(AttributeError):
        _ = versions.airflow_4


def test_no_other_module_asks_for_the_version_or_tries_an_import() -> None:
    for path in PROVIDER.rglob("*.py"):
        if path.name == "versions.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            caught = ast.dump(node.type) if isinstance(node, ast.ExceptHandler) and node.type else ""
            assert "ImportError" not in caught, path
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("airflow.sdk"):
                moved = {one.name for one in node.names} & set(versions._PLACES)
                assert not moved, path
            assert "ModuleNotFoundError" not in caught, path
            assert getattr(node, "id", "") not in ("SDK", "SDK_PATCH"), path


@pytest.mark.parametrize(("version", "completes"), [((1, 1, 8), True), ((1, 2, 1), True), ((1, 2, 2), False)])
def test_an_answer_is_read_to_its_end_where_the_next_question_would_get_it(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], completes: bool
) -> None:
    monkeypatch.setattr(versions, "SDK_PATCH", version)
    read: list[str] = []

    async def question() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        read.append("the answer")

    async def scenario() -> None:
        asking = asyncio.create_task(versions.ask(question()))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(scenario())
    assert bool(read) is completes


def test_the_form_is_there_in_every_airflow() -> None:
    """What the API server gives the browser: from the metadata, and before Airflow 3.2 from the hook."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (mine,) = (meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "smsverify")
    shown = mine.extra_fields
    assert shown is not None
    assert set(shown) == set(FIELDS)
    for name, field in shown.items():
        assert field["schema"]["title"] == FIELDS[name]["label"]
        assert field["description"] == FIELDS[name]["description"]
        assert field["value"] == FIELDS[name]["schema"].get("default")
        assert field["schema"].get("format") == FIELDS[name]["schema"].get("format")
    assert mine.standard_fields is not None
    assert mine.standard_fields.host is not None
    assert mine.standard_fields.host.placeholder == DEFAULT_BASE_URL
    assert mine.standard_fields.port is not None
    assert mine.standard_fields.port.hidden
