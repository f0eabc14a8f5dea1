"""What differs between the supported versions of Airflow; all other modules are written for the newest.

Airflow 3.x comes with version 1.x of its Task SDK. Each difference names the oldest SDK that is without it:
once that is the floor, the difference may go. Names are looked up when they are first used, since every
component of Airflow imports the plugin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import __version__

if TYPE_CHECKING:
    from airflow.sdk import conf
    from airflow.sdk.bases.decorator import determine_kwargs
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowNotFoundException,
        AirflowRescheduleException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferralError,
        TaskDeferralTimeout,
        TaskDeferred,
        XComNotFound,
    )
    from airflow.sdk.plugins_manager import AirflowPlugin
    from airflow.sdk.serde import deserialize, serialize
    from airflow.triggers.shared_stream import SharedStreamProducer

    Stats: Any  # it is a class of functions, whose types differ

__all__ = [
    "CALLS_ON_KILL",
    "MASKER",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "AirflowRescheduleException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "SharedStreamProducer",
    "Stats",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "TaskDeferred",
    "XComNotFound",
    "ask",
    "conf",
    "deserialize",
    "determine_kwargs",
    "mask_secret",
    "serialize",
    "start_stats",
]

SDK = tuple(int(part) for part in __version__.split(".")[:2])
SDK_PATCH = (*SDK, int("".join(filter(str.isdigit, __version__.split(".")[2])) or 0))

# A name: the oldest SDK that has it in its place of today, that place, and what there is before.
_PLACES = {
    "conf": ((1, 2), "airflow.sdk", "airflow.configuration.conf"),
    "determine_kwargs": (
        (1, 2),
        "airflow.sdk.bases.decorator",
        "airflow.utils.operator_helpers.determine_kwargs",
    ),
    "AirflowPlugin": ((1, 2), "airflow.sdk.plugins_manager", "airflow.plugins_manager.AirflowPlugin"),
    "Stats": ((1, 2), "airflow.sdk.observability.stats", "airflow.stats.Stats"),
    "serialize": ((1, 2), "airflow.sdk.serde", "airflow.serialization.serde.serialize"),
    "deserialize": ((1, 2), "airflow.sdk.serde", "airflow.serialization.serde.deserialize"),
    # Before, a trigger's `run` is all that Airflow calls.
    "SharedStreamProducer": ((1, 3), "airflow.triggers.shared_stream", "builtins.object"),
} | {
    name: ((1, 2), "airflow.sdk.exceptions", f"airflow.exceptions.{name}")
    for name in (
        "AirflowFailException",
        "AirflowNotFoundException",
        "AirflowRescheduleException",
        "AirflowSensorTimeout",
        "AirflowSkipException",
        "AirflowTaskTimeout",
        "TaskDeferralError",
        "TaskDeferralTimeout",
        "TaskDeferred",
        "XComNotFound",
    )
}

# The logger of what masks secrets in a task or a triggerer.
MASKER = "airflow.sdk._shared.secrets_masker.secrets_masker"

# Whether Airflow calls a trigger's `on_kill`. Without it, `SmsVerifyOtpTrigger.cleanup` releases the number.
CALLS_ON_KILL = SDK >= (1, 3)

_Answer = TypeVar("_Answer")


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    since, place, before = _PLACES[name]
    module, _, attribute = (f"{place}.{name}" if since <= SDK else before).rpartition(".")
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


async def ask(question: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Asks Airflow something on a triggerer's event loop, and lets the answer come also after a cancellation.

    Before SDK 1.2.2, a question that is cancelled leaves its answer to the next one: the triggerer ends with
    "Response read out of order". The same befalls a question from another thread, so none asks there.
    """
    if SDK_PATCH >= (1, 2, 2):
        return await question
    return await asyncio.shield(question)


async def mask_secret(secret: Any) -> None:
    """Lets Airflow mask a secret; for a triggerer's event loop."""
    if SDK_PATCH >= (1, 3, 2):
        from airflow.sdk.log import amask_secret

        await amask_secret(secret)
    else:
        # Before, it stays in this process, which writes the logs of triggers.
        from airflow.sdk.log import mask_secret as mask

        mask(secret)


@cache
def start_stats() -> None:
    """Lets `Stats` report in a triggerer and an API server. It never raises: a failure is logged.

    From SDK 1.2 on, Airflow sets up the SDK's `Stats` where a task runs, and its own in these components
    (apache/airflow#69270). Before, `Stats` sets itself up.
    """
    try:
        if SDK >= (1, 2):
            _set_up_stats()
    except Exception as error:
        from smsverify.text import log_of

        log_of(__name__).warning("No metrics are reported from here: %s: %s", type(error).__name__, error)


def _set_up_stats() -> None:
    stats, utils = (
        import_module(f"airflow.sdk.observability.{name}") for name in ("stats", "metrics.stats_utils")
    )
    if SDK < (1, 3):
        stats.Stats.initialize(factory=utils.get_stats_factory(stats.Stats))
    else:
        from airflow.sdk import conf

        names = conf.getboolean("metrics", "legacy_names_on")
        stats.initialize(factory=utils.get_stats_factory(), export_legacy_names=names)
