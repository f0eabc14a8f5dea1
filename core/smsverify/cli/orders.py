"""Orders after their purchase: their codes, their status, and giving them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from smsverify._runtime.interrupts import interrupts
from smsverify.cli import output, verbs
from smsverify.cli.options import OrderId, flag
from smsverify.cli.progress import progress
from smsverify.cli.verbs import EXIT_NO_CODE, Common
from smsverify.errors import SmsVerifyError, WaitTimeoutError
from smsverify.text import LONGEST_SMS, printable

if TYPE_CHECKING:
    from smsverify.hook import SmsVerifyHook

PANEL = "Orders"


def wait(
    common: Common,
    order_id: OrderId,
    *,
    timeout: Annotated[float, typer.Option(help="How long to wait.", metavar="SECONDS")] = 600.0,
    message: Annotated[bool, flag("--message", "Print the text of the SMS, not its code.")] = False,
    keep: Annotated[bool, flag("--keep", "Keep the order when no code comes in time.")] = False,
    after: Annotated[
        str | None,
        typer.Option(
            help="Only an SMS later than this time (ISO 8601, such as a received_at).",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option(
            help="Only an SMS from this name or number, which only callbacks show.", show_default=False
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="Only an SMS that this regular expression matches; its first group is the code.",
            metavar="REGEX",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Wait for the code of an order and print it. Without --keep, the order is cancelled when none comes."""
    from smsverify.checks import check_seconds

    seconds = check_seconds(timeout, "timeout")
    again, give_back = (common.again(verb, order_id) for verb in ("wait", "cancel"))
    go_on = f"{again} waits on, {give_back} gives it back"
    hook = common.hook()
    try:
        with interrupts(go_on) as stop, progress(f"order {order_id}", seconds, lambda: _waits(hook)):
            came = hook.wait_for_otp(
                order_id,
                seconds,
                cancel_on_timeout=not keep,
                after=after,
                sender=sender,
                pattern=pattern,
                stop=stop,
            )
    except WaitTimeoutError as error:
        if not error.cancelled:
            error.args = (f"{error}: {go_on}",)
        raise
    if message and not common.json:
        output.say(printable(came.message or came.otp or "", LONGEST_SMS))
        return 0
    if came.otp is None and not common.json:
        text = f"the SMS for order {came.order_id} has no code that can be read; --message prints it"
        return output.complain(text, EXIT_NO_CODE)
    output.show(came, came.otp or "", as_json=common.json)
    return 0


def _waits(hook: SmsVerifyHook) -> str:
    try:
        seen = hook._parts.waiter.seen()
    except SmsVerifyError:
        return ""  # the wait itself says what is wrong with the store
    return f"polls: {seen.polls}  waiting: {seen.waiting}"  # a line of 80 columns holds no more


def status(common: Common, order_id: OrderId) -> None:
    """Show the status of an order."""
    found = common.hook().get_status(order_id)
    text = f"order {found.order_id}  {found.phone or '-'}  {found.status}"
    output.show(found, text, as_json=common.json)


def cancel(common: Common, order_id: OrderId) -> None:
    """Cancel an order for a refund."""
    with interrupts(f"Run {common.again('cancel', order_id)} again: to cancel twice is harmless"):
        found = common.hook().cancel(order_id)
    output.show(found, f"order {found.order_id}  {found.status}", as_json=common.json)


def orders(common: Common) -> None:
    """List the account's 50 newest orders."""
    output.show_all(common.hook().list_orders(), as_json=common.json)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for verb in (wait, status, cancel, orders):
        verbs.add(app, PANEL, verb)
