"""Artifacts show people what a run has done. If Prefect's server does not take one, the run goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect import get_run_logger
from prefect.exceptions import MissingContextError, PrefectException

from smsverify.errors import SettingsUnavailableError
from smsverify.text import log_of


@contextmanager
def publishing(what: str) -> Iterator[None]:
    """Logs that something could not be published in a `with` block, and goes on."""
    try:
        yield
    except (PrefectException, httpx.HTTPError, SettingsUnavailableError) as error:
        _logger().warning("%s could not be published (%s). The run goes on.", what, type(error).__name__)


def in_this_thread(publish: Callable[..., Any], *arguments: Any, **artifact: Any) -> Any:
    """Calls a function of Prefect's that publishes. It waits until that is done."""
    # Without _sync, Prefect answers with a coroutine where the run is one, or a run around it.
    return publish(*arguments, **artifact, _sync=True)


def _logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    try:
        return get_run_logger()
    except MissingContextError:  # outside of a run
        return log_of(__name__)
