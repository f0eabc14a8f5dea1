"""`smsverify store check` says what a store is like and changes nothing; `store upgrade` makes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import API_KEY

from smsverify._store.store import Store, open_store
from smsverify._store.tables import SCHEMA_VERSION, metadata, rate_limits, schema
from smsverify.cli import main


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMSVERIFY_API_KEY", API_KEY)


def check(capsys: pytest.CaptureFixture[str], url: str, action: str = "check") -> tuple[int, dict[str, Any]]:
    code = main(["store", action, "--store-url", url, "--json"])
    return code, json.loads(capsys.readouterr().out)


def said(capsys: pytest.CaptureFixture[str], url: str, action: str = "check") -> tuple[int, str, str]:
    code = main(["store", action, "--store-url", url])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def tables(url: str) -> set[str]:
    return set(sa.inspect(sa.create_engine(url, poolclass=sa.NullPool)).get_table_names())


def traces(directory: Path) -> dict[str, Any]:
    """All that there is in a directory, so that any change shows."""
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns, path.is_file() and content_of(path))
        for path in [directory, *directory.rglob("*")]
    }


def content_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def set_version(url: str, version: int) -> None:
    store = Store(url)
    store.upgrade()
    with store.write() as connection:
        connection.execute(sa.update(schema).values(version=version))
    store.close()


def test_a_missing_store_is_missing_and_stays_so(
    any_store_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = traces(tmp_path)
    code, state = check(capsys, any_store_url)
    assert (code, state["state"], state["schema"], state["rows"]) == (1, "missing", None, {})
    code, out, err = said(capsys, any_store_url)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "is missing" in err
    assert "store upgrade" in err
    assert traces(tmp_path) == before
    if not any_store_url.startswith("sqlite"):
        assert tables(any_store_url) == set()


def test_an_upgrade_makes_it_and_a_check_then_changes_nothing(
    any_store_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, made = check(capsys, any_store_url, "upgrade")
    assert (code, made["state"], made["schema"]) == (0, "ok", SCHEMA_VERSION)
    assert set(made["rows"]) == set(metadata.tables) - {"smsverify_schema"}
    assert made["mode"] == ("0600" if any_store_url.startswith("sqlite") else None)
    open_store(any_store_url).close()
    before = traces(tmp_path)
    assert check(capsys, any_store_url) == (0, made)
    code, out, err = said(capsys, any_store_url)
    assert (code, err) == (0, "")
    assert made["store_id"] in out
    assert "smsverify_purchases" in out
    assert traces(tmp_path) == before
    assert check(capsys, any_store_url, "upgrade") == (0, made)


def test_a_check_sees_what_others_write_at_the_moment(
    any_store_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = Store(any_store_url)
    with store.write() as connection:
        connection.execute(sa.insert(rate_limits).values(key_id="a"))
    before = traces(tmp_path)
    with store.write() as connection:
        connection.execute(sa.insert(rate_limits).values(key_id="b"))
        code, state = check(capsys, any_store_url)
    assert (code, state["rows"]["smsverify_rate_limits"]) == (0, 1)
    assert traces(tmp_path).keys() == before.keys()
    store.close()


@pytest.mark.parametrize(("version", "state"), [(SCHEMA_VERSION - 1, "older"), (SCHEMA_VERSION + 1, "newer")])
def test_another_version_is_said_and_left_alone(
    version: int, state: str, any_store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_version(any_store_url, version)
    code, found = check(capsys, any_store_url)
    assert (code, found["state"], found["schema"], found["known"]) == (1, state, version, SCHEMA_VERSION)
    assert f"schema {version}" in said(capsys, any_store_url)[2]
    with sa.create_engine(any_store_url, poolclass=sa.NullPool).connect() as connection:
        assert connection.execute(sa.select(schema.c.version)).scalar_one() == version


def test_a_mode_that_is_open_to_others_is_said(
    store_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Store(store_url).upgrade()
    (tmp_path / "store.db").chmod(0o644)
    assert check(capsys, store_url)[1]["mode"] == "0644"
    assert "others can open it" in said(capsys, store_url)[1]
    assert (tmp_path / "store.db").stat().st_mode & 0o777 == 0o644


def test_what_is_no_database_is_an_error(
    store_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "store.db").write_bytes(b"This is a letter. " * 100)
    before = traces(tmp_path)
    code, out, err = said(capsys, store_url)
    assert (code, out) == (1, "")
    assert "not a database" in err
    assert traces(tmp_path) == before
