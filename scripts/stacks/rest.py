"""JSON over HTTP, with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any


class HttpError(RuntimeError):
    """An answer that is no success; the text holds the beginning of its body.

    Attributes:
        status: the answer's status.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Unreachable(ConnectionError):
    """No server answers at that address, or not to the end."""


class Rest:
    """Calls of one server on this machine. No proxy is used.

    Args:
        base_url: goes before every path.
        timeout: seconds for connecting and for each read.

    Attributes:
        token: sent as bearer token where it is set.
    """

    def __init__(self, base_url: str, timeout: float = 30.0) -> None:
        self.base_url = base_url
        self.token: str | None = None
        self._timeout = timeout
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded JSON body of the answer; `None` for an empty one.

        Raises:
            HttpError: the answer is no success.
            Unreachable: there is none.
        """
        request = urllib.request.Request(f"{self.base_url}{path}", method=method)
        request.add_header("Accept", "application/json")
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                excerpt = error.read(2000).decode(errors="replace")
            raise HttpError(f"{method} {path} was answered {error.code}: {excerpt}", error.code) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{method} {self.base_url}{path}: {error}") from None
        return json.loads(content) if content else None

    def get(self, path: str) -> Any:
        """`call` with GET."""
        return self.call("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """`call` with POST."""
        return self.call("POST", path, body)
