"""The rooms of a hook's account, made anew on its store: for what no public method does or shows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import SecretStr

from smsverify._parts import Parts
from smsverify._store.store import Store, open_store
from smsverify.hook import SmsVerifyHook
from smsverify.wings import RunContext


def rooms_of(hook: SmsVerifyHook) -> Parts:
    """The rooms as a hook with the same settings puts them together; all of a process share one waiter."""
    return Parts(hook.settings, RunContext())


def store_of(hook: SmsVerifyHook) -> Store:
    """The store that the hook uses."""
    return open_store(hook.settings.store_url.get_secret_value())


def settings_of(hook: SmsVerifyHook) -> dict[str, Any]:
    """What makes a hook with the same settings, in any process."""
    settings = hook.settings
    return {name: _plain(getattr(settings, name)) for name in settings.model_fields_set}


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Decimal):
        return str(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def hold_up(hook: SmsVerifyHook, seconds: float) -> None:
    """Lets no request of the hook's key leave for a while, as a refusal of the service does."""
    rooms_of(hook).rate_limit.block(seconds)


def going_back(hook: SmsVerifyHook) -> list[int]:
    """The orders that are to be given back, by the records."""
    return [row.order_id for row in hook.overview().releases.rows]
