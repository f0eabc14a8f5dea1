"""A 403 about one order is trouble with that order; only a refused key ends what goes on with all others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rigs import eventually
from rigs.purchases import buy_number
from rigs.rentals import HOUR, outcomes, rent
from rigs.waits import PATIENT, Waiting, buy, status_requests

from smsverify import errors
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

pytestmark = pytest.mark.slow

MakeHook = Callable[..., SmsVerifyHook]
Simulate = Callable[..., Simulator]
NOT_YOURS = '{"success": false, "error": "You do not have permission to view this order"}'
FORBIDDEN = '{"success": false, "error": "Forbidden"}'


def forbid(simulator: Simulator, path: str, body: str = NOT_YOURS) -> None:
    simulator.add_fault(Fault("error_before", path=path, status=403, body=body, times=None))


def lists_read(simulator: Simulator) -> int:
    return simulator.stats().by_endpoint.get("GET orders/", 0)


@pytest.mark.parametrize("count", [1, 4])
def test_a_forbidden_order_ends_no_wait_for_another(
    count: int, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    *order_ids, forbidden = buy(hook, count + 1)
    waiting = Waiting(hook, order_ids)
    forbid(simulator, f"order/{forbidden}/status/")
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(forbidden, 1.5)
    assert caught.value.cancelled
    assert waiting.ends == [None] * count
    for order_id in order_ids:
        simulator.deliver_sms(order_id, otp="123456")
    assert waiting.codes() == ["123456"] * count


@pytest.mark.parametrize("body", [FORBIDDEN, '{"error": "Your API key is not active"}'])
@pytest.mark.parametrize("count", [1, 3])
def test_a_key_that_is_forbidden_everything_ends_all_waits(
    count: int, body: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_ids = buy(hook, count)
    waiting = Waiting(hook, order_ids, cancel_on_timeout=False)
    eventually(lambda: status_requests(simulator) > 0, "polling")
    forbid(simulator, "**", body)
    for end in waiting.join():
        assert isinstance(end, errors.AuthenticationError)


def test_a_forbidden_order_costs_few_looks_at_the_key(simulator: Simulator, hook: SmsVerifyHook) -> None:
    (order_id,) = buy(hook)
    forbid(simulator, f"order/{order_id}/status/")
    before, lists = status_requests(simulator), lists_read(simulator)
    waiting = Waiting(hook, [order_id], PATIENT, cancel_on_timeout=False)
    eventually(lambda: status_requests(simulator) - before > 12, "polling")
    assert 1 <= lists_read(simulator) - lists <= (status_requests(simulator) - before) / 2
    forbid(simulator, "**", FORBIDDEN)  # a key that is refused later ends the wait all the same
    assert isinstance(waiting.join()[0], errors.AuthenticationError)


def test_a_forbidden_status_that_asks_for_a_pause_says_nothing_of_the_key(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = buy_number(hook)
    body = '{"error": "Rate limit exceeded for this API key"}'
    simulator.add_fault(Fault("error_before", path="order/*/status/", status=403, body=body, times=2))
    simulator.deliver_sms(order_id, otp="123456")
    assert hook.wait_for_otp(order_id, PATIENT).otp == "123456"


def test_a_forbidden_rental_keeps_no_other_from_its_renewal(
    simulate: Simulate, make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate()
    hook = make_hook(simulator, store_url)
    first, unseen, unpaid, last = rent(hook, "day", "day", "day", "day")
    forbid(simulator, f"order/{unseen}/status/")
    forbid(simulator, f"order/{unpaid}/renew/", '{"error": "You may not renew this order"}')
    report = hook.renew_expiring(within=48 * HOUR)
    assert outcomes(report) == {first: "renewed", unseen: "refused", unpaid: "refused", last: "renewed"}
    notes = {rental.order_id: rental.note for rental in hook.rentals()}
    assert "do not have permission" in (notes.pop(unseen) or "")
    assert set(notes) == {first, unpaid, last}


def test_rentals_whose_key_is_forbidden_everything_are_no_list(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    rent(hook, "day")
    forbid(simulator, "**", FORBIDDEN)
    with pytest.raises(errors.AuthenticationError):
        hook.rentals()


@pytest.mark.parametrize("text", ["Order cannot be cancelled", "You may not do this"])
def test_a_forbidden_cancellation_hands_over_the_code_instead(
    text: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    order_id, other = buy_number(hook), buy_number(hook)
    simulator.deliver_sms(order_id, otp="482913")
    forbid(simulator, "order/*/cancel/", f'{{"error": "{text}"}}')
    assert hook.cancel(order_id).otp == "482913"
    with pytest.raises(errors.NotCancellableError, match="still pending"):
        hook.cancel(other)
    forbid(simulator, "**", FORBIDDEN)
    with pytest.raises(errors.AuthenticationError):
        hook.cancel(other)


def test_a_forbidden_order_that_another_call_has_cancelled_is_cancelled(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, store_url: str
) -> None:
    order_id = buy_number(hook)
    make_hook(simulator, store_url.replace("store.db", "other.db")).cancel(order_id)
    forbid(simulator, f"order/{order_id}/status/")
    assert hook.release(order_id, "it is not needed")
