"""Who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "smsverify"
WINGS = {
    "smsverify_provider": ROOT / "provider" / "smsverify_provider",
    "prefect_smsverify": ROOT / "prefect_tasks" / "prefect_smsverify",
}
# Each room may import those before it.
ROOMS = [
    *("version", "errors", "settings", "models", "otp", "filters", "forking", "store"),
    *(
        "budget",
        "answers",
        "transport",
        "api",
        "catalogue",
        "orderbook",
        "spending",
        "ledger",
        "inbox",
        "hints",
        "orders",
        "recovery",
        "following",
        "polling",
        "purchasing",
        "reconciling",
        "rentals",
        "waiting",
        "assembly",
        "hook",
        "callback",
        "cli",
    ),
]


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a file imports, for real or for types only, in any place."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_every_room_of_the_core_has_its_place() -> None:
    assert {path.stem for path in CORE.glob("*.py")} - {"__init__"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    allowed = {f"smsverify.{name}" for name in ROOMS[: ROOMS.index(room)]}
    ours = {name for name in imports_of(CORE / f"{room}.py") if top(name) == "smsverify"}
    rooms = {".".join(name.split(".")[:2]) for name in ours} - {"smsverify"}
    if room == "cli":
        allowed.add("smsverify.simulator")
    assert rooms <= allowed


@pytest.mark.parametrize("wing", WINGS)
def test_the_wings_know_the_core_but_not_each_other(wing: str) -> None:
    other = next(name for name in WINGS if name != wing)
    for path in WINGS[wing].rglob("*.py"):
        assert other not in {top(name) for name in imports_of(path)}, path


def test_the_core_knows_no_wing_and_no_framework() -> None:
    for path in CORE.rglob("*.py"):
        foreign = {top(name) for name in imports_of(path)} & {*WINGS, "airflow", "prefect"}
        assert not foreign, path


def test_the_simulator_stands_alone() -> None:
    for path in (CORE / "simulator").rglob("*.py"):
        for name in imports_of(path):
            if top(name) == "smsverify":
                assert name == "smsverify" or name.startswith("smsverify.simulator"), path
            elif top(name) not in sys.stdlib_module_names:
                assert top(name) == "pytest", path
                assert path.name == "pytest_plugin.py", path


def test_what_an_extra_brings_is_no_concern_of_the_rest_of_the_core() -> None:
    extras = {"starlette", "uvicorn", "anyio", "psycopg"}
    for path in CORE.glob("*.py"):
        assert path.stem == "callback" or not {top(name) for name in imports_of(path)} & extras, path


def test_the_command_line_loads_the_server_for_nothing_else() -> None:
    assert not loaded_by("import smsverify.cli") & {"starlette", "uvicorn", "anyio"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"requests", "urllib3", "sqlalchemy", "starlette", "pydantic", "tenacity", "psycopg", "asyncio"}
    assert not loaded_by("import smsverify") & heavy
    assert "smsverify" in loaded_by("import smsverify")


def test_models_and_errors_bring_pydantic_alone() -> None:
    loaded = loaded_by("from smsverify import Order, SmsVerifyError; import smsverify.models")
    assert "pydantic" in loaded
    assert not loaded & {"requests", "urllib3", "sqlalchemy", "starlette", "tenacity", "psycopg"}


def test_the_hook_loads_no_extra() -> None:
    loaded = loaded_by("from smsverify import SmsVerifyHook")
    assert "requests" in loaded
    assert not loaded & {"starlette", "uvicorn", "psycopg"}


def test_every_public_name_is_there_and_an_unknown_one_is_an_attribute_error() -> None:
    import smsverify

    for name in smsverify.__all__:
        assert getattr(smsverify, name) is not None
    assert sorted(dir(smsverify)) == sorted(smsverify.__all__)
    with pytest.raises(AttributeError, match="SmsVerifyHock"):
        _ = smsverify.SmsVerifyHock


def test_the_lazy_names_stand_in_the_rooms_that_type_checkers_see() -> None:
    import smsverify

    tree = ast.parse((CORE / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smsverify.")
        for alias in node.names
    }
    lazy = {name: f"smsverify.{home}" for name, home in smsverify._HOMES.items()}
    assert {name: home for name, home in typed.items() if name != "__version__"} == lazy
    assert {*lazy, "__version__"} == set(smsverify.__all__)
