"""The store: made by the first process, shared by all, with clear errors."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from rigs.keys import keys, put
from rigs.postgres import PASSWORD, PrivatePostgres
from rigs.processes import in_processes
from rigs.wire import closed_port

from smsverify import StoreError
from smsverify._store.files import file_system_of
from smsverify._store.store import Store, open_store
from smsverify._store.tables import SCHEMA_VERSION, rate_limits, schema


def failure_of(url: str) -> StoreError:
    store = Store(url)
    try:
        with pytest.raises(StoreError) as caught:
            store.upgrade()
    finally:
        store.close()
    return caught.value


# ------------------------------------------------------------------ opening


@pytest.mark.slow
def test_many_processes_may_be_the_first(any_store_url: str) -> None:
    assert in_processes("upgrade", 20, url=any_store_url) == [SCHEMA_VERSION] * 20
    with open_store(any_store_url).read() as connection:
        assert connection.execute(sa.select(schema.c.version)).scalars().all() == [SCHEMA_VERSION]


def test_many_threads_may_be_the_first(any_store_url: str) -> None:
    store = open_store(any_store_url)
    versions: list[int] = []
    threads = [threading.Thread(target=lambda: versions.append(store.upgrade())) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [SCHEMA_VERSION] * 12


def test_the_same_url_is_the_same_store_and_nothing_is_connected_before_it_is_used(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'nobody' / 'store.db'}"
    assert open_store(url) is open_store(url)
    assert not (tmp_path / "nobody").exists()


def test_the_file_and_its_helpers_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "store.db"
    code = (
        "import os; os.umask(0)\nfrom smsverify._store.store import Store\n"
        f"store = Store('sqlite:///{path}'); store.upgrade()\n"
        "from pathlib import Path; import stat\n"
        f"print(*(oct(stat.S_IMODE(p.stat().st_mode)) for p in sorted(Path({str(path.parent)!r}).iterdir())))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0o600"] * 3  # with its -wal and -shm
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_sqlite_survives_a_power_cut_and_readers_do_not_wait(store_url: str) -> None:
    store = open_store(store_url)
    with store.write() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert values == ["wal", 2, 1]  # 2 is FULL


# ------------------------------------------------------------------ transactions


def test_a_block_that_fails_leaves_nothing_behind(any_store_url: str) -> None:
    store = open_store(any_store_url)
    with contextlib.suppress(LookupError), store.write() as connection:
        connection.execute(sa.insert(rate_limits).values(key_id="a"))
        raise LookupError
    put(store, "b")
    assert keys(store) == ["b"]


def test_readers_see_what_was_committed_while_somebody_writes(any_store_url: str) -> None:
    store = open_store(any_store_url)
    put(store, "a")
    with store.write() as connection:
        connection.execute(sa.insert(rate_limits).values(key_id="b"))
        assert keys(store) == ["a"]
    assert keys(store) == ["a", "b"]


def test_a_snapshot_shows_one_moment(any_store_url: str) -> None:
    store = open_store(any_store_url)
    put(store, "a")
    count = sa.select(sa.func.count()).select_from(rate_limits)
    with store.read(is_snapshot=True) as connection:
        assert connection.execute(count).scalar() == 1
        put(store, "b")
        assert connection.execute(count).scalar() == 1
    assert keys(store) == ["a", "b"]


def test_writers_wait_for_each_other_and_none_is_lost(any_store_url: str) -> None:
    store = open_store(any_store_url)
    put(store, "a")

    def add() -> None:
        for _ in range(10):
            with store.write() as connection:
                row = sa.select(rate_limits.c.refusals).where(rate_limits.c.key_id == "a").with_for_update()
                number = connection.execute(row).scalar_one()
                connection.execute(sa.update(rate_limits).values(refusals=number + 1))

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        assert connection.execute(sa.select(rate_limits.c.refusals)).scalar_one() == 60


def test_all_share_one_clock(any_store_url: str) -> None:
    store = open_store(any_store_url)
    with store.write() as connection:
        first = store.now(connection)
        time.sleep(0.01)
        second = store.now(connection)
    assert abs(first - time.time()) < 60
    assert second > first  # also within one transaction


def test_a_forked_process_makes_its_own_connections(any_store_url: str) -> None:
    ((*ends, number),) = in_processes("outlive_forks", 1, url=any_store_url, children=4)
    assert ends == [0] * 4
    assert number == 4 * 5 + 4


def test_a_closed_store_opens_again(any_store_url: str) -> None:
    store = open_store(any_store_url)
    put(store, "a")
    store.close()
    assert keys(store) == ["a"]


@pytest.mark.slow
def test_a_server_that_was_away_for_a_moment_is_found_again(postgres: PrivatePostgres) -> None:
    store = open_store(postgres.create_database())
    put(store, "a")
    with store.write() as connection:
        mine = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        connection.exec_driver_sql(f"{mine} AND datname = current_database()")
    for _ in range(3):
        assert keys(store) == ["a"]
    store.close()


# ------------------------------------------------------------------ what can be wrong


@pytest.mark.parametrize(
    "content",
    [
        b"This is a letter, not a database. " * 100,
        b"PK\x03\x04" + b"\0" * 4096,
        b"SQLite format 3\0" + b"\xff" * 5000,
    ],
    ids=["text", "zip", "broken"],
)
def test_a_file_of_somebody_else_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    error = failure_of(f"sqlite:///{path}")
    assert str(path) in str(error)
    assert path.read_bytes() == content


def test_a_database_of_another_application_gets_no_tables_of_ours_over_its_own(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.execute("INSERT INTO customers VALUES ('A')")
    connection.commit()
    connection.close()
    store = Store(f"sqlite:///{path}")
    store.upgrade()
    with store.read() as reader:
        names = set(sa.inspect(reader).get_table_names())
        assert reader.exec_driver_sql("SELECT name FROM customers").scalar_one() == "A"
    store.close()
    assert all(name.startswith("smsverify_") for name in names - {"customers"})


def test_a_directory_and_a_missing_place_are_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in str(failure_of(f"sqlite:///{tmp_path}"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "file/store.db" in str(failure_of(f"sqlite:///{blocked}/store.db"))


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_schema_of_another_version_is_left_alone(version: int, any_store_url: str) -> None:
    store = Store(any_store_url)
    store.upgrade()
    with store.write() as connection:
        connection.execute(sa.update(schema).values(version=version))
    store.close()
    error = str(failure_of(any_store_url))
    assert f"schema {version}" in error
    assert "Use the version that made it" in error
    assert PASSWORD not in error
    with sa.create_engine(any_store_url, poolclass=sa.NullPool).connect() as connection:
        assert connection.execute(sa.select(schema.c.version)).scalar_one() == version


def test_a_store_that_is_locked_for_too_long_is_a_store_error_and_comes_back(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._store.store.BUSY_TIMEOUT", 0.2)
    store = Store(store_url)
    put(store, "a")
    other = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        put(store, "b")
    assert keys(store) == ["a"]
    other.execute("ROLLBACK")
    other.close()
    put(store, "b")
    assert keys(store) == ["a", "b"]
    store.close()


def test_a_store_that_vanishes_is_a_store_error(tmp_path: Path) -> None:
    place = tmp_path / "store"
    store = Store(f"sqlite:///{place / 'store.db'}")
    put(store, "a")
    store.close()
    shutil.rmtree(place)
    with pytest.raises(StoreError, match=r"store\.db"):
        put(store, "b")
    store.close()


class TestPasswords:
    """The store's password is in no text, whatever goes wrong."""

    def check(self, url: str, password: str = PASSWORD) -> None:
        store = Store(url)
        assert password not in repr(store)
        try:
            with pytest.raises(StoreError) as caught:
                store.upgrade()
        finally:
            store.close()
        seen: BaseException | None = caught.value
        while seen is not None:
            assert password not in f"{seen} {seen!r}"
            seen = seen.__cause__ or seen.__context__

    def test_nobody_listens(self) -> None:
        self.check(f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1:{closed_port()}/x")

    def test_no_such_host(self) -> None:
        self.check(f"postgresql+psycopg://tester:{PASSWORD}@nowhere.invalid/x")

    @pytest.mark.slow
    def test_no_such_database(self, postgres: PrivatePostgres) -> None:
        self.check(f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1:{postgres.port}/nowhere")

    @pytest.mark.slow
    def test_a_wrong_password(self, postgres: PrivatePostgres) -> None:
        url = f"postgresql+psycopg://tester:wrong-{PASSWORD}@127.0.0.1:{postgres.port}/postgres"
        self.check(url, f"wrong-{PASSWORD}")

    def test_an_unknown_option(self) -> None:
        self.check(f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1/x?bogus=1")

    @pytest.mark.slow
    def test_no_rights(self, postgres: PrivatePostgres) -> None:
        url = postgres.create_database()
        admin = Store(url)
        with admin.write() as connection:
            connection.exec_driver_sql(f"CREATE ROLE guest{postgres.port} LOGIN PASSWORD '{PASSWORD}'")
            connection.exec_driver_sql("REVOKE ALL ON SCHEMA public FROM public")
        admin.close()
        # The tables are there; nothing of them is allowed.
        self.check(url.replace("tester:", f"guest{postgres.port}:"))


def test_without_the_driver_a_postgresql_url_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\nfrom smsverify import StoreError, SmsVerifyHook\n"
        "hook = SmsVerifyHook('k', store_url='postgresql+psycopg://u:geheim@h/db')\n"
        "try: hook.upgrade_store()\nexcept StoreError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "smsverify[postgres]" in done.stdout
    assert "geheim" not in done.stdout


# ------------------------------------------------------------------ where it is

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /mnt/team rw shared:2 - nfs4 server:/export rw
31 30 0:41 / /mnt/team/local\\040disk rw - ext4 /dev/vdb rw
32 22 0:42 / /home/me/cloud rw - fuse.sshfs me@server: rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/mnt/team", "nfs4"),
        ("/mnt/team/deep/inside", "nfs4"),
        ("/mnt/teamwork", "ext4"),
        ("/mnt/team/local disk/x", "ext4"),
        ("/home/me/cloud/x", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_path_is_found(path: str, kind: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert file_system_of(Path(path), mounts) == kind
    assert file_system_of(Path(path), tmp_path / "not there") is None


def test_a_store_that_is_gone_with_its_container_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("smsverify._store.files.file_system_of", lambda path: "overlay")
    url = f"sqlite:///{tmp_path / 'store.db'}"
    for _ in range(2):
        open_store(url).upgrade()
    assert caplog.text.count("the container's own layer (overlay)") == 1
    open_store(url).close()


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("nfs4", "network file system (nfs4)"),
        ("vboxsf", "shared by virtual machines (vboxsf)"),
        ("fuse.vmhgfs-fuse", "shared by virtual machines (fuse.vmhgfs-fuse)"),
        ("prl_fs", "shared by virtual machines (prl_fs)"),
    ],
)
def test_a_file_system_whose_users_share_no_memory_is_refused(
    kind: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._store.files.file_system_of", lambda path: kind)
    error = failure_of(f"sqlite:///{tmp_path / 'store.db'}")
    assert what in str(error)
    assert "PostgreSQL" in str(error)
    assert not (tmp_path / "store.db").exists()
