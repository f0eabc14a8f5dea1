"""The store in a file: the same file as long as it is used, and nobody else's."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
NOBODY = 65534


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def failure_of(path: Path) -> str:
    store = Store(f"sqlite:///{path}")
    with pytest.raises(StoreError) as caught:
        store.upgrade()
    store.close()
    return str(caught.value)


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


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a store may be, in a directory of its own."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "store.db"


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
    hook.check_store()
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
    assert wire.posts == 1


def test_a_purchase_is_recorded_although_others_hold_the_file_for_longer_than_is_waited(
    place: Path, wire: WireServer, make_hook: MakeHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._store.store.BUSY_TIMEOUT", 0.1)
    hook = make_hook(wire, f"sqlite:///{place}")
    hook.check_store()
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


# ------------------------------------------------------------------ whose it is


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o644, 0o640, 0o606])
def test_a_file_that_is_open_to_others_is_closed_to_them_and_that_is_said_once(
    mode: int, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(f"sqlite:///{place}")
    put(store, "a")
    for one in place.parent.iterdir():
        one.chmod(mode)
    store.close()
    place.chmod(mode)
    again = Store(f"sqlite:///{place}")
    for key in ("b", "c"):
        put(again, key)
    assert {mode_of(one) for one in place.parent.iterdir()} == {0o600}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert str(place) in warnings[0]
    assert f"{mode:04o}" in warnings[0]
    again.close()


def test_what_lies_beside_the_file_is_closed_to_others_as_well(place: Path) -> None:
    store = Store(f"sqlite:///{place}")
    put(store, "a")
    for one in place.parent.iterdir():
        one.chmod(0o666)
    other = Store(f"sqlite:///{place}")
    other.upgrade()
    assert [mode_of(one) for one in sorted(place.parent.iterdir())] == [0o600] * 3
    other.close()
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
@pytest.mark.parametrize("name", ["store.db", "store.db-wal", "store.db-journal"])
def test_a_file_of_somebody_else_is_refused(name: str, place: Path) -> None:
    theirs = place.with_name(name)
    theirs.touch(mode=0o600)
    os.chown(theirs, NOBODY, NOBODY)
    said = failure_of(place)
    assert str(theirs) in said
    assert f"uid {NOBODY}" in said
    assert theirs.stat().st_size == 0


@pytest.mark.parametrize("name", ["store.db-wal", "store.db-shm"])
def test_a_link_beside_the_file_is_refused(name: str, place: Path, tmp_path: Path) -> None:
    place.with_name(name).symlink_to(tmp_path / "trap")
    assert name in failure_of(place)
    assert not (tmp_path / "trap").exists()


def test_a_link_to_an_open_file_closes_the_file(place: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(place)
    place.touch(mode=0o600)
    place.chmod(0o666)
    store = Store(f"sqlite:///{link}")
    store.upgrade()
    assert mode_of(place) == 0o600
    store.close()


def test_a_second_name_of_the_file_is_refused(place: Path, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{place}")
    store.upgrade()
    store.close()
    os.link(place, tmp_path / "second.db")
    assert "second name" in failure_of(place)


@pytest.mark.parametrize(("mode", "is_trusted"), [(0o777, False), (0o1777, True), (0o775, True)])
def test_a_directory_in_which_all_may_replace_files_is_refused(
    mode: int, is_trusted: bool, place: Path
) -> None:
    place.parent.chmod(mode)
    if is_trusted:
        store = Store(f"sqlite:///{place}")
        store.upgrade()
        store.close()
    else:
        assert "chmod o-w" in failure_of(place)
        assert not place.exists()


@pytest.mark.parametrize("umask", ["0", "0o777"])
def test_the_umask_neither_opens_nor_closes_what_is_made(umask: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "store.db"
    code = (
        f"import os; os.umask({umask})\n"
        "from smsverify._store.files import prepare\nfrom pathlib import Path\n"
        f"path = Path({str(path)!r})\n"
        "path.parent.parent.mkdir(); os.chmod(path.parent.parent, 0o700)\n"
        "path.parent.mkdir(); os.chmod(path.parent, 0o700)\n"
        "prepare(path)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert mode_of(path) == 0o600


def test_every_directory_that_is_made_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "store.db"
    code = f"import os; os.umask(0)\nfrom smsverify._store.store import Store\nStore('sqlite:///{path}').upgrade()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [mode_of(one) for one in (path.parent.parent, path.parent)] == [0o700] * 2


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_is_refused(kind: str, place: Path) -> None:
    os.mkfifo(place) if kind == "fifo" else place.mkdir()
    assert "not a file" in failure_of(place)


# ------------------------------------------------------------------ what the machine does not allow


@contextmanager
def a_place_of_nobody() -> Iterator[Path]:
    """A directory that an ordinary user can reach; root can do everything, so it becomes one meanwhile."""
    directory = Path(tempfile.mkdtemp(prefix="smsverify-store-"))
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(directory, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield directory
    finally:
        if is_root:
            os.seteuid(0)
        directory.chmod(0o700)
        shutil.rmtree(directory)


def test_a_directory_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    with a_place_of_nobody() as directory:
        directory.chmod(0o500)
        said = failure_of(directory / "store.db")
    assert "Permission denied" in said
    assert str(directory) in said


def test_a_directory_that_becomes_read_only_is_a_store_error(tmp_path: Path) -> None:
    with a_place_of_nobody() as directory:
        store = Store(f"sqlite:///{directory / 'store.db'}")
        put(store, "a")
        store.close()
        directory.chmod(0o500)
        with pytest.raises(StoreError, match=r"store\.db"):
            put(store, "b")
        directory.chmod(0o700)
        put(store, "c")
        assert keys(store) == ["a", "c"]
        store.close()


def test_a_full_disk_is_a_store_error_and_nothing_is_sent(place: Path, wire: WireServer) -> None:
    """No file of the process may grow beyond what the store has now."""
    code = textwrap.dedent(
        f"""
        import resource, signal
        from smsverify import SmsVerifyHook, StoreError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hook = SmsVerifyHook("key", base_url={wire.url!r}, store_url="sqlite:///{place}", rate_period=1.0)
        hook.list_services("temporary")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            hook.order("temporary", service="WhatsApp", key="k")
        except StoreError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert str(place) in done.stdout, done.stderr
    assert "full" in done.stdout or "I/O" in done.stdout
    assert wire.posts == 0


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
