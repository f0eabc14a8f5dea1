"""Which numbers deliver: counted from the store alone, and what the order of alternatives goes by."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from rigs.rooms import store_of

from smsverify import InvalidRequestError, Order, SmsVerifyHook
from smsverify._purchases import deliveries
from smsverify._purchases.deliveries import wilson
from smsverify._store.tables import messages, purchases
from smsverify.cli import main
from smsverify.simulator import Simulator

MakeHook = Callable[..., SmsVerifyHook]


def buy(hook: SmsVerifyHook, simulator: Simulator, product: str, *codes: bool, **options: Any) -> list[Order]:
    """Numbers of WhatsApp; some get a code, the others are given back."""
    bought = []
    for code in codes:
        order = hook.order(product, **{"service": "WhatsApp", **options})
        if code:
            simulator.deliver_sms(order.order_id, otp="545121")
            hook.wait_for_otp(order.order_id, 10)
        else:
            hook.cancel(order.order_id)
        bought.append(order)
    hook.list_orders()  # which shows the refunds
    return bought


def change(hook: SmsVerifyHook, statement: sa.Update) -> None:
    with store_of(hook).write() as connection:
        connection.execute(statement)


def test_numbers_are_counted_by_what_was_bought(
    simulator: Simulator, make_hook: MakeHook, any_store_url: str
) -> None:
    hook = make_hook(simulator, any_store_url)
    buy(hook, simulator, "temporary", True, False, True, True)
    buy(hook, simulator, "temporary", False, area_code="212")
    buy(hook, simulator, "global", True, country="Germany")
    hook.order("best-temp", service=1012)
    hook.order("esim", plan="USA 1GB / 7 days")
    make_hook(simulator, any_store_url, account="another").order("temporary", service="WhatsApp")
    before = len(simulator.requests())
    found = {(one.product, one.country, one.area_code): one for one in hook.delivery()}
    assert len(simulator.requests()) == before
    assert found.keys() == {
        ("temporary", None, None), ("temporary", None, "212"), ("global", "Germany", None),
        ("best-temp", None, None),
    }  # fmt: skip
    most = found["temporary", None, None]
    assert (most.bought, most.decided, most.codes, most.rate, most.refunds) == (4, 4, 3, 0.75, 1)
    assert (most.service, most.service_id, most.cost) == ("WhatsApp", "1012", Decimal("1.20"))
    assert most.cost_per_code == Decimal("0.40")
    assert (most.rate_low, most.rate_high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert most.p50_seconds is not None
    assert most.p95_seconds is not None
    assert 0 < most.p50_seconds <= most.p95_seconds
    none = found["temporary", None, "212"]
    assert (none.rate, none.cost, none.cost_per_code, none.p50_seconds) == (0.0, 0, None, None)
    waiting = found["best-temp", None, None]
    assert (waiting.bought, waiting.decided, waiting.rate) == (1, 0, None)
    assert (waiting.rate_low, waiting.rate_high) == (0, 1)
    json.dumps([one.as_dict() for one in found.values()])


def test_how_long_codes_took(simulator: Simulator, make_hook: MakeHook, any_store_url: str) -> None:
    hook = make_hook(simulator, any_store_url)
    orders = buy(hook, simulator, "temporary", *[True] * 5)
    for seconds, order in zip((5, 1, 3, 2, 4), orders, strict=True):
        sent = sa.select(purchases.c.sent_at).where(purchases.c.order_id == order.order_id).scalar_subquery()
        this = sa.update(messages).where(messages.c.order_id == order.order_id)
        change(hook, this.values(received_at=sent + seconds, came_at=sent + seconds, otp=None, message=None))
    (one,) = hook.delivery()
    assert (one.codes, one.p50_seconds, one.p95_seconds) == (5, 3.0, 5.0)  # their texts have been purged


def test_what_is_too_old_or_too_much_does_not_count(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = buy(hook, simulator, "temporary", True, True, False)
    this = sa.update(purchases).where(purchases.c.order_id == first.order_id)
    change(hook, this.values(sent_at=purchases.c.sent_at - 3 * 86_400))
    assert [one.bought for one in hook.delivery(days=2)] == [2]
    assert [one.bought for one in hook.delivery(days=4)] == [3]
    monkeypatch.setattr(deliveries, "MOST", 1)
    assert [one.bought for one in hook.delivery()] == [1]


@pytest.mark.parametrize("days", [0, -1, "soon", 1.5])
def test_days_are_whole_ones(days: Any, hook: SmsVerifyHook) -> None:
    with pytest.raises(InvalidRequestError, match="days"):
        hook.delivery(days)


def test_the_interval_of_a_rate() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def tried_first(hook: SmsVerifyHook, simulator: Simulator, **options: Any) -> str | None:
    def submit(number: Order) -> str | None:
        simulator.deliver_sms(number.order_id, otp="545121")
        return number.product

    product: str | None = hook.verify(
        submit, "temporary", service="whatsapp", max_price="0.90", timeout=10, alternatives="best", **options
    ).result
    return product


def test_the_best_alternative_is_tried_first_and_the_log_says_so(
    simulator: Simulator, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    assert tried_first(hook, simulator) == "temporary"  # nothing is known, so the call's own is
    buy(hook, simulator, "temporary", False, False, False)
    with caplog.at_level(logging.INFO):
        assert tried_first(hook, simulator) == "best-temp"
    assert "best-temp (nothing is known of it); temporary (1 codes of 4 numbers)" in caplog.text
    assert tried_first(hook, simulator, area_code="212") == "best-temp"


def test_a_further_try_keeps_to_its_number_whatever_is_best_by_now(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    options: Any = {"service": "WhatsApp", "max_price": "0.90", "alternatives": "best", "key": "sign-up"}
    tried = hook.attempts("temporary", **options)  # it goes on meanwhile
    first = next(tried).number.order
    buy(hook, simulator, "temporary", False, False, False)
    assert tried_first(make_hook(simulator, store_url), simulator, key="sign-up") == "temporary"
    assert simulator.order(first.order_id).status == "completed"


@pytest.mark.parametrize("product", ["global", "rent-1day"])
def test_no_other_number_stands_in_for_what_is_asked_for(product: str, hook: SmsVerifyHook) -> None:
    country = {"country": "Germany"} if product == "global" else {}
    with pytest.raises(InvalidRequestError, match="give a list") as caught:
        hook.attempts(product, service="WhatsApp", alternatives="best", **country)  # type: ignore[arg-type]
    assert caught.value.field == "alternatives"


def test_in_the_shell(
    simulator: Simulator,
    hook: SmsVerifyHook,
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    buy(hook, simulator, "temporary", True, False)
    given = {"API_KEY": "test-key", "STORE_URL": store_url, "ACCOUNT": hook.settings.account_id}
    for name, value in given.items():
        monkeypatch.setenv(f"SMSVERIFY_{name}", value)
    assert main(["delivery"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["product", "service", "country"]
    assert "50% (9% to 91%)" in row
    assert main(["delivery", "--days", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["codes"] == 1
