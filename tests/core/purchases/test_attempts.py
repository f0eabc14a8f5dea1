"""Several numbers for one code: each is used, refunded or reported, none bought for a decided attempt."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from rigs.money import Deaths, Died
from rigs.purchases import lose
from rigs.sign_ups import WHATSAPP, delivers_to, die, statuses, verify

from smsverify import Order, SmsVerifyHook, Verification, VerificationError, errors
from smsverify._purchases.attempt_records import AttemptRecords
from smsverify._purchases.attempts import Series
from smsverify._purchases.purchasing import Purchases
from smsverify._purchases.run_context import RunContext
from smsverify._store.store import Store
from smsverify.simulator import Fault, Simulator

MakeHook = Callable[..., SmsVerifyHook]


@pytest.fixture
def hook(simulator: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(simulator, store_url)


def test_the_first_number_brings_the_code(simulator: Simulator, hook: SmsVerifyHook) -> None:
    done = verify(hook, delivers_to(simulator, 1))
    assert (done.otp, done.attempts, done.cost, done.result) == ("545121", 1, Decimal("0.40"), "account 1")
    assert done.order_id == simulator.orders()[0].order_id
    assert "545121" not in repr(done)
    assert done.as_dict()["otp"] == "545121"


@pytest.mark.slow
def test_a_number_without_a_code_is_refunded_and_the_next_one_tried(
    simulate: Callable[..., Simulator], make_hook: MakeHook, any_store_url: str
) -> None:
    simulator = simulate()
    done = verify(make_hook(simulator, any_store_url), delivers_to(simulator, 3))
    assert (done.otp, done.attempts, done.cost) == ("545123", 3, Decimal("0.40"))
    assert statuses(simulator) == ["cancelled", "cancelled", "completed"]
    assert simulator.balance() == Decimal("49.60")


def test_after_the_last_one_an_error_lists_them_all(simulator: Simulator, hook: SmsVerifyHook) -> None:
    with pytest.raises(VerificationError) as caught:
        verify(hook, delivers_to(simulator), attempts=2)
    first, second = caught.value.attempts
    assert (first.refunded, second.refunded, caught.value.cost) == (True, True, 0)
    assert str(caught.value) == (
        "no number got its code, and the last attempt is over: another call tries new numbers. "
        "Paid 0.80 USD, and all of it is refunded. "
        f"temporary, order {first.order_id} ({first.phone}), order {second.order_id} ({second.phone}): "
        "no code came in time"
    )
    assert simulator.balance() == 50


def test_the_log_says_once_that_an_attempt_is_over(
    simulator: Simulator, hook: SmsVerifyHook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(VerificationError):
        verify(hook, delivers_to(simulator), attempts=1)
    order_id = simulator.orders()[0].order_id
    (over,) = (line for line in caplog.messages if "no code came in time" in line)
    assert over.startswith(f"Cancelled order {order_id} ")
    assert "for a refund of 0.40 USD" in over
    assert max(line.count(str(order_id)) for line in caplog.messages) == 1


def test_the_error_says_what_is_not_refunded_and_who_gives_it_back(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    simulator.add_fault(Fault("error_before", "order/*/cancel/", times=None))
    with pytest.raises(VerificationError) as caught:
        verify(hook, delivers_to(simulator), attempts=1)
    assert "Paid 0.40 USD, of which 0.40 USD are not refunded: `smsverify reconcile`" in str(caught.value)


def test_the_error_says_where_another_sms_came_or_the_order_ended(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with pytest.raises(VerificationError, match="An SMS has come, but none that this wait asks for"):
        verify(hook, delivers_to(simulator, 1), attempts=1, pattern="Telegram")
    with pytest.raises(VerificationError, match=r"\): it has ended \(cancelled\) without a code$"):
        verify(hook, lambda number: hook.cancel(number.order_id), attempts=1)


def test_an_attempt_whose_order_was_found_to_have_failed_says_so_and_gives_no_advice(
    simulate: Callable[..., Simulator], make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(products={"temporary": {"start_status": "failed"}})
    lose(simulator, "error_after")
    with pytest.raises(VerificationError, match=r": the service shows it as failed$"):
        verify(make_hook(simulator, store_url), delivers_to(simulator), attempts=1)


def test_another_call_with_the_key_tries_new_numbers(simulator: Simulator, hook: SmsVerifyHook) -> None:
    with pytest.raises(VerificationError):
        verify(hook, delivers_to(simulator), attempts=1)
    assert verify(hook, delivers_to(simulator, 1), attempts=1).attempts == 1
    assert len(simulator.orders()) == 2


def test_what_is_not_available_or_too_expensive_leads_to_the_alternatives(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    done = hook.verify(
        delivers_to(simulator, 1),
        "temporary",
        service="Nothing Like It",
        max_price="0.90",
        timeout=5,
        alternatives=[
            {"product": "global", "service": "WhatsApp", "country": "Germany"},  # 1.10
            {"product": "best-temp", "service": "WhatsApp"},
        ],
    )
    assert simulator.order(done.order_id).product == "best-temp"
    assert done.attempts == 1


def test_where_nothing_is_available_nothing_is_bought(simulator: Simulator, hook: SmsVerifyHook) -> None:
    with pytest.raises(VerificationError, match=r"allow a higher price.* Nothing was bought\.") as caught:
        verify(
            hook,
            delivers_to(simulator),
            service="Nothing Like It",
            alternatives=[{"product": "best-temp", "service": 1012, "max_price": "0.01"}],
        )
    assert [one.order_id for one in caught.value.attempts] == [None, None]
    assert simulator.orders() == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"timeout": -1}, "timeout"),
        ({"alternatives": [{"product": "best"}]}, "alternatives"),
        ({"alternatives": [{"prodct": "best-temp"}]}, "alternatives"),
        ({"alternatives": {"product": "best-temp"}}, "alternatives"),
        ({"alternatives": [{"product": "global"}]}, "alternatives"),
        ({"max_cost": "-1"}, "max_cost"),
        ({"max_price": "cheap"}, "max_price"),
        ({"pattern": "("}, "pattern"),
        ({"sender": ""}, "sender"),
        ({"timeout": 10**400}, "timeout"),
        ({"alternatives": [{"max_price": "1"}]}, "alternatives"),  # the same with another price
        ({"action": None}, "action"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    options: dict[str, Any], field: str, simulator: Simulator, hook: SmsVerifyHook
) -> None:
    options = {"action": delivers_to(simulator), **options}
    with pytest.raises(errors.InvalidRequestError) as caught:
        verify(hook, **options)
    assert caught.value.field == field
    assert simulator.requests() == []


@pytest.mark.slow
def test_an_error_of_the_function_gives_the_number_back(simulator: Simulator, hook: SmsVerifyHook) -> None:
    def fails(number: Order) -> None:
        raise RuntimeError("the form is down")

    with pytest.raises(RuntimeError, match="the form is down"):
        verify(hook, fails)
    assert statuses(simulator) == ["cancelled"]
    assert verify(hook, delivers_to(simulator, 1)).attempts == 2


class WithRetries(RunContext):
    def next_try_within(self) -> float | None:
        return 600.0


def test_a_further_try_of_the_run_gets_the_same_number(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook = make_hook(simulator, store_url, run_context=WithRetries())

    def fails(number: Order) -> None:
        raise RuntimeError("the form is down")

    with pytest.raises(RuntimeError):
        verify(hook, fails)
    assert statuses(simulator) == ["pending"]
    assert [row.planned for row in hook.overview().releases.rows] == [True]
    form = delivers_to(simulator, 1)
    assert verify(make_hook(simulator, store_url), form).attempts == 1
    assert len(simulator.orders()) == 1
    assert hook.overview().releases.rows == []


def test_a_refused_cancellation_does_not_stop_the_next_number(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    refuses = Fault("out_of_stock", "order/*/cancel/", status=400, body='{"error": "not now"}', times=None)
    simulator.add_fault(refuses)
    done = verify(hook, delivers_to(simulator, 2))
    assert (done.attempts, done.cost) == (2, Decimal("0.80"))
    simulator.clear_faults()
    hook.reconcile()
    assert statuses(simulator) == ["cancelled", "completed"]
    assert simulator.balance() == Decimal("49.60")


def test_a_number_that_its_wait_has_cancelled_costs_no_further_request(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    verify(hook, delivers_to(simulator, 2))
    first = min(order.order_id for order in simulator.orders())
    about = [one for one in simulator.requests() if f"/order/{first}/" in one.path]
    assert about[-1].path.endswith("/cancel/")


def test_max_cost_ends_the_attempts_before_it_is_passed(simulator: Simulator, hook: SmsVerifyHook) -> None:
    simulator.add_fault(Fault("error_before", "order/*/cancel/", times=None))
    with pytest.raises(VerificationError) as caught:
        verify(hook, delivers_to(simulator), max_cost="0.80", attempts=5)
    assert (len(simulator.orders()), caught.value.cost) == (2, Decimal("0.80"))


def test_max_cost_counts_a_number_whose_answer_was_lost_where_the_list_shows_no_price(
    simulate: Callable[..., Simulator], make_hook: MakeHook, store_url: str
) -> None:
    simulator = simulate(list_defects=["no_price"])
    simulator.add_fault(Fault("lost_answer", "order/temporary/", times=None))
    simulator.add_fault(Fault("error_before", "order/*/cancel/", times=None))
    with pytest.raises(VerificationError, match=r"max_cost=0\.50 leaves 0\.10 USD") as caught:
        verify(make_hook(simulator, store_url), delivers_to(simulator), max_cost="0.50", attempts=5)
    assert (len(simulator.orders()), caught.value.cost) == (1, Decimal("0.40"))
    assert [tried.price for tried in caught.value.attempts if tried.order_id] == [Decimal("0.40")]


def test_a_refund_that_never_comes_counts_for_max_cost(simulator: Simulator, hook: SmsVerifyHook) -> None:
    def take(number: Order) -> None:
        simulator.set_balance(simulator.balance() - Decimal("0.40"))  # what comes back is gone

    with pytest.raises(VerificationError, match=r"max_cost=0\.50 leaves 0\.10 USD, so") as caught:
        verify(hook, take, max_cost="0.50", attempts=5)
    assert (len(simulator.orders()), caught.value.cost) == (1, Decimal("0.40"))
    assert not caught.value.attempts[0].refunded


def test_a_block_whose_iterator_nothing_keeps_does_not_begin_with_a_cancelled_number(
    simulator: Simulator, hook: SmsVerifyHook
) -> None:
    with (
        pytest.raises(errors.InvalidRequestError, match="Keep the iterator"),
        next(hook.attempts("temporary", **WHATSAPP)),
    ):
        pytest.fail("its block has begun")
    assert statuses(simulator) == ["cancelled"]


@pytest.mark.parametrize("limit", [{}, {"max_cost": "9"}], ids=["no limit", "max_cost"])
def test_a_rental_that_is_cancelled_in_use_counts_as_spent_at_once(
    limit: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.configure(cancel_active="no-refund")
    monkeypatch.setattr(Purchases, "confirm_refund", die)
    wanted = {"service": "WhatsApp", "duration": 3, "attempts": 2, "timeout": 0.0, **limit}
    with pytest.raises(VerificationError, match=r"of which 8\.00 USD are not refunded") as caught:
        hook.verify(lambda number: None, "rental", **wanted)
    assert statuses(simulator) == ["cancelled", "cancelled"]
    assert [tried.refunded for tried in caught.value.attempts] == [False, False]
    assert caught.value.cost == hook.reconcile().spent == 8


@pytest.mark.slow
@pytest.mark.parametrize("limit", [{"max_cost": "0.50"}, {"run_budget": "0.50"}])
def test_what_came_back_is_spent_again_within_a_limit(
    limit: dict[str, Any], simulator: Simulator, hook: SmsVerifyHook
) -> None:
    done = verify(hook, delivers_to(simulator, 3), **limit)
    assert (done.attempts, done.cost) == (3, Decimal("0.40"))


def test_a_death_between_two_alternatives_begins_no_new_series(
    simulator: Simulator, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.add_fault(Fault("error_before", "order/*/cancel/", times=None))
    begin, begun = AttemptRecords.begin, []

    def dies(records: AttemptRecords, *args: Any) -> None:
        begun.append(args)
        if len(begun) == 3:
            raise Died
        begin(records, *args)

    def sell_out(number: Order) -> None:
        simulator.set_offer("temporary", 1012, stock=0)

    monkeypatch.setattr(AttemptRecords, "begin", dies)
    alternatives = [{"product": "best-temp", "max_price": "0.90"}]
    options = {"alternatives": alternatives, "max_cost": "1.00", "attempts": 2}
    with pytest.raises(Died):
        verify(make_hook(simulator, store_url), sell_out, **options)
    with pytest.raises(VerificationError):
        verify(make_hook(simulator, store_url), sell_out, **options)
    assert [order.product for order in simulator.orders()] == ["temporary", "best-temp"]


def test_after_a_death_the_same_number_is_tried_again_while_it_lives(
    simulator: Simulator, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_hook(simulator, store_url)
    series = first.attempts("temporary", key="sign-up", timeout=0.6, **WHATSAPP)
    order = next(series).number.order
    with monkeypatch.context() as patch:
        patch.setattr(Series, "give_up", die)
        with pytest.raises(Died):
            series.close()
    done = verify(make_hook(simulator, store_url), delivers_to(simulator, 1))
    assert (done.order_id, done.attempts) == (order.order_id, 1)


def test_a_code_that_was_read_before_a_death_is_not_lost(
    simulator: Simulator, hook: SmsVerifyHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = delivers_to(simulator, 1)

    with monkeypatch.context() as patch:
        patch.setattr(Series, "succeed", die)
        with pytest.raises(Died):
            verify(hook, submit)
    done = verify(hook, submit)
    assert (done.otp, done.attempts, done.result) == ("545121", 1, "account 2")
    assert statuses(simulator) == ["completed"]


def test_after_an_error_that_follows_its_code_a_further_try_gets_the_next_number(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    hook, submit = make_hook(simulator, store_url, run_context=WithRetries()), delivers_to(simulator, 1, 2)

    def sign_up(*, is_refused: bool) -> str | None:
        for attempt in hook.attempts("temporary", timeout=0.6, key="sign-up", **WHATSAPP):
            with attempt as number:
                submit(number.order)
                code = number.wait_for_otp().otp
                if is_refused:
                    raise RuntimeError("the form refuses the code")
        return code

    with pytest.raises(RuntimeError, match="the form refuses the code"):
        sign_up(is_refused=True)
    assert sign_up(is_refused=False) == "545122"
    assert statuses(simulator) == ["completed", "completed"]


def test_a_number_that_has_ended_meanwhile_is_not_bought_again(
    simulator: Simulator, make_hook: MakeHook, store_url: str
) -> None:
    first = make_hook(simulator, store_url)
    order = next(first.attempts("temporary", key="sign-up", timeout=0.6, **WHATSAPP)).number.order
    first.cancel(order.order_id)
    done = verify(make_hook(simulator, store_url), delivers_to(simulator, 1), attempts=2)
    assert (done.order_id != order.order_id, done.attempts, done.cost) == (True, 2, Decimal("0.40"))
    assert len(simulator.orders()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("places", range(12, 19))
def test_an_alternative_that_is_no_longer_asked_for_is_given_back_wherever_its_process_died(
    places: int, simulator: Simulator, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths, hook = Deaths(monkeypatch), make_hook(simulator, store_url)
    hook.list_services("temporary")
    deaths.arm(places)
    with contextlib.suppress(Died):
        next(hook.attempts("temporary", key="sign-up", **WHATSAPP))
    deaths.arm(None)
    right = Store.now  # what the dead call had begun is over meanwhile
    monkeypatch.setattr(Store, "now", lambda self, connection: right(self, connection) + 600)
    again = make_hook(simulator, store_url)
    done = again.verify(
        delivers_to(simulator, 1), "best-temp", service="WhatsApp", max_price="0.90", key="sign-up", timeout=5
    )
    assert simulator.order(done.order_id).product == "best-temp"
    first = [order for order in simulator.orders() if order.product == "temporary"]
    assert {order.status for order in first} <= {"cancelled"}
    assert again.reconcile().findings == []


@pytest.mark.slow
@pytest.mark.parametrize("places", range(10))
def test_a_death_while_a_number_is_given_back_leaves_none_behind(
    places: int, simulator: Simulator, make_hook: MakeHook, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = Deaths(monkeypatch)

    def fails(number: Order) -> None:
        deaths.arm(places)
        raise RuntimeError("the form is down")

    with pytest.raises((RuntimeError, Died)):
        verify(make_hook(simulator, store_url), fails)
    deaths.arm(None)
    again = make_hook(simulator, store_url)
    verify(again, delivers_to(simulator, 1), timeout=60)
    again.reconcile()
    assert statuses(simulator) in (["completed"], ["cancelled", "completed"])


def test_bad_arguments_raise_at_the_call(simulator: Simulator, hook: SmsVerifyHook) -> None:
    for bad in ({"attempts": 0}, {"timeout": -1}, {"key": ""}, {"max_cost": "-1"}, {"service": None}):
        with pytest.raises(errors.InvalidRequestError):
            hook.attempts("temporary", **{**WHATSAPP, **bad})  # type: ignore[arg-type]
    assert simulator.requests() == []


def test_spelt_out_as_blocks(simulator: Simulator, hook: SmsVerifyHook) -> None:
    form, codes = delivers_to(simulator, 2), []
    for attempt in hook.attempts("temporary", timeout=0.6, **WHATSAPP):
        with attempt as number:
            form(number.order)
            codes.append(number.wait_for_otp().otp)
    assert codes == ["545122"]
    assert statuses(simulator) == ["cancelled", "completed"]


def test_a_block_that_needs_no_code_gives_its_number_back(simulator: Simulator, hook: SmsVerifyHook) -> None:
    for attempt in hook.attempts("temporary", timeout=0.6, **WHATSAPP):
        with attempt:
            pass
    for _ in hook.attempts("temporary", timeout=0.6, **WHATSAPP):
        pass
    assert statuses(simulator) == ["cancelled", "cancelled"]


def test_many_at_once_buy_one_number_each(simulator: Simulator, hook: SmsVerifyHook) -> None:
    done: list[Verification] = []
    threads = [
        threading.Thread(
            target=lambda nth=nth: done.append(
                verify(hook, delivers_to(simulator, 1), key=f"sign-up {nth}", timeout=60)
            )
        )
        for nth in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.order_id for one in done}) == 5
    assert simulator.balance() == 48


def test_a_stop_ends_the_wait_for_the_code(simulator: Simulator, hook: SmsVerifyHook) -> None:
    stop = threading.Event()
    with pytest.raises(errors.WaitStoppedError):
        verify(hook, lambda _: stop.set(), timeout=300, stop=stop)
    assert statuses(simulator) == ["cancelled"]
