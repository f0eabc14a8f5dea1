"""A store URL names one database for everybody who has it, and shows no secret."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs import API_KEY
from rigs.wire import WireServer, answer

from smsverify import InvalidRequestError, StoreError
from smsverify._input.storeurl import secrets_of, shown
from smsverify._store.store import Store
from smsverify.hook import SmsVerifyHook
from smsverify.settings import Settings

MakeHook = Callable[..., SmsVerifyHook]


def load(store_url: str) -> str:
    return Settings.load({"api_key": API_KEY, "store_url": store_url}, {}).store_url.get_secret_value()


def refusal_of(store_url: str) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        load(store_url)
    assert caught.value.field == "store_url"
    return str(caught.value)


# ------------------------------------------------------------------ which database


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sqlite:///store.db", "sqlite:///{cwd}/store.db"),
        ("sqlite:///./store.db", "sqlite:///{cwd}/store.db"),
        ("sqlite:///../store.db", "sqlite:///{parent}/store.db"),
        ("sqlite:///~/store.db", "sqlite:///{home}/store.db"),
        ("sqlite:///%2Fdata%2Fstore.db", "sqlite:////data/store.db"),
        ("sqlite:///file:/data/store.db", "sqlite:////data/store.db"),
        ("sqlite:///file:///data/store.db", "sqlite:////data/store.db"),
    ],
)
def test_a_relative_path_is_refused_with_the_absolute_one(
    written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal_of(written)
    assert meant.format(cwd=tmp_path, parent=tmp_path.parent, home=os.environ["HOME"]) in said
    assert "absolute" in said


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://store.db",
        "sqlite:store.db",
        "sqlite:/data/store.db",
        "sqlite://localhost/data/store.db",
        "sqlite:////data/store.db?mode=memory",
        "sqlite:////data/store.db?uri=true",
        "sqlite:////data/",
        "sqlite:////",
        "sqlite:////data/a\0b.db",
        "sqlite:///C:\\data\\store.db",
        "sqlite:///C:/data/store.db",
        "sqlite:////data/a%20b.db",
        "postgresql+psycopg://u:geheim@h/a%20b",
        "sqlite+aiosqlite:////data/store.db",
        "postgresql+psycopg://u:geheim@h",
        "postgresql+psycopg://u:geheim@h/",
        "postgresql+psycopg:///db",
        "postgresql+psycopg://u:geheim@/db",
        "postgresql+psycopg2://u:geheim@h/db",
        "/data/store.db",
        "store.db",
    ],
)
def test_what_names_no_one_database_is_refused(url: str) -> None:
    said = refusal_of(url)
    assert "sqlite:////" in said or "directory" in said or "%-codes" in said
    assert "geheim" not in said


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////data/store.db",
        "sqlite:////data/x y/größe@100%.db",
        "sqlite:////data/../other/store.db",
        "postgresql+psycopg://u:p@h/db",
        "postgresql+psycopg://u:p%40%2Fx@h:5433/db?sslmode=verify-full&sslpassword=x",
        "postgresql+psycopg://u@/db?host=/var/run/postgresql",
        "postgresql+psycopg://u:p@[::1]:5432/db",
    ],
)
def test_what_names_one_database_stays_as_it_is(url: str) -> None:
    assert load(url) == url
    assert load(f" {url}\n") == url  # as a file of secrets has it


def test_two_working_directories_do_not_buy_twice(
    wire: WireServer, make_hook: MakeHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire.on("POST", answer(201, {"success": True, "data": {"order_id": 7, "phone": "+1 415 555 0123"}}))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        hook = SmsVerifyHook(API_KEY, base_url=wire.url, store_url="sqlite:///store.db")
        with pytest.raises(InvalidRequestError, match="absolute"):
            hook.order("temporary", service="WhatsApp", key="k")
        assert not list(Path.cwd().iterdir())
    assert wire.received == []


# ------------------------------------------------------------------ shown to people


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite:////data/store.db", "sqlite:////data/store.db"),
        ("sqlite:////data/a@b/store.db", "sqlite:////data/a@b/store.db"),
        ("postgresql+psycopg://u:geheim@h:5433/db", "postgresql+psycopg://u:***@h:5433/db"),
        ("postgresql+psycopg://u@h/db", "postgresql+psycopg://u@h/db"),
        (
            "postgresql+psycopg://u:geheim@h/db?sslmode=require",
            "postgresql+psycopg://u:***@h/db?sslmode=require",
        ),
        (
            "postgresql+psycopg://u:geheim@h/db?sslpassword=geheim&sslmode=require",
            "postgresql+psycopg://u:***@h/db?sslpassword=***&sslmode=require",
        ),
        ("postgresql+psycopg://h/db?user=u&password=geheim", "postgresql+psycopg://h/db?user=u&password=***"),
        ("postgresql+psycopg://u:geheim@x@h/db", "postgresql+psycopg://***"),
        ("postgresql+psycopg://u:x@geheim@h/db", "postgresql+psycopg://***"),
        ("postgresql+psycopg://u:x/geheim@h/db", "postgresql+psycopg://***"),
        ("postgresql+psycopg://u:x?geheim@h/db", "postgresql+psycopg://***"),
        ("postgresql+psycopg://u:x#geheim@h/db", "postgresql+psycopg://***"),
        ("postgresql+psycopg://u:geheim@h:port/db", "postgresql+psycopg://***"),
        ("postgresql+psycopg://h/db?password=x@geheim", "postgresql+psycopg://***"),
        (
            "postgresql+psycopg://h/db?new_secret_option=geheim",
            "postgresql+psycopg://h/db?new_secret_option=***",
        ),
        ("u:geheim@h/db", "***"),
        ("", "***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, text: str) -> None:
    assert shown(url) == text


def test_control_characters_of_a_url_reach_no_terminal() -> None:
    assert "\x1b" not in shown("sqlite:////data/\x1b[2Jstore.db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:geheim@127.0.0.1:1/db?sslpassword=heimlich",
        "postgresql+psycopg://u:ge%2Fheim@127.0.0.1:1/db?sslpassword=heimlich",
        "postgresql+psycopg://u:geheim@127.0.0.1:1/db?passfile=heimlich",
    ],
)
def test_no_secret_of_a_url_is_in_an_error(url: str) -> None:
    store = Store(url)
    with pytest.raises(StoreError) as caught:
        store.upgrade()
    for text in (str(caught.value), repr(store)):
        assert not any(secret in text for secret in ("geheim", "ge/heim", "ge%2Fheim", "heimlich"))


def test_all_secrets_of_a_url_are_known() -> None:
    url = "postgresql+psycopg://u:ge%2Fheim@h/db?sslpassword=heimlich&sslmode=require"
    assert secrets_of(url) == ["ge%2Fheim", "heimlich", "ge/heim"]
    assert secrets_of("sqlite:////data/store.db") == []
