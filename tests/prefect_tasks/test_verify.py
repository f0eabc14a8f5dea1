"""One task for a verified account, in flows that are functions and in flows that are coroutines."""

from __future__ import annotations

import asyncio
from collections import UserDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any, NoReturn
from uuid import uuid4

import pytest
from prefect import flow, task, unmapped
from prefect.futures import PrefectConcurrentFuture
from prefect.states import Cancelled, Completed, Failed
from rigs import let_go_of_all_numbers
from rigs.sign_ups import delivers_to, statuses

from prefect_smsverify import SmsVerifyCredentials, averify_number, verify_number
from prefect_smsverify.actions import check_result
from smsverify import InvalidRequestError, Order, VerificationError
from smsverify.simulator import Simulator

WHATSAPP: dict[str, Any] = {"service": "WhatsApp", "max_price": "0.50", "timeout": 0.6}


@pytest.fixture
def simulator(simulate: Callable[..., Simulator]) -> Simulator:
    return simulate(sms_delay="never")


def test_the_next_number_is_tried_until_a_code_comes(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    submit = delivers_to(simulator, 2)

    @flow
    def sign_up() -> Any:
        return verify_number(account, submit, "temporary", **WHATSAPP)

    done = sign_up()
    assert (done.otp, done.attempts, done.cost, done.result) == ("545122", 2, Decimal("0.40"), "account 2")
    assert statuses(simulator) == ["cancelled", "completed"]


def test_the_same_for_coroutines(simulator: Simulator, account: SmsVerifyCredentials) -> None:
    submit = delivers_to(simulator, 2)

    async def asubmit(number: Order) -> str:
        await asyncio.sleep(0)
        return submit(number)

    @flow
    async def sign_up() -> Any:
        return await averify_number(account, asubmit, "temporary", **WHATSAPP)

    done = asyncio.run(sign_up())
    assert (done.otp, done.attempts, done.result) == ("545122", 2, "account 2")
    assert statuses(simulator) == ["cancelled", "completed"]


def test_what_begins_again_after_a_death_has_the_same_code_until_the_task_around_is_over(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    submit = delivers_to(simulator, 1, 2, 3)
    ada: dict[str, Any] = {**WHATSAPP, "key": "ada", "timeout": 30}

    @task
    def sign_up() -> int:
        done = verify_number(account, submit, "temporary", **ada)
        # What the next attempt would get if this process died here: a thread of its own is in no run.
        let_go_of_all_numbers()
        with ThreadPoolExecutor(1) as outside:
            again = outside.submit(account.get_hook().verify, submit, "temporary", **ada).result()
        assert (again.order_id, again.otp) == (done.order_id, done.otp)
        return done.order_id

    first, second = flow(sign_up)(), flow(sign_up)()
    assert [first, second] == [order.order_id for order in simulator.orders()]


def test_where_no_number_gets_a_code_the_error_lists_them(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    submit = delivers_to(simulator)

    @flow
    def sign_up() -> Any:
        return verify_number(account, submit, "temporary", attempts=2, **WHATSAPP)

    with pytest.raises(VerificationError) as caught:
        sign_up()
    assert [one.order_id for one in caught.value.attempts] == submit.tried
    assert simulator.balance() == 50


def test_an_error_of_the_function_gives_the_number_back(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    def submit(number: Order) -> None:
        raise RuntimeError("the form is down")

    @flow
    def sign_up() -> Any:
        return verify_number(account, submit, "temporary", **WHATSAPP)

    with pytest.raises(RuntimeError, match="the form is down"):
        sign_up()
    assert statuses(simulator) == ["cancelled"]


def test_a_retry_of_the_task_gets_the_same_number(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    submit = delivers_to(simulator, 2)

    def submit_and_fail_once(number: Order) -> str:
        done = submit(number)
        if len(submit.tried) == 1:
            raise RuntimeError("the form is down")
        return done

    @flow
    def sign_up() -> Any:
        task = verify_number.with_options(retries=1)
        return task(account, submit_and_fail_once, "temporary", **{**WHATSAPP, "timeout": 5})

    assert sign_up().attempts == 1
    assert submit.tried[0] == submit.tried[1]
    assert statuses(simulator) == ["completed"]


@pytest.mark.parametrize("field", ["pattern", "sender", "action"])
@pytest.mark.parametrize("form", ["a function", "a coroutine"])
def test_bad_input_is_refused_before_anything_is_bought(
    form: str, field: str, simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    wrong = {"pattern": "(", "sender": "", "action": None}[field]
    given = {"action": delivers_to(simulator), field: wrong, **WHATSAPP}

    @flow
    def sign_up() -> None:
        verify_number(account, product="temporary", **given)

    @flow
    async def asign_up() -> None:
        await averify_number(account, product="temporary", **given)

    with pytest.raises(InvalidRequestError) as caught:
        sign_up() if form == "a function" else asyncio.run(asign_up())
    assert caught.value.field == field
    assert simulator.requests() == []


async def never_awaited(number: Order) -> None:
    """Would type the number into a form."""


def yields(number: Order) -> Any:
    yield


@task
def sign_up_task(number: Order) -> None:
    """Would type the number into a form."""


async_task = task(never_awaited)
async_flow = flow(never_awaited)


@pytest.mark.parametrize(
    "action",
    [
        never_awaited,
        yields,
        task(yields),
        async_task,
        async_task.__call__,
        async_flow,
        partial(async_task),
        sign_up_task.submit,
        partial(sign_up_task.submit),
        sign_up_task.map,
        sign_up_task.delay,
        async_task.submit,
    ],
)
@pytest.mark.parametrize("form", ["task", "twin", "hook"])
def test_a_function_that_a_call_does_not_run_buys_nothing(
    form: str, action: Any, simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    given = {"action": action, "product": "temporary", **WHATSAPP}
    if form == "twin" and getattr(action, "func", action) in {
        never_awaited,
        async_task,
        async_task.__call__,
        async_flow,
    }:
        return  # it is awaited there
    call: dict[str, Callable[[], Any]] = {
        "task": lambda: verify_number.fn(account, **given),
        "twin": lambda: asyncio.run(averify_number.fn(account, **given)),
        "hook": lambda: account.get_hook().verify(**given),
    }
    with pytest.raises(InvalidRequestError) as caught:
        call[form]()
    assert caught.value.field == "action"
    assert simulator.requests() == []


@pytest.mark.parametrize("form", ["task", "twin", "hook"])
def test_a_future_and_a_generator_are_no_results(
    form: str, simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    @flow
    def sign_up(action: Any) -> None:
        given = {"action": action, "product": "temporary", **WHATSAPP}
        if form == "task":
            verify_number(account, **given)
        elif form == "twin":
            asyncio.run(averify_number.fn(account, **given))
        else:
            account.get_hook().verify(**given)

    for action in (
        lambda number: sign_up_task.submit(number.order_id),
        lambda number: sign_up_task.map([number.order_id]),
        lambda number: (number.phone for _ in "12"),
    ):
        with pytest.raises(InvalidRequestError, match=r"future|generator") as caught:
            sign_up(action)
        assert caught.value.field == "action"
    assert statuses(simulator) == ["cancelled"] * 3


@pytest.mark.parametrize("wrap", [list, tuple, lambda results: dict(enumerate(results))])
def test_a_future_and_a_state_are_no_results_in_a_collection_either(wrap: Any) -> None:
    future: Any = PrefectConcurrentFuture(uuid4(), Future())
    for result in (future, Failed(message="the form is down"), Cancelled()):
        for returned in (result, wrap([result])):
            with pytest.raises(InvalidRequestError, match=r"future|state") as caught:
                check_result(returned)
            assert caught.value.field == "action"
    with pytest.raises(InvalidRequestError, match="future"):
        check_result({future})
    done = wrap(["account 1", "account 2"])
    assert check_result(done) is done
    assert check_result(Completed()).is_completed()


class ClosedFile(UserDict[str, str]):
    """What `shelve` and h5py give: a mapping that reads its file, which is closed by now."""

    def values(self) -> NoReturn:
        """Fails."""
        raise OSError("closed")


def test_a_mapping_that_may_read_from_elsewhere_is_not_searched() -> None:
    closed = ClosedFile()
    assert check_result(closed) is closed


def test_a_task_and_a_flow_are_actions(simulator: Simulator, account: SmsVerifyCredentials) -> None:
    submit = delivers_to(simulator, 1, 2, 3, 4)

    async def asubmit(number: Order) -> str:
        return submit(number)

    @flow
    def sign_up() -> list[Any]:
        actions = [task(submit), partial(task(submit)), task(submit).__call__]
        return [verify_number(account, action, "temporary", **WHATSAPP).result for action in actions]

    @flow
    async def asign_up() -> Any:
        return (await averify_number(account, task(asubmit), "temporary", **WHATSAPP)).result

    assert sign_up() == ["account 1", "account 2", "account 3"]
    assert asyncio.run(asign_up()) == "account 4"


def test_a_function_that_returns_a_coroutine_gives_the_number_back(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    def submit(number: Order) -> Any:
        return never_awaited(number)

    @flow
    def sign_up() -> None:
        verify_number(account, submit, "temporary", **WHATSAPP)

    with pytest.raises(InvalidRequestError, match="does not await it") as caught:
        sign_up()
    assert caught.value.field == "action"
    assert statuses(simulator) == ["cancelled"]


def test_many_are_mapped_over_services(simulator: Simulator, account: SmsVerifyCredentials) -> None:
    def submit(number: Order) -> str | None:
        simulator.deliver_sms(number.order_id, otp="123456")
        return number.service

    @flow
    def sign_up() -> Any:
        return verify_number.map(
            unmapped(account), unmapped(submit), unmapped("temporary"), service=["WhatsApp", "Telegram"]
        ).result()

    assert sorted(done.result for done in sign_up()) == ["Telegram", "WhatsApp"]
