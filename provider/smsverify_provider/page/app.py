"""The page as a FastAPI app, behind Airflow's own authentication and authorization.

The app is mounted in Airflow's API server, which protects no mounted app by itself. So each of its answers,
its style and its script too, depends on `requires_access_view`, and an account is shown only to a user who
may read its connection. A browser without a login is sent to Airflow's login page; anything else gets 401.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from airflow.configuration import conf
from airflow.models.connection import Connection
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import select
from starlette.exceptions import HTTPException

from smsverify import overview_tables as words
from smsverify.errors import SmsVerifyError
from smsverify.overview import Overview
from smsverify.text import log_of
from smsverify.wings import Task
from smsverify_provider.hooks.smsverify import SmsVerifyHook

log = log_of(__name__)

# Nothing but what this app itself serves is loaded, and only Airflow may frame the page.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
# Relative, so that they hold under a base path and behind a proxy.
LOGIN = "../api/v2/auth/login?next="
PAGE_IN_AIRFLOW = "plugin/smsverify"

_templates = Environment(
    loader=PackageLoader("smsverify_provider.page", "."), autoescape=True, undefined=StrictUndefined
)

app = FastAPI(
    dependencies=[Depends(requires_access_view(AccessView.PLUGINS))],
    openapi_url=None,
    docs_url=None,
    redoc_url=None,
)


@app.exception_handler(HTTPException)
async def refuse(request: Request, error: HTTPException) -> Response:
    """Sends a browser to the login; anything else gets the error."""
    is_page = request.headers.get("sec-fetch-mode", "navigate") == "navigate"
    if error.status_code == 401 and is_page and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{LOGIN}{quote(_airflow(PAGE_IN_AIRFLOW), safe='')}", 303, headers=HEADERS)
    answer = await http_exception_handler(request, error)
    answer.headers.update(HEADERS)
    return answer


@app.get("/")
def show(user: GetUserDep, connection: Annotated[str | None, Query()] = None) -> Response:
    """The page of one connection; of the first one by default."""
    names = _readable(user)
    if not names and _is_allowed(user):
        return _page(200, names=names, trouble=NOTHING)
    if not names or (connection is not None and connection not in names):
        what = "this connection" if names else "connections"
        return _page(403, names=names, trouble=f"Your role in Airflow may not read {what}.")
    name = connection or names[0]
    hook = SmsVerifyHook(name)
    try:
        seen = hook.overview()
    except SmsVerifyError as error:
        return _page(503, names=names, name=name, trouble=str(error))
    except Exception as error:
        # The text of an error that is not ours could quote anything.
        log.exception("The overview of the connection %r cannot be made", name)
        return _page(503, names=names, name=name, trouble=f"{type(error).__name__}; see the API server's log")
    return _page(200, names=names, name=name, seen=seen)


NOTHING = (
    "There is no connection of type SmsVerify that your role in Airflow may read. You make one under Admin → "
    "Connections. One that comes from the environment or from a secrets backend is shown only if the option "
    "[smsverify] callback_conn_ids names it."
)


@app.get("/page.css")
def style() -> Response:
    """The page's style."""
    return Response(_file("page.css"), media_type="text/css", headers=HEADERS)


@app.get("/page.js")
def script() -> Response:
    """The page's script."""
    return Response(_file("page.js"), media_type="text/javascript", headers=HEADERS)


@app.get("/icon.svg")
@app.get("/icon-dark.svg")
def icon(request: Request) -> Response:
    """The icon in Airflow's menu."""
    colour = "#cbd5e1" if request.url.path.endswith("dark.svg") else "#334155"
    image = _file("icon.svg").replace("currentColor", colour)
    return Response(image, media_type="image/svg+xml", headers=HEADERS)


# ------------------------------------------------------------------ whose accounts


def _readable(user: Any) -> list[str]:
    """The connections of the type that a user may read, by name."""
    manager = get_auth_manager()
    with create_session() as session:
        rows = session.execute(select(Connection.conn_id, Connection.conn_type)).all()
    kept = {conn_id for conn_id, kind in rows if kind == SmsVerifyHook.conn_type}
    found = kept & manager.get_authorized_connections(user=user, method="GET")
    # Those of the environment and of secrets backends cannot be listed, so they are known by their names.
    named = conf.get("smsverify", "callback_conn_ids", fallback=SmsVerifyHook.default_conn_name)
    elsewhere = {name.strip() for name in named.split(",") if name.strip()} - {conn_id for conn_id, _ in rows}
    allowed = manager.filter_authorized_connections(conn_ids=elsewhere, user=user, method="GET")
    return sorted(found | {name for name in allowed if _exists(name)})


def _is_allowed(user: Any) -> bool:
    return get_auth_manager().is_authorized_connection(method="GET", user=user)


def _exists(name: str) -> bool:
    try:
        return bool(SmsVerifyHook(name).settings)
    except SmsVerifyError:
        return False


# ------------------------------------------------------------------ what it looks like


def _page(
    status: int, *, names: list[str], name: str = "", seen: Overview | None = None, trouble: str = ""
) -> HTMLResponse:
    text = _templates.get_template("page.html").render(
        names=names,
        name=name,
        seen=seen,
        trouble=trouble,
        words=words,
        link=link,
    )
    return HTMLResponse(text, status, headers=HEADERS)


def link(task: Task | None) -> str | None:
    """Where Airflow shows a task instance; `None` for a task of another framework."""
    if task is None or task.framework != "airflow":
        return None
    ids = {name: quote(str(value), safe="") for name, value in task.ids.items()}
    path = f"../dags/{ids['dag_id']}/runs/{ids['run_id']}/tasks/{ids['task_id']}"
    return path if task.ids["map_index"] == -1 else f"{path}/mapped/{ids['map_index']}"


def _airflow(path: str) -> str:
    return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/{path}"


@cache
def _file(name: str) -> str:
    return files("smsverify_provider.page").joinpath(name).read_text(encoding="utf-8")
