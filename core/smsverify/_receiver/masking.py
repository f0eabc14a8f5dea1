"""Takes the secrets of callback URLs out of what is logged of a request, however its address is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

STARS = "***"
# What stands where a secret would.
_AFTER_CALLBACK = re.compile(r"(callback/+)(?!wallet/?$)[^/]+", re.IGNORECASE)
_LAYERS = 4  # of percent-encoding that are taken off


def mask(scope: MutableMapping[str, Any], secrets: Iterable[str]) -> MutableMapping[str, Any]:
    """Masks path, raw path and query of an ASGI scope in place: a request is logged when it is over.

    Args:
        scope: the scope, as the server or a middleware handed it over.
        secrets: those that are known; what stands behind `callback/` is masked in any case.

    Returns:
        the scope as it was, for the app that is to answer.
    """
    before = dict(scope)
    known = [secret for secret in secrets if secret]
    path, raw = scope.get("path"), scope.get("raw_path")
    for written in (path, raw.decode("latin-1") if isinstance(raw, bytes) else None):
        if written is not None and (masked := _masked(written, known)) != written:
            scope["path"], scope["raw_path"] = masked, quote(masked, safe="/*").encode()
            break
    query = (scope.get("query_string") or b"").decode("latin-1")
    if (masked := _masked(query, known)) != query:
        scope["query_string"] = quote(masked, safe="/*=&").encode()
    return before if scope != before else scope


def _masked(text: str, secrets: list[str]) -> str:
    """The text with stars; unchanged, encoding and all, where nothing in it is to be masked."""
    plain = text
    for _ in range(_LAYERS):
        hidden = _hide(plain, secrets)
        if hidden != plain:
            return hidden
        plain = unquote(plain)
    return text


def _hide(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        if secret.casefold() in text.casefold():
            text = re.sub(re.escape(secret), STARS, text, flags=re.IGNORECASE)
    return _AFTER_CALLBACK.sub(rf"\1{STARS}", text)
