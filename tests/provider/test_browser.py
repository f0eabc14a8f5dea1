"""The page in Chromium, on a real Airflow whose runs have filled each section.

One Airflow for all tests, and one simulator. With `SMSVERIFY_PICTURES=docs`, the pictures of the
documentation are taken from the same runs.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser_stage import READER, SECRET, Stage, set_stage

from stacks import AirflowStack
from stacks.airflow import USER

# The first test starts everything, on a busy machine perhaps.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 60_000.0  # milliseconds
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
FRAME = "iframe[title=SmsVerify]"
SIZE = {"width": 1280, "height": 900}


# ------------------------------------------------------------------ the browser


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser's program; without it the tests are skipped, but not in CI."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        reason = "Chromium is missing: install it, for instance with `apt-get install chromium`"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return program


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def stage(chromium: str) -> Iterator[Stage]:
    with set_stage() as stage:
        yield stage


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a tab without a login. Each answer has its Content-Security-Policy, and no page breaks a rule of
    it or has an error.
    """
    troubles: list[str] = []

    def note(message: Any) -> None:
        is_ours = message.type == "error" and "/smsverify-page/page." in message.location["url"]
        if is_ours or "Content Security Policy" in message.text:
            troubles.append(f"{message.location['url']}: {message.text}")

    def note_error(error: Any) -> None:
        if "/smsverify-page/" in (error.stack or ""):
            troubles.append(error.stack)

    def note_answer(answer: Any) -> None:
        rules = answer.headers.get("content-security-policy", "")
        # Airflow has pages of its own below /plugin/.
        is_ours = "/smsverify-page/" in answer.url and "/plugin/" not in answer.url
        if is_ours and "default-src 'none'; script-src 'self'" not in rules:
            troubles.append(f"{answer.url}: {rules or 'no Content-Security-Policy'}")

    def new_page() -> Any:
        context = browser.new_context(viewport=SIZE)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", note_error)
        page.on("response", note_answer)
        return page

    contexts: list[Any] = []
    yield new_page
    for context in contexts:
        context.close()
    assert not troubles


def log_in(page: Any, airflow: AirflowStack, user: str = USER) -> None:
    """Logs in at Airflow's own form, where the page is by now."""
    passwords = json.loads((airflow.home / "passwords.json").read_text())
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").first.fill(passwords[user])
    page.keyboard.press("Enter")


@pytest.fixture
def page(new_page: Callable[..., Any], stage: Stage) -> Any:
    """A tab with our page, of a user who has logged in and may see all."""
    page = new_page()
    open_page(page, stage.airflow)
    return page


def open_page(page: Any, airflow: AirflowStack, address: str | None = None) -> None:
    url = address or airflow.url
    page.context.add_cookies([{"name": "_token", "value": airflow.rest.token, "url": url}])
    page.goto(f"{url}/plugin/smsverify")
    view(page).get_by_role("heading", name="Waiting now").wait_for()


def view(page: Any) -> Any:
    """Our page, in the frame that Airflow shows it in, for what is waited for."""
    return page.frame_locator(FRAME)


def source_of(page: Any) -> str:
    """All that our page holds, seen or not, as soon as it is there: Airflow may put up the frame again."""
    return str(view(page).locator("main").evaluate("(main) => main.ownerDocument.documentElement.outerHTML"))


def inside(page: Any) -> Any:
    """The same, for scripts."""
    return page.locator(FRAME).element_handle().content_frame()


# ------------------------------------------------------------------ what a user does and sees


def test_a_user_opens_the_page_from_the_menu_and_sees_each_section_filled(
    new_page: Callable[..., Any], stage: Stage
) -> None:
    page = new_page()
    page.goto(f"{stage.airflow.url}/")
    log_in(page, stage.airflow)
    page.get_by_role("button", name="Browse").click()
    page.get_by_text("SmsVerify", exact=True).click()
    view(page).get_by_role("heading", name="Waiting now").wait_for()
    shown, seen = view(page).locator("body").inner_text(), stage.hook.overview()
    assert [view(page).locator("select").input_value(), "sign-ups"] == ["smsverify_default", seen.account]
    for need in seen.needs.rows:
        assert need.text in shown
        assert need.command in shown
    ids = [row.order_id for section in (seen.waits, seen.releases, seen.rentals) for row in section.rows]
    assert len(ids) == 5
    for order_id in ids:
        assert str(order_id) in shown
    for word in (
        "healthy",
        "1 refused (last",
        "no account has this secret",
        "too expensive",
        "renewed",
        "code arrived",
        "unknown",
        "of 40.00 USD",
        "of 60",
        "Delivery",
    ):
        assert word in shown
    source = source_of(page)
    assert "Waiting now" in source
    came = [order for order in stage.simulator.control().orders() if order.otp]
    texts = [text for order in came for text in (str(order.otp), str(order.message))]
    assert texts
    for secret in (SECRET, stage.hook.settings.api_key.get_secret_value(), *texts):
        # A code's digits may stand in a longer number.
        assert not re.search(rf"\b{re.escape(secret)}\b", source + page.content())


def test_the_links_lead_to_the_task_and_from_the_task_to_the_order(page: Any, stage: Stage) -> None:
    wait = stage.hook.overview().waits.rows[0]
    row = view(page).locator("[aria-labelledby=waits] tr", has_text=str(wait.order_id))
    row.get_by_role("link", name=wait.task.as_text()).click()
    page.wait_for_url(re.compile(r"/dags/provision_many/runs/.+/tasks/account\.wait_for_code/mapped/\d$"))
    follow_the_link_to_the_order(page)
    target = view(page).locator("tr.target")
    target.wait_for()
    assert target.get_attribute("id") == f"order-{wait.order_id}"
    assert inside(page).evaluate(IN_SIGHT)


def follow_the_link_to_the_order(page: Any) -> None:
    """Where Airflow shows a task instance."""
    details = page.get_by_role("link", name="Details", exact=True)
    details.or_(page.get_by_role("tab", name="Details", exact=True)).first.click()
    page.get_by_role("link", name="Order", exact=True).click()


IN_SIGHT = """() => {
  const row = document.querySelector("tr.target").getBoundingClientRect();
  return row.top >= 0 && row.bottom <= innerHeight;
}"""


def test_it_wears_what_airflow_wears_and_axe_finds_nothing_serious(page: Any, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    pictures = Path(os.environ.get("SMSVERIFY_PICTURES", tmp_path))
    grounds = set()
    for mode, picture in (("Light", "page.png"), ("Dark", "page-dark.png")):
        page.get_by_role("button", name="User").click()
        page.get_by_role("menuitem", name="Appearance").hover()
        page.get_by_role("menuitemradio", name=f"{mode} Mode").click()
        view(page).locator(f"html.{mode.lower()}").wait_for()
        grounds.add(inside(page).evaluate("getComputedStyle(document.body).backgroundColor"))
        found = Axe().run(inside(page)).response["violations"]
        assert [one for one in found if one["impact"] in ("serious", "critical")] == []
        page.keyboard.press("Escape")
        height = inside(page).evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size(SIZE | {"height": height + 16})
        page.mouse.move(0, 0)
        page.screenshot(path=pictures / picture)
    assert len(grounds) == 2


def test_it_serves_a_keyboard_and_half_a_screen(page: Any, stage: Stage) -> None:
    page.set_viewport_size({"width": 900, "height": 900})
    assert inside(page).evaluate(TOO_WIDE) == []
    wanted = view(page).locator("a, select, code.copy").all_text_contents()
    view(page).locator("h1").click()
    for text in wanted:
        page.keyboard.press("Tab")
        assert inside(page).evaluate(FOCUSED) == [text, "solid"]
    commands = [need.command for need in stage.hook.overview().needs.rows]
    view(page).locator("code.copy").first.focus()
    assert inside(page).evaluate("String(getSelection())") == commands[0]


def test_it_serves_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert inside(page).evaluate(TOO_WIDE.replace(".wide", ".alert .wide")) == []
    assert inside(page).evaluate(TALL_ROWS) == []


FOCUSED = """() => {
  const focused = document.activeElement;
  return [focused.textContent, getComputedStyle(focused).outlineStyle];
}"""
TALL_ROWS = """() => [...document.querySelectorAll("section:not(.alert) tbody tr")]
  .filter((one) => one.offsetHeight > 40).map((one) => one.innerText)"""
TOO_WIDE = """() => [...document.querySelectorAll("html, .wide")]
  .filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.outerHTML.slice(0, 300))"""


def test_who_may_not_read_connections_sees_no_account(new_page: Callable[..., Any], stage: Stage) -> None:
    page = new_page()
    page.goto(f"{stage.airflow.url}/plugin/smsverify")
    log_in(page, stage.airflow, READER)
    view(page).get_by_role("alert").wait_for()
    shown = source_of(page)
    assert "may not read connections" in shown
    for word in ("sign-ups", "smsverify_default", "<table", "USD"):
        assert word not in shown


def expect_login(page: Any) -> None:
    """Returns when the browser shows the login. Airflow may break off a navigation on the way there."""
    from playwright.sync_api import expect

    expect(page).to_have_url(re.compile(r"/auth/login"), timeout=30_000)


def test_a_browser_without_a_login_gets_airflows_and_a_program_gets_401(
    new_page: Callable[..., Any], stage: Stage
) -> None:
    page = new_page()
    for path in ("plugin/smsverify", "smsverify-page/"):
        page.goto(f"{stage.airflow.url}/{path}")
        expect_login(page)
        page.get_by_label("Username").wait_for()
    assert page.context.request.get(f"{stage.airflow.url}/smsverify-page/").status == 401
    log_in(page, stage.airflow)
    view(page).get_by_role("heading", name="Waiting now").wait_for()
    page.context.clear_cookies()
    # The next look finds the login ended.
    expect_login(page)


def test_it_works_below_a_path_and_behind_a_proxy(new_page: Callable[..., Any], stage: Stage) -> None:
    with proxy("/data/airflow") as (server, address):
        behind = stage.api_server_at("/data/airflow", address)
        server.port = behind.port
        behind.migrate()
        behind.start(["api-server"])
        behind.wait_until_ready()
        page = new_page()
        open_page(page, behind, address)
        assert inside(page).evaluate("getComputedStyle(document.body).paddingLeft") == "22px"
        page.get_by_role("button", name="Browse").click()
        icon = page.locator("img[src*='smsverify-page/icon']")
        assert icon.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }")
        page.keyboard.press("Escape")
        view(page).locator("[aria-labelledby=waits] a[data-airflow]").first.click()
        page.wait_for_url(f"{address}/dags/provision_many/runs/**/tasks/account.wait_for_code/mapped/*")
        follow_the_link_to_the_order(page)
        view(page).locator("tr.target").wait_for()
        assert page.url.startswith(f"{address}/plugin/smsverify")
        page.reload()
        view(page).locator("tr.target").wait_for()
        page.context.clear_cookies()
        page.goto(f"{address}/smsverify-page/")
        page.get_by_label("Username").wait_for()
        assert page.url.startswith(f"{address}/auth/login")
        behind.stop()


@contextmanager
def proxy(path: str) -> Iterator[tuple[Any, str]]:
    """A reverse proxy for a path, which passes on the whole path, as Airflow wants it; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, f"http://127.0.0.1:{server.server_port}{path}"
        server.shutdown()


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)  # type: ignore[attr-defined]
        connection.request(self.command, self.path, body, dict(self.headers) | {"Connection": "close"})
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def test_it_stays_up_to_date_by_itself(page: Any, stage: Stage) -> None:
    wait = stage.hook.overview().waits.rows[0]
    inside(page).evaluate("document.loaded = 1")
    view(page).locator("#refresh").focus()
    stage.simulator.control().deliver_sms(wait.order_id)
    row = view(page).locator(f"#order-{wait.order_id}", has_text="code arrived")
    row.wait_for()
    assert inside(page).evaluate("[document.loaded, document.activeElement.id]") == [1, "refresh"]
