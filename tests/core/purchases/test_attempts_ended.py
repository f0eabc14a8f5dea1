"""How attempts end otherwise: a loop that is left, a lost answer, a last number that is gone, a limit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from rigs.money import Died
from rigs.sign_ups import WHATSAPP, delivers_to, die, statuses, verify

from smsverify import SmsVerifyHook, VerificationError, errors
from smsverify._purchases.attempts import Series
from smsverify._purchases.run_context import RunContext
from smsverify.numbers import Attempt
from smsverify.simulator import Fault, Simulator

MakeHook = Callable[..., SmsVerifyHook]


@pytest.fixture
def hook(simulator: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(simulator, store_url)


@pytest.mark.slow
def test_a_loop_that_is_left_before_its_block_gives_the_number_back(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    for _ in hook.attempts("temporary", timeout=0.6, **WHATSAPP):
        break
    with pytest.raises(LookupError):
        fails_in(hook.attempts("temporary", timeout=0.6, **WHATSAPP))
    assert statuses(simulator) == ["cancelled", "cancelled"]
    assert hook.overview().releases.rows == []


def fails_in(attempts: Iterable[Attempt]) -> None:
    for _ in attempts:
        raise LookupError


class Remembering(RunContext):
    def __init__(self) -> None:
        self.failed: list[str] = []

    def default_key(self, fingerprint: str) -> str:
        return "the run's"

    def key_failed(self, key: str) -> None:
        self.failed.append(key)


def test_only_a_failure_makes_the_next_equal_call_the_same_one(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    run = Remembering()
    hook = make_hook(simulator, store_url, run_context=run)
    verify(hook, delivers_to(simulator, 1), key=None)
    assert run.failed == []
    with pytest.raises(VerificationError):
        verify(hook, delivers_to(simulator), key=None, attempts=1)
    assert run.failed == ["the run's"]


@pytest.mark.parametrize("given", ["sign-up", None])
def test_the_key_that_an_error_names_goes_on_with_the_same_numbers(
    given: str | None, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    faults = [Fault("lost_answer", "order/temporary/"), Fault("error_before", "orders/", times=None)]
    for fault in faults:
        simulator.add_fault(fault)
    with pytest.raises(errors.PurchaseUnknownError) as caught:
        verify(hook, delivers_to(simulator), key=given)
    simulator.clear_faults()
    done = verify(hook, delivers_to(simulator, 1), key=caught.value.key)
    assert [order.order_id for order in simulator.orders()] == [done.order_id]


@pytest.mark.parametrize("status", [400, 404])
def test_an_attempt_that_has_its_number_is_not_decided_by_what_its_status_says_of_numbers(
    status: int, simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    first, again = make_hook(simulator, store_url), make_hook(simulator, store_url, purchase_grace=0.25)
    series = first.attempts("temporary", key="sign-up", timeout=0.6, **WHATSAPP)
    order = next(series).number.order
    body = '{"success": false, "error": "Number not available"}'
    says = Fault("error_before", f"order/{order.order_id}/status/", status=status, body=body, times=1)
    simulator.add_fault(says)
    if status == 400:
        with pytest.raises(errors.NotAvailableError):
            verify(again, delivers_to(simulator))
    done = verify(again, delivers_to(simulator, 1))
    assert (done.order_id, done.attempts, len(simulator.orders())) == (order.order_id, 1, 1)


def test_a_key_with_other_arguments_leaves_the_number_of_a_call_that_still_runs_alone(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook, other = make_hook(simulator, store_url), make_hook(simulator, store_url)
    for attempt in hook.attempts("temporary", key="sign-up", timeout=20, **WHATSAPP):
        with attempt as number:
            with pytest.raises(errors.PurchaseConflictError, match="still tries its number"):
                verify(other, delivers_to(simulator), service="Telegram")
            simulator.deliver_sms(number.order_id, otp="545121")
            assert number.wait_for_otp().otp == "545121"
    assert statuses(simulator) == ["completed"]
    done = verify(other, delivers_to(simulator, 1), service="Telegram")  # that series is over
    assert (done.attempts, statuses(simulator)) == (1, ["completed", "completed"])


def test_a_last_attempt_that_an_earlier_call_has_lost_ends_no_further_call(
    simulator: Simulator, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_hook(simulator, store_url)
    series = first.attempts("temporary", key="sign-up", attempts=1, **WHATSAPP)
    order = next(series).number.order
    with monkeypatch.context() as patch:
        patch.setattr(Series, "give_up", die)
        with pytest.raises(Died):
            series.close()
    first.cancel(order.order_id)
    done = verify(make_hook(simulator, store_url), delivers_to(simulator, 1), attempts=1)
    assert (done.order_id != order.order_id, done.attempts) == (True, 1)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_cost": "0.10", "max_price": None}, "max_cost=0.10 leaves 0.10 USD, so that is its max_price"),
        ({"max_cost": "5", "max_price": "0.01"}, "more than max_price=0.01"),
        ({"max_cost": 1e12, "max_price": "0.01"}, "more than max_price=0.01"),
        ({"max_cost": 0}, "max_cost=0.00 leaves nothing to spend"),
    ],
)
def test_the_error_names_the_limit_that_was_reached(
    options: dict[str, Any], why: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with pytest.raises(VerificationError, match=re.escape(why)) as caught:
        verify(hook, delivers_to(simulator), alternatives=None, **options)
    assert ("max_cost" in str(caught.value)) is ("max_cost" in why)
    assert simulator.orders() == []
