"""Amounts are reckoned with alike, whatever a caller has set for its own decimals."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal, Inexact, localcontext

import pytest
from rigs.rentals import DAY, rent

from smsverify import SmsVerifyHook
from smsverify._purchases.wallet import _negative
from smsverify.simulator import Simulator
from smsverify.verification import TriedNumber, summary_of

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]


@pytest.fixture(params=[Context(prec=3), Context(prec=3, traps=[Inexact])], ids=["short", "strict"])
def context(request: pytest.FixtureRequest) -> Context:
    """What an application has set for its own decimals."""
    context: Context = request.param
    return context.copy()


def test_what_attempts_have_cost(context: Context) -> None:
    tried = [
        TriedNumber(
            order_id=number, phone=None, product="rental", service="x", price=price, refunded=False, why="y"
        )
        for number, price in enumerate([Decimal("12.25"), Decimal("100.50")])
    ]
    with localcontext(context):
        assert "Paid 112.75 USD" in summary_of(tried, not_refunded=Decimal("112.75"))


def test_what_rentals_have_cost_and_what_is_left(
    context: Context, service: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(service, store_url, rate_period=1.0)
    rent(hook, "day", "month", "three")
    service.set_balance("1234.56")
    for dry_run in (True, False):
        with localcontext(context):
            report = hook.renew_expiring(40 * DAY, dry_run=dry_run)
        assert (report.cost, report.next_cost) == (Decimal("17.20"), Decimal("17.20"))
        assert report.balance == (Decimal("1234.56") if dry_run else Decimal("1217.36"))


def test_what_numbers_have_cost_and_what_was_spent(
    context: Context, service: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    service.set_balance("1000")
    service.set_offer("rent-1day", 4421, price="101.25")
    hook = make_hook(service, store_url, rate_period=1.0)
    ids = rent(hook, "day", "day", "day", "month")
    for order_id in ids[:3]:
        service.set_time_left(order_id, 3600)
    hook.rentals()
    service.deliver_sms(ids[0], otp="545121")
    hook.wait_for_otp(ids[0], 10)
    hook.get_balance()
    with localcontext(context):
        found = {one.product: one for one in hook.delivery()}
        overview = hook.overview()
    assert found["rent-1day"].cost == found["rent-1day"].cost_per_code == Decimal("303.75")
    assert overview.spend.amount == Decimal("315.75")
    assert overview.wallet is not None
    assert overview.wallet.renewals == Decimal("303.75")


def test_what_a_call_has_taken_out_of_the_wallet(context: Context) -> None:
    with localcontext(context):
        assert _negative("1234.56") == Decimal("-1234.56")
