"""Who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "smsverify"
WINGS = {
    "smsverify_provider": ROOT / "provider" / "smsverify_provider",
    "prefect_smsverify": ROOT / "prefect_tasks" / "prefect_smsverify",
}
# Each may import those on the floors before it, and what lives in its own folder.
FLOORS = [
    {"_version"},
    {"text"},
    {"errors", "metrics"},
    {"_runtime"},
    {"_input"},
    {"settings", "models"},
    {"checks"},
    {"overview"},
    {"reports", "options", "verification", "overview_tables"},
    {"numbers"},
    {"_otp"},
    {"otp"},
    {"_store"},
    {"_service"},
    {"_messages"},
    {"_orders"},
    {"_purchases", "_waiting"},
    {"_overview", "_upkeep"},
    {"_parts"},
    {"account"},
    {"hook"},
    {"_receiver"},
    {"callback", "wings"},
    {"cli"},
    {"__main__"},
]
ROOMS = [room for floor in FLOORS for room in sorted(floor)]
LONGEST_MODULE = 500  # lines


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


def modules_loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def loaded_by(statement: str) -> set[str]:
    """The top-level ones of them."""
    return {top(name) for name in modules_loaded_by(statement)}


def modules_of(package: Path) -> dict[str, Path]:
    """The modules of a package by their names; a package by that of its `__init__`."""
    modules = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def circle_in(package: Path) -> list[str] | None:
    """Modules that import each other in a circle, for real or for types only."""
    modules = modules_of(package)
    graph = {}
    for name, path in modules.items():
        used = {one for one in imports_of(path) if one in modules and one != name}
        # `from package import module` needs the module, not what the package's face offers.
        graph[name] = {one for one in used if not any(other.startswith(f"{one}.") for other in used)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def test_every_room_of_the_core_has_its_place() -> None:
    rooms = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "simulator"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    below = set().union(*FLOORS[: next(at for at, floor in enumerate(FLOORS) if room in floor)], {room})
    if room == "cli":
        below.add("simulator")
    paths = (CORE / room).rglob("*.py") if (CORE / room).is_dir() else [CORE / f"{room}.py"]
    for path in paths:
        used = {name.split(".")[1] for name in imports_of(path) if name.startswith("smsverify.")}
        # Names of the package's face are loaded from the rooms that are looked at anyway.
        assert {name for name in used if name in {*ROOMS, "simulator"}} <= below, path


def test_no_module_of_the_core_is_in_a_circle() -> None:
    # The face names for type checkers what it loads when it is asked for.
    assert circle_in(CORE / "simulator") is None
    for room in ROOMS:
        assert circle_in(CORE / room) is None, room


@pytest.mark.parametrize("room", [room for room in ROOMS if room[0] == "_" and (CORE / room).is_dir()])
def test_a_folder_says_what_lives_there_and_what_may_not(room: str) -> None:
    text = ast.get_docstring(ast.parse((CORE / room / "__init__.py").read_text()))
    assert text is not None
    assert "Nothing here" in text


@pytest.mark.parametrize("wing", WINGS)
def test_the_wings_know_the_core_but_not_each_other(wing: str) -> None:
    other = next(name for name in WINGS if name != wing)
    for path in WINGS[wing].rglob("*.py"):
        assert other not in {top(name) for name in imports_of(path)}, path


@pytest.mark.parametrize("wing", WINGS)
def test_the_wings_import_public_modules_only(wing: str) -> None:
    for path in WINGS[wing].rglob("*.py"):
        private = {name for name in imports_of(path) if name.startswith("smsverify._")}
        assert private <= {"smsverify.__version__"}, path


@pytest.mark.parametrize("wing", WINGS)
def test_no_module_of_a_wing_is_in_a_circle(wing: str) -> None:
    assert circle_in(WINGS[wing]) is None


@pytest.mark.parametrize("package", [CORE, *WINGS.values(), ROOT / "tests"], ids=lambda package: package.name)
def test_no_module_is_too_long(package: Path) -> None:
    lines = {
        path.relative_to(package).as_posix(): len(path.read_text().splitlines())
        for path in package.rglob("*.py")
    }
    assert {name: count for name, count in lines.items() if count > LONGEST_MODULE} == {}


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
    extras = {"starlette", "uvicorn", "anyio", "psycopg", "opentelemetry"}
    homes = {
        "callback": {"starlette", "uvicorn"},
        "connections": {"uvicorn"},
        "receiver": {"starlette", "anyio"},
        "metrics": {"opentelemetry"},
    }
    for path in CORE.rglob("*.py"):
        used = {top(name) for name in imports_of(path)} & extras
        assert used <= homes.get(path.stem, set()), path


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
    assert "pydantic" in loaded
    assert not loaded & {"starlette", "uvicorn", "psycopg", "opentelemetry"}


def test_the_hook_loads_only_what_buying_needs(tmp_path: Path) -> None:
    # Each task of Airflow is a process of its own, and tasks that start together share the processors.
    made = f"SmsVerifyHook(api_key='k', store_url='sqlite:///{tmp_path}/store.db')"
    loaded = modules_loaded_by(f"from smsverify.hook import SmsVerifyHook; {made}._parts.checkout")
    later = {
        "overview",
        "reports",
        "_overview",
        "_upkeep",
        "_waiting.waiter",
        "_waiting.poller",
        "_service.wire",
    }
    later |= {
        f"_purchases.{name}" for name in ("findings", "reconciling", "rentals", "renewing", "deliveries")
    }
    assert "smsverify._purchases.purchasing" in loaded
    assert not loaded & {f"smsverify.{name}" for name in later}


def test_what_sends_requests_is_loaded_before_a_request_has_its_turn(tmp_path: Path) -> None:
    asks = f"""
from smsverify import SmsVerifyHook
from smsverify._service.rate_limit import RateLimit
def acquire(*_, **__): raise LookupError
RateLimit.acquire = acquire
try: SmsVerifyHook(api_key='k', store_url='sqlite:///{tmp_path}/store.db').get_balance()
except LookupError: pass"""
    assert "requests" in loaded_by(asks)


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
