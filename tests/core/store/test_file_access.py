"""The store's file is its owner's alone, and an error says what the machine does not allow."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rigs.keys import keys, put
from rigs.wire import WireServer

from smsverify import StoreError
from smsverify._store.store import Store

NOBODY = 65534


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def failure_of(path: Path) -> str:
    store = Store(f"sqlite:///{path}")
    with pytest.raises(StoreError) as caught:
        store.upgrade()
    store.close()
    return str(caught.value)


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
