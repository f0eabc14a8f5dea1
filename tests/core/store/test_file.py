"""The store in a file: the same file as long as it is used, and nobody else's."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from rigs.keys import keys, put
from rigs.processes import in_processes
from rigs.wire import WireServer, answer, response

from smsverify import PurchaseUnknownError, StoreError
from smsverify._purchases.ledger import Ledger
from smsverify._store.store import Store, open_store
from smsverify._store.tables import SCHEMA_VERSION, messages, rate_limits
from smsverify.hook import SmsVerifyHook

MakeHook = Callable[..., SmsVerifyHook]
BOUGHT = {"success": True, "data": {"order_id": 7, "status": "pending", "phone": "+1 415 555 0123"}}


# ------------------------------------------------------------------ the same file


def deleted(path: Path) -> None:
    for one in path.parent.glob("store.db*"):
        one.unlink()


def deleted_alone(path: Path) -> None:
    path.unlink()


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replaced_by_a_new_store(path: Path) -> None:
    deleted(path)
    assert in_processes("upgrade", 1, url=f"sqlite:///{path}") == [SCHEMA_VERSION]


def replaced_by_a_backup(path: Path) -> None:
    backup = path.with_name("backup.db")
    source, target = sqlite3.connect(path), sqlite3.connect(backup)
    source.backup(target)
    source.close()
    target.close()
    backup.rename(path)


def in_another_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("before"))
    path.parent.mkdir()


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def without_its_wal(path: Path) -> None:
    path.with_name("store.db-wal").unlink()


def without_its_memory(path: Path) -> None:
    path.with_name("store.db-shm").unlink()


CHANGES = [
    deleted,
    deleted_alone,
    moved,
    replaced_by_a_new_store,
    replaced_by_a_backup,
    in_another_directory,
    emptied,
    without_its_wal,
    without_its_memory,
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_idle", [False, True], ids=["in use", "closed"])
def test_nothing_is_bought_when_the_file_is_not_the_same_any_more(
    is_idle: bool, change: Callable[[Path], None], place: Path, wire: WireServer, make_hook: MakeHook
) -> None:
    if is_idle and change in (without_its_wal, without_its_memory):
        return  # Nobody has it open, so there is nothing beside it.
    hook = make_hook(wire, f"sqlite:///{place}")
    wire.on("POST", answer(201, BOUGHT))
    hook.order("temporary", service="WhatsApp", key="k")
    if is_idle:
        open_store(f"sqlite:///{place}").close()
    change(place)
    for key in ("k", "another"):
        with pytest.raises(StoreError, match="deleted or replaced") as caught:
            hook.order("temporary", service="WhatsApp", key=key)
        assert str(place) in str(caught.value)
    assert wire.posts == 1


@pytest.mark.parametrize("way", ["copied", "written"])
def test_nothing_is_bought_when_an_older_state_was_put_back_into_the_file(
    way: str, place: Path, wire: WireServer, make_hook: MakeHook
) -> None:
    url = f"sqlite:///{place}"
    hook = make_hook(wire, url)
    wire.on("POST", answer(201, BOUGHT))
    hook.upgrade_store()
    backup = place.with_name("backup.db")
    source, target = sqlite3.connect(place), sqlite3.connect(backup)
    source.backup(target)
    target.close()
    hook.order("temporary", service="WhatsApp", key="k")
    if way == "copied":  # while nobody has the file open
        source.close()
        open_store(url).close()
        shutil.copyfile(backup, place)
    else:  # through SQLite, while it is in use
        sqlite3.connect(backup).backup(source)
        source.close()
    for key in ("k", "another"):
        with pytest.raises(StoreError, match="older state"):
            hook.order("temporary", service="WhatsApp", key=key)
    assert wire.posts == 1


def test_a_file_that_goes_between_the_intent_and_the_call_stops_the_call(
    place: Path, wire: WireServer, make_hook: MakeHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = make_hook(wire, f"sqlite:///{place}")
    begin = Ledger.plan

    def begin_and_lose_the_file(*given: object, **named: object) -> object:
        intent = begin(*given, **named)  # type: ignore[arg-type]
        deleted(place)
        return intent

    monkeypatch.setattr(Ledger, "plan", begin_and_lose_the_file)
    with pytest.raises(StoreError, match="deleted or replaced"):
        hook.order("temporary", service="WhatsApp", key="k")
    assert wire.posts == 0


def test_a_purchase_that_cannot_be_recorded_in_the_file_any_more_is_named_at_once(
    place: Path, wire: WireServer, make_hook: MakeHook
) -> None:
    hook = make_hook(wire, f"sqlite:///{place}")

    def loses_the_file_and_answers(connection: socket.socket, stopping: threading.Event) -> None:
        deleted(place)
        connection.sendall(response(201, BOUGHT))

    wire.on("POST", loses_the_file_and_answers)
    with pytest.raises(PurchaseUnknownError, match="order 7 was bought") as caught:
        hook.order("temporary", service="WhatsApp", key="k")
    assert caught.value.order_ids == (7,)
    assert "deleted or replaced" in str(caught.value)
    assert "the same key would pay a second time: use order 7 by its id" in str(caught.value)
    assert wire.posts == 1


def test_a_lost_answer_that_cannot_be_recorded_in_the_file_any_more_says_that(
    place: Path, wire: WireServer, make_hook: MakeHook
) -> None:
    hook = make_hook(wire, f"sqlite:///{place}")
    wire.on("POST", lambda connection, stopping: deleted(place))
    with pytest.raises(PurchaseUnknownError, match="could not be recorded") as caught:
        hook.order("temporary", service="WhatsApp", key="k")
    assert "on record as" not in str(caught.value)
    assert "the same key would pay a second time" in str(caught.value)
    assert wire.posts == 1


def test_a_purchase_is_recorded_although_others_hold_the_file_for_longer_than_is_waited(
    place: Path, wire: WireServer, make_hook: MakeHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._store.store.BUSY_TIMEOUT", 0.1)
    hook = make_hook(wire, f"sqlite:///{place}")
    hook.upgrade_store()
    holders: list[threading.Thread] = []
    held = threading.Event()

    def hold() -> None:
        other = sqlite3.connect(place, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        held.set()
        time.sleep(0.7)
        other.close()

    def answers_while_somebody_holds_the_file(connection: socket.socket, stopping: threading.Event) -> None:
        holders.append(threading.Thread(target=hold))
        holders[0].start()
        held.wait(30)
        connection.sendall(response(201, BOUGHT))

    wire.on("POST", answers_while_somebody_holds_the_file)
    assert hook.order("temporary", service="WhatsApp", key="k").order_id == 7
    holders[0].join()
    assert hook.get_order(7).key == "k"


def test_a_file_that_comes_back_is_used_again(place: Path) -> None:
    store = Store(f"sqlite:///{place}")
    put(store, "a")
    hidden = place.with_name("hidden.db")
    place.rename(hidden)
    with pytest.raises(StoreError, match="it is gone"):
        put(store, "b")
    hidden.rename(place)
    put(store, "c")
    assert keys(store) == ["a", "c"]
    store.close()


def test_a_forked_process_notices_as_well(place: Path) -> None:
    store = Store(f"sqlite:///{place}")
    put(store, "a")
    store.close()
    deleted(place)
    child = os.fork()
    if child == 0:
        store.forget_connections()
        try:
            put(store, "b")
        except StoreError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not place.exists()
    store.close()


# ------------------------------------------------------------------ one file by all its names


def test_all_names_of_a_file_are_one_store(place: Path, tmp_path: Path) -> None:
    link, directory = tmp_path / "link.db", tmp_path / "directory"
    link.symlink_to(place)
    directory.symlink_to(place.parent)
    spellings = [place, link, directory / "store.db", place.parent / ".." / "place" / "store.db"]
    stores = {id(open_store(f"sqlite:///{path}")) for path in spellings}
    assert len(stores) == 1
    store = open_store(f"sqlite:///{link}")
    put(store, "a")
    assert place.exists()
    store.close()


def test_a_symbolic_link_that_is_turned_elsewhere_is_noticed(place: Path, tmp_path: Path) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(place.parent)
    other.mkdir()
    store = open_store(f"sqlite:///{link}/store.db")
    put(store, "a")
    link.unlink()
    link.symlink_to(other)
    with pytest.raises(StoreError, match="deleted or replaced"):
        put(store, "b")
    assert not (other / "store.db").exists()
    store.close()


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    directory = tmp_path / "größe @ 100% #1"
    store = open_store(f"sqlite:///{directory}/store.db")
    put(store, "a")
    store.close()
    assert keys(store) == ["a"]
    assert (directory / "store.db").exists()
    store.close()


# ------------------------------------------------------------------ what is purged


def test_a_purged_text_is_in_no_file(place: Path) -> None:
    store = Store(f"sqlite:///{place}")
    secret = "the-secret-code-482913"
    with store.write() as connection:
        values = {"account": "a", "order_id": 1, "received_at": 1.0, "came_at": 1.0, "message": secret}
        connection.execute(sa.insert(messages).values(shown_as="d", **values))
    assert any(secret.encode() in one.read_bytes() for one in place.parent.iterdir())
    with store.write() as connection:
        connection.execute(sa.update(messages).values(message=None))
        store.scrub_after(connection)
    assert not any(secret.encode() in one.read_bytes() for one in place.parent.iterdir())
    store.close()


def test_a_reader_in_the_way_of_scrubbing_holds_nobody_up(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(f"sqlite:///{place}")
    put(store, "a")
    with store.read() as reader:
        reader.execute(sa.select(rate_limits)).all()
        with store.write() as connection:
            connection.execute(sa.update(rate_limits).values(refusals=1))
            store.scrub_after(connection)
    with store.write() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 30_000
        assert connection.execute(sa.select(rate_limits.c.refusals)).scalar_one() == 1
    store.close()


def test_each_connection_sets_what_it_relies_on(place: Path) -> None:
    store = Store(f"sqlite:///{place}")
    store.upgrade()
    names = ("journal_mode", "synchronous", "locking_mode", "foreign_keys", "secure_delete", "busy_timeout")
    with store.write() as connection:
        shown = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]
    assert shown == ["wal", 2, "normal", 1, 1, 30_000]
    store.close()


def test_a_journal_that_somebody_has_changed_is_changed_back(place: Path) -> None:
    store = Store(f"sqlite:///{place}")
    put(store, "a")
    store.close()
    other = sqlite3.connect(place)
    assert other.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    other.close()
    put(store, "b")
    with store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    store.close()
