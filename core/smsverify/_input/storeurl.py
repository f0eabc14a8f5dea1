"""Which database a store URL names, and how to show one without its secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from smsverify.text import printable

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

KNOWN = (
    "sqlite:////<absolute path of a file> or postgresql+psycopg://<user>:<password>@<host>/<database>, with "
    "@ : / in the password written %40 %3A %2F"
)
# What a query may say that is no secret.
_PUBLIC = frozenset(
    {"host", "port", "user", "sslmode", "sslrootcert", "application_name", "connect_timeout", "options"}
    | {"target_session_attrs", "gssencmode", "channel_binding", "service"}
)
_SECRET = re.compile("pass|key|secret|token", re.IGNORECASE)
_ENCODED = re.compile("%[0-9A-Fa-f]{2}")
_HIDDEN = "***"


def checked(text: str) -> str:
    """The URL, where it names the same database for all who have it.

    Raises:
        ValueError: it does not; says what it must be, and shows no secret.
    """
    text = text.strip()  # a file of secrets ends with a newline, and so would the name of the file
    url = _parsed(text)
    if url is None:
        raise ValueError(f"must be {KNOWN}")
    _check_spelling(text, is_file=url.drivername == "sqlite")
    if url.drivername == "sqlite":
        _check_file(url)
    elif url.drivername == "postgresql+psycopg":
        _check_server(url)
    else:
        raise ValueError(f"must be {KNOWN}")
    return text


def shown(text: str) -> str:
    """The URL for people: without a secret, also where it cannot be understood."""
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        return _HIDDEN
    url = _parsed(text)
    if url is not None and url.drivername == "sqlite" and rest.startswith("/"):
        return printable(f"sqlite:///{url.database}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # A password with an @ or a / in it looks like the host or the path.
    if url is None or rest.count("@") != authority.count("@") or authority.count("@") > 1:
        return f"{printable(scheme)}://{_HIDDEN}"
    query = "&".join(
        f"{name}={quote(value, safe='/:,') if name in _PUBLIC else _HIDDEN}" for name, value in _query(url)
    )
    base = url.set(query={}).render_as_string(hide_password=True)
    return printable(base + (f"?{query}" if query else ""))


def secrets_of(text: str) -> list[str]:
    """What must be in no text: the password, however it is written, and those in the query."""
    url = _parsed(text)
    if url is None:
        return []
    secrets = [] if url.password is None else [str(url.password)]
    secrets += [value for name, value in _query(url) if _SECRET.search(name)]
    written = [quote(secret, safe="") for secret in secrets]
    return sorted({secret for secret in secrets + written if secret}, key=len, reverse=True)


def without_secrets(message: str, text: str) -> str:
    """A message of the database's driver, without the secrets of the URL."""
    for secret in secrets_of(text):
        message = message.replace(secret, _HIDDEN)
    return printable(message)


def _parsed(text: str) -> URL | None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(text.strip())
    except (ArgumentError, ValueError):
        return None


def _query(url: URL) -> Iterator[tuple[str, str]]:
    for name, value in url.query.items():
        for one in (value,) if isinstance(value, str) else value:
            yield name, one


def _check_spelling(text: str, *, is_file: bool) -> None:
    """SQLAlchemy 2.1 decodes the name and 2.0 does not: two environments would mean two databases by it."""
    name = text.partition("://")[2].partition("?")[0]
    if not is_file:
        name = name.rpartition("@")[2]
    name = name.partition("/")[2]
    if not _ENCODED.search(name):
        return
    if is_file:
        raise ValueError(
            f"must have the absolute path of the file as it is, without %-codes{_suggestion(unquote(name))}"
        )
    raise ValueError("must have the name of the database as it is, without %-codes")


def _check_file(url: URL) -> None:
    path = url.database or ""
    has_more = any((url.host, url.username, url.password, url.port, url.query))
    if has_more or not path or path == ":memory:" or "\0" in path:
        raise ValueError(f"must be {KNOWN}")
    if not os.path.isabs(path):
        raise ValueError(
            "must name the file by its absolute path, which is the same in every working directory"
            f"{_suggestion(path)}"
        )
    if path.endswith("/"):
        raise ValueError(f"must name a file, not the directory {printable(path)}")


def _suggestion(path: str) -> str:
    """The URL that was meant perhaps."""
    if path.startswith("file:"):
        path = re.sub(r"^file:/*", "/", path)
    elif path.startswith("~"):
        path = os.path.expanduser(path)
    elif re.match(r"[A-Za-z]:", path):
        return ": sqlite:////<path>"
    path = os.path.abspath(path)
    return f": sqlite:///{printable(path)}, if that is meant"


def _check_server(url: URL) -> None:
    if not url.database:
        raise ValueError(f"must be {KNOWN}")
    if not url.host and "host" not in url.query:
        # PGHOST would name it, for each process another one.
        raise ValueError(f"must name the host of the database: {KNOWN}")
    if "@" in (url.host or "") or "password" in url.query:
        raise ValueError(f"must be {KNOWN}, with the password in its place")


def path_of(url: Any) -> Path:
    """The file of a SQLite store: one name for all spellings of it, whatever symbolic links are in them."""
    return Path(os.path.realpath(str(url.database)))
