"""What callers give to a task: the account, and an order."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import httpx
from prefect.futures import PrefectFuture
from pydantic import ValidationError

from prefect_smsverify.credentials import SmsVerifyCredentials
from prefect_smsverify.threads import result_in_thread
from smsverify.checks import check_order_id, check_order_ids, refuse_left_over
from smsverify.errors import InvalidRequestError, SettingsUnavailableError
from smsverify.models import Order
from smsverify.settings import invalid_setting
from smsverify.wings import load_client

if TYPE_CHECKING:
    from smsverify import SmsVerifyHook


def block_of(credentials: SmsVerifyCredentials | str) -> SmsVerifyCredentials:
    """The block, which a caller may give by its name.

    Raises:
        InvalidRequestError: there is no such block, or the value is neither a block nor a name; `field` is
            "credentials". Or a field of the block has a value that is not allowed; `field` names it.
        SettingsUnavailableError: Prefect's server does not answer.
    """
    if isinstance(credentials, SmsVerifyCredentials):
        return credentials
    _refuse_unfinished(credentials, "credentials")
    if not isinstance(credentials, str):
        raise InvalidRequestError(
            f"credentials is a {type(credentials).__name__}: give a SmsVerifyCredentials block or its name; "
            "with .map, write unmapped(credentials), because Prefect maps over the fields of a block",
            field="credentials",
        )
    refuse_left_over(credentials, "credentials")
    # Without _sync, Prefect guesses from the running task whether to answer with a coroutine.
    load = cast(Any, SmsVerifyCredentials.load)
    try:
        return cast(SmsVerifyCredentials, load(credentials, _sync=True))
    except httpx.HTTPError as error:
        raise SettingsUnavailableError(
            f"the block {credentials!r} cannot be read now ({type(error).__name__}). Nothing was sent; try "
            "again"
        ) from error
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        wrong = invalid_setting(error.__cause__)
        raise InvalidRequestError(
            f"the block {credentials!r} has a wrong value: {wrong}. Nothing was sent. Correct it in "
            "Prefect's UI, or save the block again",
            field=wrong.field,
        ) from None
    except ValueError as error:
        if isinstance(error, InvalidRequestError):
            raise
        raise InvalidRequestError(
            f"credentials {credentials!r}: there is no block of this name and of the type SmsVerify "
            "Credentials. `prefect block ls` lists the saved blocks",
            field="credentials",
        ) from None


async def account_of(credentials: SmsVerifyCredentials | str) -> SmsVerifyCredentials:
    """`block_of` for coroutines."""
    return await result_in_thread(partial(block_of, credentials), "block")


def hook_of(credentials: SmsVerifyCredentials | str) -> SmsVerifyHook:
    """The client of an account that a caller may give by its name. Raises what `block_of` raises."""
    return block_of(credentials).get_hook()


async def ahook_of(credentials: SmsVerifyCredentials | str) -> SmsVerifyHook:
    """`hook_of` for coroutines. It may take a second, because the client is imported when it is needed."""

    def ready() -> SmsVerifyHook:
        hook = hook_of(credentials)
        load_client(hook)
        return hook

    return await result_in_thread(ready, "hook")


def id_of(order: Order | int | str) -> int:
    """The id of an order, or of an `Order`."""
    _refuse_unfinished(order, "order_id")
    return order.order_id if isinstance(order, Order) else check_order_id(order)


def ids_of(orders: Iterable[Order | int | str]) -> list[int]:
    """The ids of several orders, or of `Order`s."""
    _refuse_unfinished(orders, "order_ids")
    if isinstance(orders, Iterable) and not isinstance(orders, (str, bytes, bytearray, memoryview, Mapping)):
        return [id_of(order) for order in orders]
    return list(check_order_ids(orders, "order_ids"))


def _refuse_unfinished(value: object, field: str) -> None:
    """Refuses a coroutine and a future: they stand for a value that is not there yet."""
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise InvalidRequestError(f"{field} is a coroutine: put await before the call", field=field)
    if isinstance(value, PrefectFuture):
        raise InvalidRequestError(f"{field} is a future: take its result()", field=field)
