"""Fixtures of the core's tests: simulated services, hooks on them, and a store on each database."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

from rigs import API_KEY, await_end_of_waits, let_go_of_all_numbers
from rigs.clocks import DatabaseClock, Machines
from rigs.pgbouncer import PrivatePgBouncer, find_pgbouncer
from rigs.postgres import PrivatePostgres
from rigs.wire import WireServer

from smsverify._store.store import open_store
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator
from stacks.services import find_postgres

# A machine with much to do is no reason to fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings counts in a test."""
    for name in os.environ:
        if name.upper().startswith("SMSVERIFY_") or name.upper().endswith(("_PROXY", "_CA_BUNDLE")):
            monkeypatch.delenv(name)
    for name in ("NETRC", "PYTEST_ADDOPTS"):  # which a test that starts pytest would hand on
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))


# ------------------------------------------------------------------ stores


def close_store(url: str) -> None:
    """Closes a store that no thread uses any more: a connection in use would be left open."""
    await_end_of_waits()
    let_go_of_all_numbers()  # the process of a test that ends within a block lives on
    open_store(url).close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL for this run; the tests that need it are skipped only where none is installed."""
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed here: no initdb on the PATH or in /usr/lib/postgresql")
    server = PrivatePostgres(binaries)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def pgbouncer(postgres: PrivatePostgres) -> Iterator[PrivatePgBouncer]:
    """A PgBouncer in transaction mode in front of `postgres`; skipped only where none is installed."""
    program = find_pgbouncer()
    if program is None:
        pytest.skip("PgBouncer is not installed here: it is neither on the PATH nor /usr/sbin/pgbouncer")
    pooler = PrivatePgBouncer(program, postgres)
    yield pooler
    pooler.stop()


@pytest.fixture
def store_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a store in a file of this test's own."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    yield url
    close_store(url)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def any_store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty store, on each database in turn."""
    if request.param == "sqlite":
        yield request.getfixturevalue("store_url")
        return
    url = request.getfixturevalue("postgres").create_database()
    yield url
    close_store(url)


@pytest.fixture
def shared_store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty store that several machines may use."""
    url = request.getfixturevalue("postgres").create_database()
    yield url
    close_store(url)


@pytest.fixture
def database_clock(shared_store_url: str) -> Iterator[DatabaseClock]:
    """The clock of the database of `shared_store_url`; it can be set."""
    clock = DatabaseClock(shared_store_url)
    yield clock
    clock.close()


@pytest.fixture
def machines(database_clock: DatabaseClock, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Machines that use the database of `shared_store_url`."""
    return Machines(monkeypatch, database_clock)


@pytest.fixture
def patient_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver in this process waits long for a busy machine, where it would ask for a repeat."""
    for name in ("BODY_TIMEOUT", "STORE_TIMEOUT"):
        monkeypatch.setattr(f"smsverify._receiver.receiver.{name}", 60.0)


# ------------------------------------------------------------------ services and hooks


@pytest.fixture
def simulate() -> Iterator[Callable[..., Simulator]]:
    """Starts simulators whose minute lasts a second and whose SMS never come; settings may be given.

    Their orders do not end by themselves, however long a test takes.
    """
    lasting = {name: {"validity": 3_600_000.0} for name in ("temporary", "best-temp", "global")}
    running: list[Simulator] = []

    def start(**settings: Any) -> Simulator:
        given = settings.pop("products", {})
        products = {name: {**lasting.get(name, {}), **given.get(name, {})} for name in {**lasting, **given}}
        settings = {"api_key": API_KEY, "speed": 60.0, "sms_delay": "never", **settings}
        running.append(Simulator(products=products, **settings).start())
        return running[-1]

    yield start
    for simulator in running:
        simulator.stop()


@pytest.fixture
def wire() -> Iterator[WireServer]:
    """A server of bare sockets; its catalogue has WhatsApp (1012) as a temporary number for 0.40."""
    server = WireServer()
    yield server
    server.stop()


@pytest.fixture
def make_hook(simulate: object) -> Iterator[Callable[..., SmsVerifyHook]]:
    """Makes hooks on a simulator, a wire server or an address; settings may be given."""
    # It asks for `simulate` so that the waits of these hooks end before their simulator does.
    urls: set[str] = set()

    def make(service: Simulator | WireServer | str, store_url: str, **settings: Any) -> SmsVerifyHook:
        address = service if isinstance(service, str) else service.url
        period = service.rate_period if isinstance(service, Simulator) else 1.0
        defaults = {"api_key": API_KEY, "rate_period": period, "call_timeout": 20.0}
        urls.add(store_url)
        return SmsVerifyHook(base_url=address, store_url=store_url, **{**defaults, **settings})

    yield make
    for url in urls:
        close_store(url)


@pytest.fixture
def simulator(simulate: Callable[..., Simulator]) -> Simulator:
    """A simulator whose minute lasts a second and whose SMS come when a test says so."""
    return simulate()


@pytest.fixture
def hook(simulator: Simulator, make_hook: Callable[..., SmsVerifyHook], store_url: str) -> SmsVerifyHook:
    """A hook on `simulator` with a store in a file."""
    return make_hook(simulator, store_url)
