"""Callbacks inside of Airflow's API server: the app that Airflow makes, with the provider's plugin in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from smsverify.models import Order

SECRET = "the-SECRET-of-this-url"
NEXT = "the-SECRET-that-comes-next"
TEXT = "Your PayPal code is 545123"


@pytest.fixture
def connection(connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    connection["extra"]["callback_secrets"] = SECRET
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    return connection


@pytest.fixture
def api(session: Any, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the API server, which is nobody: it has logged in nowhere."""
    from airflow.api_fastapi.app import create_app, purge_cached_app
    from fastapi.testclient import TestClient

    # A busy machine is waited for, instead of asking for a repeat.
    for name in ("BODY_TIMEOUT", "STORE_TIMEOUT"):
        monkeypatch.setattr(f"smsverify._receiver.receiver.{name}", 60.0)
    # Connections are read again at each request, and not from the other tests'.
    monkeypatch.setattr("smsverify_provider.callbacks.RELOAD", 0.0)
    purge_cached_app()
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client
    purge_cached_app()


@pytest.fixture
def order(hook: Any) -> Order:
    bought: Order = hook.order("temporary", service="WhatsApp")
    return bought


def of(order: Order, text: str = TEXT) -> dict[str, Any]:
    """The documented payload."""
    message = {"order_id": order.order_id, "number": order.phone_digits, "sender": "8843", "sms": text}
    return {"event": "incoming_message", "message": message}


def test_the_code_of_a_callback_is_there_without_a_request(
    api: Any, hook: Any, sim: Any, order: Order, caplog: Any, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    before = sim.stats().requests
    assert api.post(f"/smsverify/callback/{SECRET}", json=of(order)).status_code == 200
    assert api.get(f"/smsverify/callback/{SECRET}").status_code == 405
    assert hook.wait_for_otp(order.order_id, 30).sender == "8843"
    assert sim.stats().requests == before
    # Airflow logs each request with its path.
    out, err = capfd.readouterr()
    said = caplog.text + out + err
    assert "/smsverify/callback/***" in said
    assert SECRET not in said
    assert TEXT not in said


ENCODED = "".join(f"%{ord(char):02x}" for char in SECRET)


def test_a_secret_at_a_slightly_wrong_address_is_in_no_log(
    api: Any, order: Order, caplog: Any, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.handler.addFilter(lambda record: record.name != "httpx")  # the client's own
    paths = [
        f"/{SECRET}",  # before anything else has needed the secrets
        f"//smsverify/callback/{SECRET}",
        f"/smsverify/callback/{SECRET}/",
        f"/callback/{SECRET}",
        f"/SMSVERIFY/CALLBACK/{SECRET}",
        f"/smsverify/{SECRET}",
        f"/api/v2/callback/{SECRET}",
        f"/api/callback?secret={SECRET}",
        f"/smsverify/callback/{ENCODED}",
        f"/elsewhere/{ENCODED}",
    ]
    for path in paths:
        for method in ("POST", "GET", "HEAD"):
            url = f"http://testserver{path}"
            api.request(method, url, json=of(order), follow_redirects=False)
    out, err = capfd.readouterr()
    said = unquote(caplog.text + out + err)
    assert said.count("request finished") >= 30
    assert SECRET not in said


@pytest.mark.parametrize("path", ["/api/callback", "/api/callback/", "/smsverify/api/callback"])
def test_the_documented_address_takes_unverified_callbacks(
    api: Any, hook: Any, order: Order, path: str
) -> None:
    assert api.post(path, json=of(order)).status_code == 200
    assert hook.check_otp(order.order_id, ask=False) is None


def test_deposits_are_taken(api: Any) -> None:
    for path in (f"/smsverify/callback/{SECRET}/wallet", "/api/wallet/callback"):
        assert api.post(path, json={"amount": 5}).status_code == 200


def test_nobody_gets_anything_else(api: Any, order: Order) -> None:
    """A wrong secret finds nothing, and Airflow asks everybody to log in as before."""
    assert api.post("/smsverify/callback/not-the-secret-of-it", json=of(order)).status_code == 404
    assert api.get("/smsverify/").status_code == 404
    for path in ("/api/v2/dags", "/api/v2/connections", "/api/v2/plugins"):
        assert api.get(path).status_code == 401
    assert api.get("/api/v2/monitor/health").status_code == 200
    assert api.get("/api/callback").status_code == 405


def test_a_secret_is_rotated_without_a_restart(
    api: Any, connection: dict[str, Any], order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers() -> list[int]:
        return [
            api.post(f"/smsverify/callback/{secret}", json=of(order)).status_code for secret in (SECRET, NEXT)
        ]

    def configure(secrets: str) -> None:
        connection["extra"]["callback_secrets"] = secrets
        monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))

    assert answers() == [200, 404]
    configure(f"{SECRET}, {NEXT}")
    assert answers() == [200, 200]
    configure(NEXT)
    assert answers() == [404, 200]
    configure("")
    assert answers() == [404, 404]
    assert api.post("/api/callback", json=of(order)).status_code == 404  # no callbacks are wanted


def test_several_connections_and_one_that_is_wrong(
    api: Any,
    hook: Any,
    connection: dict[str, Any],
    order: Order,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
) -> None:
    other = {**connection, "extra": {**connection["extra"], "account": "other", "callback_secrets": NEXT}}
    wrong = {**connection, "extra": {**connection["extra"], "callback_secrets": "short"}}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(other))
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps(wrong))
    monkeypatch.setenv("AIRFLOW__SMSVERIFY__CALLBACK_CONN_IDS", "wrong, smsverify_default, other, missing")
    assert api.post(f"/smsverify/callback/{NEXT}", json=of(order)).status_code == 200
    assert hook.check_otp(order.order_id, ask=False) is None  # it is another account's
    assert api.post(f"/smsverify/callback/{SECRET}", json=of(order)).status_code == 200
    assert hook.check_otp(order.order_id, ask=False).otp == "545123"
    assert "connection 'wrong': callback_secrets" in caplog.text
    assert "connection 'missing'" in caplog.text
    # Whose it is, nobody could say; the others' are taken.
    shared = {**other, "extra": {**other["extra"], "callback_secrets": f"{SECRET},{NEXT}"}}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(shared))
    assert api.post(f"/smsverify/callback/{SECRET}", json=of(order)).status_code == 503
    assert api.post(f"/smsverify/callback/{NEXT}", json=of(order)).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        "{not JSON",
        "smsverify://:key@host/%zz?__extra__=%7Bbroken",
        "json",
        '{"conn_type": "smsverify", "extra": 5}',
    ],
)
def test_a_malformed_connection_is_its_own_trouble_and_said_once(
    api: Any, order: Order, monkeypatch: pytest.MonkeyPatch, caplog: Any, wrong: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", wrong)
    monkeypatch.setenv("AIRFLOW__SMSVERIFY__CALLBACK_CONN_IDS", "wrong, smsverify_default")
    for number in range(3):
        answer = api.post(f"/smsverify/callback/{SECRET}", json=of(order, f"code {100000 + number}"))
        assert answer.status_code == 200
        assert api.post("/api/callback", json=of(order, f"guess {number}")).status_code == 200
    assert caplog.text.count("No callbacks are taken for the connection 'wrong'") <= 1


def test_a_store_that_is_down_is_its_own_trouble_and_said_once(
    api: Any, connection: dict[str, Any], order: Order, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    extra = {**connection["extra"], "account": "other", "callback_secrets": NEXT}
    down = {**connection, "extra": {**extra, "store_url": "sqlite:////dev/null/store.db"}}
    monkeypatch.setenv("AIRFLOW_CONN_DOWN", json.dumps(down))
    monkeypatch.setenv("AIRFLOW__SMSVERIFY__CALLBACK_CONN_IDS", "down, smsverify_default")
    for number in range(3):
        body = of(order, f"code {100000 + number}")
        assert api.post(f"/smsverify/callback/{NEXT}", json=body).status_code == 503
        assert api.post(f"/smsverify/callback/{SECRET}", json=body).status_code == 200
        assert api.post("/api/callback", json=of(order, f"guess {number}")).status_code == 200
    assert caplog.text.count("could not be stored") == 1


def test_a_connection_that_cannot_be_read_now_stays_as_it_was(
    api: Any, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.secrets.environment_variables import EnvironmentVariablesBackend
    from airflow.secrets.metastore import MetastoreBackend

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no database")

    def post() -> int:
        return int(api.post(f"/smsverify/callback/{SECRET}", json=of(order)).status_code)

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    working = EnvironmentVariablesBackend.get_connection
    monkeypatch.setattr(MetastoreBackend, "get_connection", fail)
    monkeypatch.setattr(EnvironmentVariablesBackend, "get_connection", lambda *_, **__: None)
    assert post() == 503  # not 404: it may be somebody's, and the service sends it again
    monkeypatch.setattr(EnvironmentVariablesBackend, "get_connection", working)
    assert post() == 200
    monkeypatch.setattr(EnvironmentVariablesBackend, "get_connection", lambda *_, **__: None)
    assert post() == 200


def test_the_option_has_its_default_from_the_provider() -> None:
    from airflow.configuration import conf

    assert conf.get("smsverify", "callback_conn_ids") == "smsverify_default"


def test_the_plugin_page_lists_it_without_making_it() -> None:
    from airflow.plugins_manager import get_plugin_info

    (ours,) = [info for info in get_plugin_info() if info["name"] == "smsverify"]
    assert [app["url_prefix"] for app in ours["fastapi_apps"]] == ["/smsverify", "/smsverify-page"]
