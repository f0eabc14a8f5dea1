"""What the integrations with a framework build on, beside the hook. Pipelines do not need it.

The wings import public modules only. This module names what they share with the core's rooms, and what only
they need; it is documented where it is defined.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

from smsverify.checks import check_key, check_order_id, check_reason, check_seconds, check_waiter
from smsverify.errors import NO_CODE

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from smsverify._input.phones import phone_digits
    from smsverify._input.storeurl import secrets_of
    from smsverify._input.values import own_type
    from smsverify._orders.handover import Handover
    from smsverify._orders.holding import Held
    from smsverify._purchases.attempts import Series
    from smsverify._purchases.run_context import RunContext
    from smsverify._receiver.masking import mask
    from smsverify._runtime.forking import ProcessLock
    from smsverify._runtime.loop_threads import LoopThreads
    from smsverify._runtime.outages import Outages
    from smsverify._runtime.properties import cached_property
    from smsverify._runtime.tasks import Task
    from smsverify._runtime.threads import result_of
    from smsverify._service.places import Place, TurnIsFar, leaving_queue
    from smsverify._waiting.subscriptions import Batch, Subscription
    from smsverify.hook import SmsVerifyHook
    from smsverify.models import Message
    from smsverify.options import MessageOptions

__all__ = [
    "NO_CODE",
    "Batch",
    "Handover",
    "Held",
    "LoopThreads",
    "Outages",
    "Place",
    "ProcessLock",
    "RunContext",
    "Series",
    "Subscription",
    "Task",
    "TurnIsFar",
    "assign_messages",
    "attempts_of",
    "cached_property",
    "claim",
    "is_taken_from",
    "is_taken_over",
    "is_worth_keeping",
    "keep_place",
    "leaving_queue",
    "load_client",
    "log_wait",
    "mask",
    "missing_code",
    "own_type",
    "phone_digits",
    "plan_release",
    "result_of",
    "secrets_of",
    "signed_like",
    "store_name",
    "store_time",
    "withdraw_release",
]

_Call = TypeVar("_Call", bound=Callable[..., Any])

# Each is loaded when it is first used: a Dag file that names an operator needs none of the client.
_HOMES = {
    "Batch": "_waiting.subscriptions",
    "Handover": "_orders.handover",
    "Held": "_orders.holding",
    "LoopThreads": "_runtime.loop_threads",
    "Outages": "_runtime.outages",
    "Place": "_service.places",
    "ProcessLock": "_runtime.forking",
    "cached_property": "_runtime.properties",
    "RunContext": "_purchases.run_context",
    "Series": "_purchases.attempts",
    "Subscription": "_waiting.subscriptions",
    "Task": "_runtime.tasks",
    "TurnIsFar": "_service.places",
    "leaving_queue": "_service.places",
    "mask": "_receiver.masking",
    "own_type": "_input.values",
    "phone_digits": "_input.phones",
    "result_of": "_runtime.threads",
    "secrets_of": "_input.storeurl",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"smsverify.{_HOMES[name]}"), name)


def attempts_of(
    hook: SmsVerifyHook, product: str, limit: int, **purchase: Any
) -> contextlib.AbstractContextManager[Series]:
    """The attempts of `SmsVerifyHook.attempts`, number by number, for a task that does not wait itself."""
    return hook._parts.checkout.attempts(product, limit, **purchase)


def load_client(hook: SmsVerifyHook) -> None:
    """Loads what the first call of a hook loads, for a program whose event loop must not do that. What only
    requests need is loaded in the thread of the first one.

    Raises:
        InvalidRequestError: a setting is not allowed.
    """
    _ = hook._parts


def keep_place(hook: SmsVerifyHook, place: Place, *, lead: float) -> Future[None]:
    """Keeps a place in the queue for a task that is away.

    Args:
        hook: on the account.
        place: as `TurnIsFar` has named it.
        lead: seconds before its turn at which the task should come back.

    Returns:
        a future that is done then. If the task does not come within ten seconds, the next one has the
        turn.
    """
    return hook._parts.keeper.keep(place, lead)


def claim(hook: SmsVerifyHook, order_id: int | str, waiter: str) -> None:
    """Records who waits for an order from now on, so that an earlier waiter does not give it back."""
    hook._parts.orders.handover.claim(hook._named(order_id), check_key(waiter, "waiter"))


def is_taken_from(hook: SmsVerifyHook, order_id: int | str, waiter: str) -> bool:
    """Whether another waiter than this one has claimed an order meanwhile; `waiter` as for `plan_release`."""
    return hook._parts.orders.handover.is_taken_from(check_order_id(order_id), check_key(waiter, "waiter"))


def is_taken_over(hook: SmsVerifyHook, order_id: int | str, holder: str) -> bool:
    """Whether a newer call than `holder` has got an order by its key: no wait for the older one claims it."""
    return hook._parts.orders.handover.is_taken_over(check_order_id(order_id), holder)


def is_worth_keeping(hook: SmsVerifyHook, order_id: int, seconds: float) -> bool:
    """Whether a further try that begins within some seconds may still get the code of an order."""
    return hook._parts.orders.handover.is_worth_keeping(order_id, seconds)


def plan_release(
    hook: SmsVerifyHook, order_id: int | str, reason: str, *, waiter: str | None = None, patience: float
) -> bool:
    """Puts on record that an order is to be cancelled in a while, unless a caller claims it before.

    Args:
        hook: on the order's account.
        order_id: the order.
        reason: why, for people.
        waiter: who gives it up; a name with a / at its end stands for all that begin so, too. `None` for a
            decision that is made for all.
        patience: seconds.

    Returns:
        whether it is on record: `False` if another waiter or a newer call has the order, or its code was
        handed out.
    """
    order_id, seconds = check_order_id(order_id), check_seconds(patience, "patience")
    orders = hook._parts.orders
    return orders.releases.request(
        order_id,
        check_reason(reason),
        waiter=check_waiter(waiter),
        holder=orders.handover.holder_here(order_id),
        patience=seconds,
        is_planned=True,
    )


def withdraw_release(hook: SmsVerifyHook, order_id: int) -> None:
    """Takes the plan to cancel an order off the record, unless a caller has named the order since its
    purchase: then it is that caller's plan. For a purchase that was thought to be of no use, and is.
    """
    hook._parts.orders.handover.withdraw_release(order_id)


def assign_messages(
    hook: SmsVerifyHook, message_ids: Iterable[int | str], *, handler: str, run: str
) -> list[tuple[int, Message]]:
    """Gives messages to one run of what handles them: an announcement may reach several runs.

    Args:
        hook: on the messages' account.
        message_ids: the messages that were announced to the run.
        handler: names what handles them, the same in all of its runs.
        run: names the run; called again for the same run, it gets the same messages again.

    Returns:
        those of them that no other run of the handler has, each with its id, the oldest first; those whose
        text has been purged are left out.
    """
    return hook._parts.inbox.assign(
        [check_order_id(message_id, "message_id") for message_id in message_ids],
        handler=check_key(handler, "handler"),
        run=check_key(run, "run"),
    )


def log_wait(hook: SmsVerifyHook, order_id: int, seconds: float) -> None:
    """Logs that a wait begins, in the words of `SmsVerifyHook.wait_for_otp`, which does so by itself."""
    hook._parts.otp_waits.log_wait(order_id, seconds)


def missing_code(
    hook: SmsVerifyHook, order_id: int, *, is_cancelled: bool, **wanted: Unpack[MessageOptions]
) -> str:
    """Says what came of a wait that got no SMS in time, in the words of `SmsVerifyHook.wait_for_otp`.

    Args:
        hook: on the order's account.
        order_id: the order.
        is_cancelled: whether it was cancelled at the end of the wait.
        wanted: which SMS the wait was for.
    """
    from smsverify._messages.filters import MessageFilter

    return hook._parts.otp_waits.missing_code(
        order_id, is_cancelled=is_cancelled, wanted=MessageFilter.check(**wanted)
    )


def signed_like(core: _Call) -> Callable[[Callable[..., Any]], _Call]:
    """Gives a method the signature and the docstring of the core's method that it calls."""
    return lambda own: cast("_Call", wraps(core)(own))


def store_name(hook: SmsVerifyHook) -> str:
    """Names the store itself: two processes that get the same name share their records."""
    return hook._parts.store.name()


def store_time(hook: SmsVerifyHook) -> float:
    """The time that all who use the store share, in seconds, for what one machine tells another.

    It looks like seconds since 1970, but is not the calendar: those of two machines differ, and may be set.
    """
    return hook._parts.store.read_now()
