"""The time that all users of a store share: it goes on evenly when a clock is set."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.clocks import DatabaseClock, now_of
from rigs.processes import in_processes

from smsverify._runtime import clock
from smsverify._service.rate_limit import Priority, RateLimit
from smsverify._store import steady
from smsverify._store.store import Store, open_store
from smsverify._store.tables import clocks, purchases, shifts, slots

pytestmark = pytest.mark.slow

DAY = 86_400.0
STEPS = [61.0, -61.0, DAY, -DAY, 0.5, -0.5]


@pytest.fixture
def make_store() -> Iterator[Callable[[str], Store]]:
    """Makes stores as other processes would have them."""
    made: list[Store] = []

    def make(url: str) -> Store:
        made.append(Store(url))
        return made[-1]

    yield make
    for store in made:
        store.close()


class Stopwatch:
    """Checks that a store's time goes on as this machine's uptime does."""

    def __init__(self, store: Store) -> None:
        self._before = clock.boottime()
        self._began = now_of(store)
        self._after = clock.boottime()

    def check(self, store: Store, tolerance: float = 0.05) -> None:
        """Passes where the store's time is what it should be by now."""
        assert self.agrees(store, tolerance)

    def agrees(self, store: Store, tolerance: float) -> bool:
        """Whether it is."""
        before, now, after = clock.boottime(), now_of(store), clock.boottime()
        passed = now - self._began
        return before - self._after - tolerance <= passed <= after - self._before + tolerance


# ------------------------------------------------------------------ a machine's own store


@pytest.mark.parametrize("seconds", STEPS)
def test_a_machine_whose_clock_is_set_counts_on(
    make_store: Callable[[str], Store], seconds: float, any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(any_store_url)
    stopwatch, right = Stopwatch(store), time.time
    monkeypatch.setattr(time, "time", lambda: right() + seconds)
    stopwatch.check(store)
    stopwatch.check(make_store(any_store_url))  # as another process sees it


@pytest.mark.parametrize("seconds", [61.0, -DAY])
def test_processes_whose_clocks_differ_share_one_time(seconds: float, any_store_url: str) -> None:
    stopwatch = Stopwatch(open_store(any_store_url))
    times = in_processes("tell_time", 2, url=any_store_url, seconds=seconds)
    now = now_of(open_store(any_store_url))
    assert all(now - 60 < one <= now for one in times)
    stopwatch.check(open_store(any_store_url))


def test_the_time_begins_with_the_calendar(any_store_url: str) -> None:
    began = time.time()
    assert began - 1 < now_of(open_store(any_store_url)) < time.time() + 1


def restart(
    monkeypatch: pytest.MonkeyPatch, *, wall: float, uptime: float = 5.0, has_name: bool = True
) -> None:
    """The machine starts anew, and its clock is `wall` seconds ahead of the right time."""
    right, began = time.time, clock.boottime()
    monkeypatch.setattr(steady, "boot_id", lambda: "the next" if has_name else "")
    monkeypatch.setattr(steady, "boottime", lambda: clock.boottime() - began + uptime)
    monkeypatch.setattr(time, "time", lambda: right() + wall)


def test_after_a_restart_the_time_goes_on_with_the_calendar(
    make_store: Callable[[str], Store], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = now_of(open_store(store_url))
    restart(monkeypatch, wall=DAY)
    assert DAY <= now_of(make_store(store_url)) - before < DAY + 60


@pytest.mark.parametrize("has_name", [True, False])
def test_after_a_restart_the_time_is_not_before_anything_on_record(
    make_store: Callable[[str], Store], has_name: bool, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_name:
        monkeypatch.setattr(steady, "boot_id", lambda: "")
    store = make_store(store_url)
    before = now_of(store)
    with store.write() as connection:
        connection.execute(
            sa.insert(purchases).values(
                account="a",
                namespace="n",
                key="k",
                generation=1,
                kind="order",
                fingerprint="f",
                request="{}",
                state="sent",
                attempt="x",
                sent_at=before + 20,
            )
        )
    restart(monkeypatch, wall=-DAY, has_name=has_name)
    again = make_store(store_url)
    assert before + 20 <= now_of(again) < before + 60
    Stopwatch(again).check(make_store(store_url))


def test_what_the_time_is_is_on_record_now_and_then(
    make_store: Callable[[str], Store], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(store_url)
    began = now_of(store)
    right = clock.boottime
    monkeypatch.setattr(steady, "boottime", lambda: right() + 40)  # 40 s later
    now_of(store)
    with store.read() as connection:
        noted = connection.execute(sa.select(clocks.c.steady)).scalar_one()
    assert began + 40 <= noted < began + 60


@pytest.mark.parametrize(("passed", "wrong"), [(0.0, 0.0), (20.0, 500.0), (20.0, -500.0), (5 * DAY, 0.0)])
@pytest.mark.parametrize("name", ["of a container", ""])
def test_a_process_with_another_name_for_the_same_start_goes_on_with_the_same_time(
    make_store: Callable[[str], Store],
    passed: float,
    wrong: float,
    name: str,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As containers of LXC and systemd-nspawn have, and services that see only processes in `/proc`."""
    uptime, right = clock.boottime, time.time
    monkeypatch.setattr(steady, "boottime", lambda: uptime() + 600)
    store = make_store(store_url)
    rate_limit = RateLimit(store, "key", limit=2, period=60.0, lease=90.0)
    with rate_limit.acquire(Priority.POLL, deadline=time.monotonic() + 30):
        pass
    monkeypatch.setattr(steady, "boottime", lambda: uptime() + 600 + passed)
    monkeypatch.setattr(time, "time", lambda: right() + passed + wrong)
    stopwatch = Stopwatch(store)
    free = rate_limit.state().available
    monkeypatch.setattr(steady, "boot_id", lambda: name)
    other = make_store(store_url)
    stopwatch.check(other)
    stopwatch.check(store)
    assert RateLimit(other, "key", limit=2, period=60.0, lease=90.0).state().available == free


def test_the_time_goes_on_between_starts_at_which_the_store_is_opened_at_like_uptimes(
    make_store: Callable[[str], Store], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, right = clock.boottime(), time.time
    uptime = clock.boottime
    for day in range(4):
        monkeypatch.setattr(steady, "boot_id", lambda day=day: f"start {day}")
        monkeypatch.setattr(steady, "boottime", lambda day=day: uptime() - began + 45 + 3 * day)
        monkeypatch.setattr(time, "time", lambda day=day: right() + day * DAY)
        assert now_of(make_store(store_url)) == pytest.approx(time.time(), abs=5)


def test_a_machine_whose_row_was_removed_while_it_was_idle_puts_it_back(
    make_store: Callable[[str], Store], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, uptime, right = make_store(store_url), clock.boottime, time.time
    now_of(store)
    with store.write() as connection:
        connection.execute(sa.delete(clocks))
    monkeypatch.setattr(steady, "boottime", lambda: uptime() + 31)
    stopwatch = Stopwatch(store)
    monkeypatch.setattr(time, "time", lambda: right() + DAY)
    stopwatch.check(make_store(store_url))


def test_a_restart_frees_no_slot_however_far_the_calendar_has_jumped(
    make_store: Callable[[str], Store], store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_limit = RateLimit(make_store(store_url), "key", limit=2, period=60.0, lease=90.0)
    with rate_limit.acquire(Priority.POLL, deadline=time.monotonic() + 30):
        pass
    restart(monkeypatch, wall=DAY)
    assert RateLimit(make_store(store_url), "key", limit=2, period=60.0, lease=90.0).state().available == 1
    with open_store(store_url).read() as connection:
        latest = connection.execute(sa.select(sa.func.max(slots.c.free_at))).scalar_one()
        assert 0 < latest - open_store(store_url).now(connection) <= 61


# ------------------------------------------------------------------ a store that several machines use


@pytest.mark.parametrize("seconds", STEPS)
def test_a_database_whose_clock_is_set_is_corrected_for_all(
    make_store: Callable[[str], Store], seconds: float, shared_store_url: str, database_clock: DatabaseClock
) -> None:
    one, other = make_store(shared_store_url), make_store(shared_store_url)
    now_of(one), now_of(other)
    stopwatch = Stopwatch(one)
    for step in (seconds, -seconds, seconds):
        database_clock.step(step)
        stopwatch.check(one)
        stopwatch.check(other)
        stopwatch.check(make_store(shared_store_url))
    with one.read() as connection:
        assert connection.execute(sa.select(shifts.c.version)).scalar_one() == 3


@pytest.mark.parametrize("seconds", STEPS)
def test_a_step_between_two_short_processes_is_seen(
    make_store: Callable[[str], Store], seconds: float, shared_store_url: str, database_clock: DatabaseClock
) -> None:
    first = make_store(shared_store_url)
    stopwatch = Stopwatch(first)
    # On a busy machine a look may take too long to show a step.
    eventually(lambda: has_noted_a_look(first), "a short look")
    database_clock.step(seconds)
    second = make_store(shared_store_url)
    eventually(lambda: stopwatch.agrees(second, 0.2), "a short look after the step")


def has_noted_a_look(store: Store) -> bool:
    mine = sa.select(clocks).where(clocks.c.boot == clock.boot_id())
    with store.write() as connection:
        store.now(connection)
        return connection.execute(mine).first() is not None


@pytest.mark.parametrize("name", ["", "copied while it ran"])
def test_another_machine_that_goes_by_the_same_name_moves_no_time_ahead(
    make_store: Callable[[str], Store], name: str, shared_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "boot_id", lambda: name)
    stopwatch = Stopwatch(make_store(shared_store_url))
    right = clock.boottime
    monkeypatch.setattr(steady, "boottime", lambda: right() + DAY)  # that much longer up
    stopwatch.check(make_store(shared_store_url), tolerance=0.2)


def test_a_machine_without_a_name_sets_no_time_back(
    make_store: Callable[[str], Store], shared_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "boot_id", lambda: "")
    one, right = make_store(shared_store_url), clock.boottime
    stopwatch = Stopwatch(one)
    with one.write() as connection:
        connection.execute(sa.update(clocks).values(boottime=0.0, steady=clocks.c.steady - DAY))  # another's
    monkeypatch.setattr(steady, "boottime", lambda: right() % 1)  # it has just started
    stopwatch.check(make_store(shared_store_url), tolerance=0.2)


def test_a_database_that_was_set_back_while_nobody_looked_goes_on_where_it_was(
    make_store: Callable[[str], Store],
    shared_store_url: str,
    database_clock: DatabaseClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = now_of(make_store(shared_store_url))
    monkeypatch.setattr(steady, "boot_id", lambda: "another machine")
    database_clock.step(-DAY)
    assert before - 1 <= now_of(make_store(shared_store_url)) < before + 60  # what was noted last


def test_what_is_asked_for_as_a_column_is_corrected_too(
    make_store: Callable[[str], Store], shared_store_url: str, database_clock: DatabaseClock
) -> None:
    store = make_store(shared_store_url)
    now_of(store)
    database_clock.step(DAY)
    now = now_of(store)
    with store.read() as connection:
        assert 0 <= connection.execute(sa.select(store.clock())).scalar_one() - now < DAY / 2


def test_a_clock_that_runs_a_little_differently_is_left_alone(
    make_store: Callable[[str], Store], shared_store_url: str, database_clock: DatabaseClock
) -> None:
    store = make_store(shared_store_url)
    for _ in range(10):
        now_of(store)
        database_clock.step(0.001)
    with store.read() as connection:
        assert connection.execute(sa.select(shifts.c.version)).scalar() is None


def test_small_corrections_are_logged_together_once_a_minute(
    make_store: Callable[[str], Store],
    shared_store_url: str,
    database_clock: DatabaseClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = make_store(shared_store_url)
    now_of(store)
    right = clock.boottime
    for seconds, passed in ((0.5, 0.0), (0.5, 0.0), (0.5, 0.0), (0.5, 61.0), (DAY, 0.0)):
        if passed:
            monkeypatch.setattr(steady, "boottime", lambda: right() + 61.0)
        database_clock.step(seconds + passed)
        now_of(store)
    logged = [record.args[0] for record in caplog.records if "clock was set" in record.msg]
    assert logged == pytest.approx([0.5, 1.5, DAY], abs=0.2)


def test_many_threads_correct_one_step_once(
    make_store: Callable[[str], Store], shared_store_url: str, database_clock: DatabaseClock
) -> None:
    store = make_store(shared_store_url)
    stopwatch = Stopwatch(store)
    database_clock.step(-DAY)
    all_there = threading.Barrier(18)
    wrong: list[BaseException] = []

    def look() -> None:
        try:
            with store.write() as connection:
                all_there.wait(30)  # each has one of the connections that there are, and needs the time
                store.now(connection)
            stopwatch.check(store)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=look) for _ in range(18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with store.read() as connection:
        assert connection.execute(sa.select(shifts.c.version)).scalar_one() == 1


def test_the_calendar_is_the_one_that_is_set(
    make_store: Callable[[str], Store], shared_store_url: str, database_clock: DatabaseClock
) -> None:
    store = make_store(shared_store_url)
    began, before = time.time(), now_of(store)
    database_clock.step(DAY)
    now_of(store)
    with store.read() as connection:
        earliest = time.time()
        assert earliest - 1 < store.wall(connection) - DAY < time.time() + 1
    assert began - 1 < store.as_wall(before) - DAY < time.time() + 1
