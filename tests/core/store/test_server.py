"""The store on a PostgreSQL that others run: odd defaults, a pooler in front, restarts, backups put back."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from rigs.clocks import DatabaseClock
from rigs.keys import keys, put
from rigs.pgbouncer import POOL_SIZE, PrivatePgBouncer
from rigs.postgres import PrivatePostgres
from rigs.processes import in_processes
from rigs.purchases import read_prices
from rigs.rooms import settings_of
from rigs.wire import WireServer, answer, response

from smsverify import PurchaseUnknownError, StoreError
from smsverify._store.store import Store, open_store
from smsverify._store.tables import SCHEMA_VERSION, messages, purchases, rate_limits
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
BOUGHT = {"success": True, "data": {"order_id": 7, "status": "pending", "phone": "+1 415 555 0123"}}
# What a database may have as defaults, each of which would break something.
ODD = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "lock_timeout": "50",
    "statement_timeout": "200",
    "idle_in_transaction_session_timeout": "200",
    "extra_float_digits": "-10",
    "standard_conforming_strings": "off",
    "client_encoding": "LATIN1",
    "DateStyle": "'SQL, DMY'",
    "TimeZone": "'Asia/Kathmandu'",
}


@pytest.fixture
def opened() -> Iterator[Callable[[str], Store]]:
    """Opens stores of this process alone, and closes them."""
    with ExitStack() as stack:

        def make(url: str) -> Store:
            store = Store(url)
            stack.callback(store.close)
            return store

        yield make


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ------------------------------------------------------------------ defaults of others


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_budget_holds_whatever_isolation_the_database_has(
    isolation: str, simulate: Simulate, make_hook: MakeHook, postgres: PrivatePostgres
) -> None:
    simulator = simulate()
    url = postgres.create_database(default_transaction_isolation=f"'{isolation}'")
    hook = make_hook(simulator, url, call_timeout=60.0, daily_budget="1.20")
    read_prices(hook)
    failures: list[str] = []

    def buy(number: int) -> None:
        try:
            hook.order("temporary", service="WhatsApp", key=f"k{number}")
        except Exception as error:
            failures.append(type(error).__name__)

    in_threads(12, buy)
    assert len(simulator.orders()) == 3
    assert failures == ["SpendingLimitError"] * 9


def test_each_transaction_sets_what_it_relies_on(
    postgres: PrivatePostgres, opened: Callable[[str], Store]
) -> None:
    store = opened(postgres.create_database(**ODD))
    with store.write() as connection:
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in (
                "transaction_isolation",
                "transaction_read_only",
                "synchronous_commit",
                "lock_timeout",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
                "client_encoding",
                "search_path",
            )
        }
    assert shown == {
        "transaction_isolation": "read committed",
        "transaction_read_only": "off",
        "synchronous_commit": "on",
        "lock_timeout": "30s",
        "statement_timeout": "1min",
        "idle_in_transaction_session_timeout": "1min",
        "client_encoding": "UTF8",
        "search_path": "public, pg_temp",
    }
    with store.read() as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"


def test_odd_defaults_break_nothing(postgres: PrivatePostgres, opened: Callable[[str], Store]) -> None:
    store = opened(postgres.create_database(**ODD))
    put(store, "a")
    began = threading.Event()

    def hold() -> None:
        with store.write() as connection:
            connection.execute(sa.update(rate_limits).values(refusals=1))
            began.set()
            time.sleep(0.4)  # longer than the database lets a transaction idle, or a statement wait

    holder = threading.Thread(target=hold)
    holder.start()
    assert began.wait(60)
    with store.write() as connection:
        connection.execute(sa.update(rate_limits).values(refusals=rate_limits.c.refusals + 1))
        now = store.now(connection)
    holder.join()
    assert abs(now - time.time()) < 60
    text = "ಕೋಡ್ 482913 код ✓ 🙂"
    with store.write() as connection:
        values = {"account": "a", "order_id": 1, "received_at": 1764200000.123456, "came_at": 0.0}
        connection.execute(sa.insert(messages).values(message=text, **values))
    with store.read() as connection:
        row = connection.execute(sa.select(messages)).one()
        assert (row.message, row.received_at) == (text, 1764200000.123456)
        assert connection.execute(sa.select(rate_limits.c.refusals)).scalar_one() == 2


def test_every_script_survives_without_an_encoding(
    postgres: PrivatePostgres, opened: Callable[[str], Store]
) -> None:
    store = opened(postgres.create_database(encoding="SQL_ASCII"))
    put(store, "код 验证码 كود")
    assert keys(store) == ["код 验证码 كود"]


def test_an_encoding_that_cannot_hold_every_text_is_refused_at_once(
    postgres: PrivatePostgres, opened: Callable[[str], Store]
) -> None:
    with pytest.raises(StoreError, match=r"LATIN1.*UTF8"):
        opened(postgres.create_database(encoding="LATIN1")).upgrade()


def test_the_environment_moves_nothing(
    postgres: PrivatePostgres, opened: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.create_database()
    postgres.execute("CREATE SCHEMA elsewhere", database_of(url))
    for name, value in {
        "PGOPTIONS": "-c search_path=elsewhere",
        "PGCLIENTENCODING": "LATIN1",
        "PGPORT": "1",
        "PGHOST": "nowhere.invalid",
    }.items():
        monkeypatch.setenv(name, value)
    put(opened(url), "a")
    assert postgres.execute("SELECT key_id FROM public.smsverify_rate_limits", database_of(url)) == [("a",)]


# ------------------------------------------------------------------ schemas


def test_all_roles_meet_in_one_store_whatever_their_search_path(
    postgres: PrivatePostgres, opened: Callable[[str], Store]
) -> None:
    url = postgres.create_database()
    name = database_of(url)
    put(opened(url), "a")
    for role, path in (("meets_first", "meets_first"), ("meets_nobody", "''")):
        postgres.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'p'")
        postgres.execute(f"ALTER ROLE {role} SET search_path TO {path}")
        postgres.execute(f"CREATE SCHEMA {role} AUTHORIZATION {role}", name)
        guest = sa.engine.make_url(url).set(username=role, password="p")
        assert keys(opened(guest.render_as_string(hide_password=False))) == ["a"]


def test_a_store_in_a_schema_of_its_own_stays_there(
    postgres: PrivatePostgres, opened: Callable[[str], Store]
) -> None:
    url = postgres.create_database(search_path="own")
    name = database_of(url)
    postgres.execute("CREATE SCHEMA own", name)
    store = opened(url)
    put(store, "a")
    postgres.execute(f"ALTER DATABASE {name} SET search_path TO public")
    put(store, "b")
    store.close()
    put(store, "c")
    assert keys(opened(url)) == ["a", "b", "c"]
    assert postgres.execute("SELECT count(*) FROM own.smsverify_rate_limits", name) == [(3,)]


def test_where_no_table_can_be_made_the_store_says_so(
    postgres: PrivatePostgres, opened: Callable[[str], Store]
) -> None:
    with pytest.raises(StoreError, match="search_path"):
        opened(postgres.create_database(search_path="''")).upgrade()


# ------------------------------------------------------------------ a pooler in between


def test_purchases_work_behind_a_pooler_in_transaction_mode(
    simulate: Simulate, make_hook: MakeHook, postgres: PrivatePostgres, pgbouncer: PrivatePgBouncer
) -> None:
    simulator = simulate()
    url = pgbouncer.url_of(postgres.create_database(**ODD))
    hook = make_hook(simulator, url, call_timeout=60.0)
    results = in_processes(
        "buy_many",
        4,
        settings=settings_of(hook),
        orders=6,
        order={"product": "temporary", "service": "WhatsApp"},
    )
    bought = [order_id for ids in results for order_id in ids]
    assert sorted(bought) == sorted(order.order_id for order in simulator.orders())
    assert len(set(bought)) == 24
    with open_store(url).read() as connection:
        states = connection.execute(sa.select(purchases.c.state, sa.func.count()).group_by(purchases.c.state))
        assert states.all() == [("bought", 24)]


def test_the_pooler_s_connections_are_left_as_they_were(
    postgres: PrivatePostgres, pgbouncer: PrivatePgBouncer, opened: Callable[[str], Store]
) -> None:
    url = pgbouncer.url_of(postgres.create_database())
    in_threads(12, lambda number: put(opened(url), str(number)))
    import psycopg

    other = psycopg.connect(url.replace("+psycopg", ""), prepare_threshold=None, autocommit=True)
    assert other.execute("SHOW lock_timeout").fetchone() == ("0",)
    assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    other.close()


def test_no_transaction_that_has_a_connection_of_the_pooler_waits_for_another_one(
    postgres: PrivatePostgres, pgbouncer: PrivatePgBouncer, opened: Callable[[str], Store]
) -> None:
    """Who corrects the time needs one, and here the others have them all."""
    direct = postgres.create_database()
    database_clock = DatabaseClock(direct)
    store = opened(pgbouncer.url_of(direct))
    put(store, "a")
    database_clock.step(3600.0)
    all_there = threading.Barrier(POOL_SIZE)
    times: list[float] = []

    def look(_: int) -> None:
        with store.write() as connection:
            all_there.wait(30)
            times.append(store.now(connection))

    in_threads(POOL_SIZE, look)
    database_clock.close()
    assert len(times) == POOL_SIZE  # where one waits, the server ends it after a minute
    assert max(times) - min(times) < 30


def test_what_another_client_of_the_pooler_has_set_does_not_matter(
    postgres: PrivatePostgres, pgbouncer: PrivatePgBouncer, opened: Callable[[str], Store]
) -> None:
    direct = postgres.create_database()
    postgres.execute("CREATE SCHEMA astray", database_of(direct))
    url = pgbouncer.url_of(direct)
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), prepare_threshold=None, autocommit=True) as other:
        for setting in (
            "search_path = astray",
            "default_transaction_read_only = on",
            "synchronous_commit = off",
        ):
            other.execute(f"SET {setting}".encode())
    store = opened(url)
    put(store, "a")
    with store.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
    assert postgres.execute("SELECT key_id FROM public.smsverify_rate_limits", database_of(direct)) == [
        ("a",)
    ]


# ------------------------------------------------------------------ restarts


def test_a_restart_between_the_purchase_and_its_record_loses_nothing(
    wire: WireServer, make_hook: MakeHook, postgres: PrivatePostgres
) -> None:
    url = postgres.create_database()
    hook = make_hook(wire, url)
    hook.upgrade_store()
    restarts: list[threading.Thread] = []

    def restart() -> None:
        with postgres.gone():
            down.set()
            time.sleep(1.5)

    down = threading.Event()

    def answers_while_the_database_restarts(connection: socket.socket, stopping: threading.Event) -> None:
        restarts.append(threading.Thread(target=restart))
        restarts[0].start()
        down.wait(30)
        connection.sendall(response(201, BOUGHT))

    wire.on("POST", answers_while_the_database_restarts)
    order = hook.order("temporary", service="WhatsApp", key="k")
    restarts[0].join()
    assert order.order_id == 7
    with open_store(url).read() as connection:
        row = connection.execute(sa.select(purchases)).one()
        assert (row.state, row.order_id) == ("bought", 7)
    assert hook.get_order(7).key == "k"
    assert wire.posts == 1


def test_a_database_that_stays_away_is_given_up_when_the_call_s_time_is_over(
    wire: WireServer, make_hook: MakeHook, postgres: PrivatePostgres
) -> None:
    url = postgres.create_database()
    # One call may take 2 * 0.2 + 3 * 0.3 s.
    hook = make_hook(wire, url, connect_timeout=0.2, read_timeout=0.3)
    hook.upgrade_store()
    with ExitStack() as stack:

        def answers_without_a_database(connection: socket.socket, stopping: threading.Event) -> None:
            stack.enter_context(postgres.gone())
            connection.sendall(response(201, BOUGHT))

        wire.on("POST", answers_without_a_database)
        with pytest.raises(PurchaseUnknownError, match="order 7 was bought") as caught:
            hook.order("temporary", service="WhatsApp", key="k")
    assert caught.value.order_ids == (7,)


# ------------------------------------------------------------------ the store itself is another


@pytest.mark.parametrize(
    "change",
    [
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
        "DROP TABLE smsverify_schema",
        "TRUNCATE smsverify_schema",
        "UPDATE smsverify_schema SET store_id = 'another'",
        # A backup of the same store is put back: the same id, in tables that were made anew.
        "CREATE TABLE copy AS TABLE smsverify_schema; DROP TABLE smsverify_schema;"
        "ALTER TABLE copy RENAME TO smsverify_schema",
    ],
    ids=["schema", "table", "emptied", "another", "restored"],
)
def test_nothing_is_bought_when_the_tables_are_not_the_same_any_more(
    change: str, wire: WireServer, make_hook: MakeHook, postgres: PrivatePostgres
) -> None:
    url = postgres.create_database()
    hook = make_hook(wire, url)
    wire.on("POST", answer(201, BOUGHT))
    hook.order("temporary", service="WhatsApp", key="k")
    postgres.execute(change, database_of(url))
    with pytest.raises(StoreError, match="deleted or restored"):
        hook.order("temporary", service="WhatsApp", key="k")
    assert wire.posts == 1


def test_nothing_is_bought_when_older_rows_were_put_back(
    wire: WireServer, make_hook: MakeHook, postgres: PrivatePostgres
) -> None:
    url = postgres.create_database()
    hook = make_hook(wire, url)
    wire.on("POST", answer(201, BOUGHT))
    hook.upgrade_store()
    postgres.execute("CREATE TABLE then_locks AS TABLE smsverify_locks", database_of(url))
    hook.order("temporary", service="WhatsApp", key="k")
    postgres.execute(
        "TRUNCATE smsverify_purchases, smsverify_orders, smsverify_locks;"
        "INSERT INTO smsverify_locks SELECT * FROM then_locks",
        database_of(url),
    )
    for key in ("k", "another"):
        with pytest.raises(StoreError, match="older state"):
            hook.order("temporary", service="WhatsApp", key=key)
    assert wire.posts == 1


def test_a_transaction_that_fails_is_no_older_state(
    any_store_url: str, opened: Callable[[str], Store]
) -> None:
    store = opened(any_store_url)
    for _ in range(3):
        with contextlib.suppress(LookupError), store.write() as connection:
            store.lock(connection, "name")
            store.lock(connection, "name")
            raise LookupError
    for _ in range(3):
        with store.write() as connection:
            store.lock(connection, "name")


def test_a_lock_lets_one_at_a_time_work(any_store_url: str, opened: Callable[[str], Store]) -> None:
    store = opened(any_store_url)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with store.write() as connection:
            store.lock(connection, "name")
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    in_threads(12, work)
    assert most == [1] * 12


def test_a_replica_says_that_it_only_reads(postgres: PrivatePostgres, opened: Callable[[str], Store]) -> None:
    url = postgres.create_database()
    opened(url).upgrade()
    with postgres.replica_of(url) as replica_url:
        store = opened(replica_url)
        assert keys(store) == []
        with pytest.raises(StoreError, match="replica"):
            put(store, "a")


def test_a_fresh_store_behind_a_pooler_may_be_opened_by_many(
    postgres: PrivatePostgres, pgbouncer: PrivatePgBouncer
) -> None:
    url = pgbouncer.url_of(postgres.create_database())
    assert in_processes("upgrade", 12, url=url) == [SCHEMA_VERSION] * 12


def test_settings_of_the_url_stay(postgres: PrivatePostgres, opened: Callable[[str], Store]) -> None:
    url = postgres.create_database() + "?application_name=ours&connect_timeout=3"
    with opened(url).read() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "ours"


def test_a_connection_that_breaks_as_a_transaction_begins_is_a_store_error_and_is_replaced(
    postgres: PrivatePostgres, opened: Callable[[str], Store], caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.create_database()
    store = opened(url)
    put(store, "a")
    name = database_of(url)

    ends = ["b"]

    def end_it(_: sa.Connection) -> None:
        if ends:
            ends.pop()
            postgres.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            )

    sa.event.listen(store._engine, "begin", end_it, insert=True)
    with pytest.raises(StoreError, match="cannot be used"):
        put(store, "b")
    put(store, "c")
    assert keys(store) == ["a", "c"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
