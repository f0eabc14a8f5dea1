"""The page in Airflow's UI: behind Airflow's login and roles, with no secret, and the hook's own figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.filled import SETTINGS, SIMULATOR, filled

from smsverify._parts import Parts
from smsverify.overview import Task
from smsverify_provider.runs import AirflowRun

HTML = {"Accept": "text/html"}
CODE = "545123"
# What the strict policy forbids, and what comes from elsewhere.
FORBIDDEN = r"<script(?! src=\"page\.js\" defer></script>)|<style|\sstyle=|\son\w+=|https?://"


@pytest.fixture
def connection(connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    connection["extra"]["daily_budget"] = 5
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    return connection


@pytest.fixture
def api(session: Any, connection: dict[str, Any]) -> Iterator[Any]:
    """A client of the API server, which has logged in nowhere."""
    from airflow.api_fastapi.app import create_app, purge_cached_app
    from fastapi.testclient import TestClient

    purge_cached_app()
    with TestClient(create_app(), raise_server_exceptions=False, follow_redirects=False) as client:
        yield client
    purge_cached_app()


def as_user(role: str) -> dict[str, str]:
    """The headers of a user who has logged in with this role."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=role, role=role))
    return {"Cookie": f"_token={token}", **HTML}


def test_without_a_login_nothing_is_shown_and_a_browser_gets_airflows_login(api: Any, hook: Any) -> None:
    order = hook.order("temporary", service="WhatsApp")
    for path in ("/", "/?connection=smsverify_default", "/page.css", "/page.js", "/icon.svg"):
        answer = api.get(f"/smsverify-page{path}")
        assert answer.status_code == 401, path
        assert str(order.order_id) not in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    answer = api.get("/smsverify-page/", headers=HTML)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("../api/v2/auth/login?next=")
    assert answer.headers["location"].endswith("%2Fplugin%2Fsmsverify")
    assert api.get(f"/smsverify-page/{answer.headers['location']}").status_code == 307
    # The page's own script asks for what it can show.
    assert api.get("/smsverify-page/", headers={**HTML, "Sec-Fetch-Mode": "cors"}).status_code == 401


@pytest.mark.parametrize("role", ["VIEWER", "USER"])
def test_who_may_not_read_connections_sees_no_account(api: Any, hook: Any, role: str) -> None:
    order = hook.order("temporary", service="WhatsApp")
    for query in ("", "?connection=smsverify_default"):
        answer = api.get(f"/smsverify-page/{query}", headers=as_user(role))
        assert answer.status_code == 403
        assert str(order.order_id) not in answer.text
        assert hook.settings.account_id not in answer.text
        assert "smsverify_default" not in answer.text


def test_who_may_sees_the_account_with_links_to_the_tasks_and_no_secret(
    api: Any, hook: Any, sim: Any, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: dict[str, str | int] = {
        "dag_id": "provision", "run_id": "manual__2026-11-30T01:00:00+00:00", "task_id": "a.order",
        "map_index": 3,
    }  # fmt: skip
    task = Task(framework="airflow", workflow="provision", name="a.order[3]", ids=ids)
    monkeypatch.setattr(AirflowRun, "task", lambda _: task)
    order = hook.order("temporary", service="WhatsApp")
    sim.deliver_sms(order.order_id, otp=CODE)
    hook.wait_for_otp(order.order_id, 30)
    requests = sim.stats().requests
    answer = api.get("/smsverify-page/", headers=as_user("OP"))
    assert answer.status_code == 200
    assert sim.stats().requests == requests
    text = answer.text
    assert f'<tr id="order-{order.order_id}">' in text
    assert "code arrived" in text
    assert f"{hook.overview().spend.amount:.2f}" in text
    href = "../dags/provision/runs/manual__2026-11-30T01%3A00%3A00%2B00%3A00/tasks/a.order/mapped/3"
    assert f'<a data-airflow href="{href}">provision · a.order[3]</a>' in text
    assert '<option value="smsverify_default" selected>' in text
    for secret in (CODE, connection["password"]):
        assert secret not in text
    assert not re.search(FORBIDDEN, text)
    for name in ("page.css", "page.js", "icon.svg", "icon-dark.svg"):
        assert api.get(f"/smsverify-page/{name}", headers=as_user("OP")).status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]


@pytest.mark.smsverify_simulator(**SIMULATOR)
def test_it_shows_the_figures_that_each_face_shows(
    api: Any, sim: Any, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

    connection["extra"] |= SETTINGS
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    with filled(SmsVerifyHook(), sim, monkeypatch) as account:
        text = api.get("/smsverify-page/", headers=as_user("OP")).text
    # On the page a command stands below what is known, before the task.
    text = re.sub(r"(<code class=\"copy\".*?</code>)(.*?)(</tr>)", r"\2 \1\3", text)
    # A row of a table, a card and a heading are a line each, without their tags.
    lines = re.findall(r'<tr.*?</tr>|<div class="card">.*?</div>|<h2.*?</h2>', text, re.DOTALL)
    assert account.missing_in(re.sub(r"<[^>]*>", " ", line) for line in lines) == []
    for secret in account.secrets:
        assert secret not in text


def test_an_account_without_a_number_is_told_how_to_begin(api: Any, hook: Any) -> None:
    text = api.get("/smsverify-page/", headers=as_user("OP")).text
    assert "<code>smsverify simulate</code>" in text
    (example,) = re.findall(r"example_dags/\w+\.py", text)
    assert (Path(__file__).parents[2] / example).is_file()
    assert "No number is rented" not in text
    assert not re.search(FORBIDDEN, text)
    hook.order("temporary", service="WhatsApp")
    assert "To begin" not in api.get("/smsverify-page/", headers=as_user("OP")).text


def test_what_comes_from_outside_is_text_and_no_markup(api: Any, hook: Any, rooms: Parts) -> None:
    order = hook.order("temporary", service="WhatsApp")
    with rooms.store.write() as connection:
        rooms.orders.records.update(connection, order.order_id, service="<script>alert(1)</script>")
    text = api.get("/smsverify-page/", headers=as_user("OP")).text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_a_connection_that_is_not_there_or_does_not_work_is_said(
    api: Any, connection: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api.get("/smsverify-page/?connection=other", headers=as_user("OP")).status_code == 403
    (tmp_path / "file").touch()
    connection["extra"]["store_url"] = f"sqlite:///{tmp_path}/file/store.db"
    monkeypatch.setenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT", json.dumps(connection))
    answer = api.get("/smsverify-page/", headers=as_user("OP"))
    assert answer.status_code == 503
    assert "file/store.db" in answer.text
    monkeypatch.delenv("AIRFLOW_CONN_SMSVERIFY_DEFAULT")
    answer = api.get("/smsverify-page/", headers=as_user("OP"))
    assert answer.status_code == 200
    assert "Admin → Connections" in answer.text
    assert "callback_conn_ids" in answer.text


def test_where_airflows_checks_cannot_be_imported_nothing_is_shown(
    api: Any, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ImportError("no requires_access_view")

    monkeypatch.setattr("smsverify_provider.plugin._page", fail)
    answer = api.get("/smsverify-page/", headers=as_user("OP"))
    assert answer.status_code == 503
    assert hook.settings.account_id not in answer.text


def test_airflow_lists_the_page_in_its_menu(api: Any) -> None:
    (plugin,) = [
        one
        for one in api.get("/api/v2/plugins", headers=as_user("ADMIN")).json()["plugins"]
        if one["name"] == "smsverify"
    ]
    (view,) = plugin["external_views"]
    assert (view["name"], view["category"], view["url_route"]) == ("SmsVerify", "browse", "smsverify")
    assert not view["href"].startswith("/")


def test_a_task_links_to_its_order(hook: Any, run_task: Any) -> None:
    from smsverify_provider.links import SmsVerifyOrderLink
    from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator

    operator = SmsVerifyOrderOperator(task_id="order", product="temporary", service="WhatsApp")
    link = SmsVerifyOrderLink()
    assert link.get_link(operator, ti_key=None) == ""  # type: ignore[arg-type]
    assert [one.name for one in operator.operator_extra_links] == ["Order"]
    operator._order_id = 17
    address = "plugin/smsverify?connection=smsverify_default#order-17"
    assert link.get_link(operator, ti_key=None) == address  # type: ignore[arg-type]


def test_a_task_that_buys_is_on_record_with_its_names(hook: Any, run_task: Any) -> None:
    from smsverify_provider.operators.smsverify import SmsVerifyOrderOperator

    run_task(SmsVerifyOrderOperator(task_id="order", product="temporary", service="WhatsApp"))
    (row,) = hook.overview().orders.rows
    assert row.task.framework == "airflow"
    assert row.task.ids["task_id"] == "order"
    assert row.task.name == "order"
    assert row.task.workflow == row.task.ids["dag_id"]
