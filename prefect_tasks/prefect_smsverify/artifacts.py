"""Artifacts show people what a run has done. If Prefect's server does not take one, the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect import get_run_logger
from prefect.exceptions import PrefectException

from smsverify.errors import SettingsUnavailableError


@contextmanager
def publishing(what: str) -> Iterator[None]:
    """Logs that something could not be published in a `with` block, and goes on."""
    try:
        yield
    except (PrefectException, httpx.HTTPError, SettingsUnavailableError) as error:
        get_run_logger().warning(
            "%s could not be published (%s). The run goes on.", what, type(error).__name__
        )
