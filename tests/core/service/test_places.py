"""Places in the queue whose holders are away: kept in order, and given up when nobody comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from rigs import eventually
from rigs.rooms import store_of

from smsverify import Order, SmsVerifyHook, StoreError
from smsverify._service import slots
from smsverify._service.places import Keeper, Place, TurnIsFar, leaving_queue
from smsverify._service.rate_limit import Priority, RateLimit
from smsverify._store.store import open_store
from smsverify._store.tables import purchases
from smsverify.simulator import Simulator

MINUTE = 60.0
MakeHook = Callable[..., SmsVerifyHook]


def make(url: str, *, limit: int = 1, period: float = MINUTE) -> RateLimit:
    return RateLimit(open_store(url), "key", limit=limit, period=period, lease=5.0)


def use_up(rate_limit: RateLimit) -> None:
    for _ in range(rate_limit.limit):
        with rate_limit.acquire(Priority.READ, deadline=time.monotonic() + 60):
            pass


def leave(rate_limit: RateLimit, place: Place | None = None, beyond: float = 0.5) -> Place:
    with (
        pytest.raises(TurnIsFar) as far,
        leaving_queue(place, beyond=beyond),
        rate_limit.acquire(Priority.PURCHASE, deadline=time.monotonic() + 60),
    ):
        pass
    return far.value.place


def test_who_leaves_keeps_the_place_before_all_who_come_later(any_store_url: str) -> None:
    rate_limit = make(any_store_url, limit=2)
    use_up(rate_limit)
    places = [leave(rate_limit) for _ in range(5)]
    turns = rate_limit.keep(places)
    in_order = [turns[place.id] for place in places]
    assert in_order == sorted(in_order)
    # Two slots a minute: the first two in this minute, the next two in the next one.
    assert [round(seconds / MINUTE) for seconds in in_order] == [1, 1, 2, 2, 3]
    assert leave(rate_limit, places[0]) == places[0]
    assert rate_limit.state().waiting == 5


@pytest.mark.slow
def test_the_turn_of_a_place_comes_before_those_that_stand_behind_it(any_store_url: str) -> None:
    rate_limit = make(any_store_url, limit=1, period=1.0)
    use_up(rate_limit)
    place, order = leave(rate_limit, beyond=0.1), []

    def stand() -> None:
        with rate_limit.acquire(Priority.PURCHASE, deadline=time.monotonic() + 20):
            order.append("who came later")

    later = threading.Thread(target=stand)
    later.start()
    eventually(lambda: rate_limit.state().waiting == 2, "standing in the queue")
    with (
        leaving_queue(place, beyond=5.0),
        rate_limit.acquire(Priority.PURCHASE, deadline=time.monotonic() + 20),
    ):
        order.append("who was away")
    later.join()
    assert order == ["who was away", "who came later"]
    assert rate_limit.state().waiting == 0


def test_a_turn_that_nobody_takes_up_goes_to_the_next(
    any_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "ABANDONED_AFTER", 0.5)
    rate_limit = make(any_store_url, limit=1, period=0.3)
    use_up(rate_limit)
    began = time.monotonic()
    leave(rate_limit, beyond=0.0)
    with rate_limit.acquire(Priority.PURCHASE, deadline=began + 60):
        waited = time.monotonic() - began
    assert waited > 0.3
    assert rate_limit.state().waiting == 0


def test_one_thread_keeps_all_places_until_their_turn_is_near(any_store_url: str) -> None:
    rate_limit = make(any_store_url, limit=2, period=0.8)
    use_up(rate_limit)
    all_are_kept = threading.Event()

    def look(places: list[Place]) -> dict[str, float]:
        all_are_kept.wait(60)
        return rate_limit.keep(places)

    keeper = Keeper(look)
    kept = [keeper.keep(leave(rate_limit, beyond=0.0), lead=0.2) for _ in range(4)]
    assert sum(thread.name == "smsverify-places" for thread in threading.enumerate()) == 1
    kept[3].cancel()
    all_are_kept.set()
    for future in kept[:3]:
        assert future.result(timeout=60) is None
    eventually(
        lambda: not any(thread.name == "smsverify-places" for thread in threading.enumerate()),
        "the end of the thread",
    )


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (StoreError("it is away"), "it is away"),
        (RecursionError("too deep"), "too deep"),
        ({"another": 0.0}, "KeyError: 'mine'"),
    ],
    ids=["store", "other", "answer"],
)
def test_a_keeper_goes_on_after_any_error(
    first: Any, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify._service.places.TROUBLE", 0.01)
    looks: list[Any] = [first, first, first, {"mine": 0.0}]

    def look(_places: list[Place]) -> dict[str, float]:
        found = looks.pop(0)
        if isinstance(found, Exception):
            raise found
        turns: dict[str, float] = found
        return turns

    assert Keeper(look).keep(Place("mine", 1.0), lead=0.0).result(timeout=20) is None
    assert said in caplog.text
    assert len(caplog.records) == 1  # of the three looks that ended so


# ------------------------------------------------------------------ what buys


def states(hook: SmsVerifyHook) -> list[str]:
    with store_of(hook).read() as connection:
        return list(connection.execute(sa.select(purchases.c.state).order_by(purchases.c.id)).scalars())


@pytest.fixture
def busy(simulate: Callable[..., Simulator], make_hook: MakeHook, any_store_url: str) -> SmsVerifyHook:
    """A hook whose rate limit is used up for a while."""
    simulator = simulate(rate_limit=10, speed=15.0)
    hook = make_hook(simulator, any_store_url, rate_limit=10)
    hook.order("temporary", service="WhatsApp")  # so that prices and list are known
    while hook.rate_limit().available > 0:
        hook.list_countries()
    return hook


def buy(hook: SmsVerifyHook, place: Place | None = None, beyond: float = 0.1) -> Order:
    with leaving_queue(place, beyond=beyond):
        return hook.order("temporary", service="WhatsApp", key="mine")


@pytest.mark.slow
def test_a_purchase_that_leaves_the_queue_is_made_once_when_it_comes_back(busy: SmsVerifyHook) -> None:
    with pytest.raises(TurnIsFar) as far:
        buy(busy)
    assert states(busy) == ["bought", "rejected"]
    order = buy(busy, far.value.place, beyond=10.0)
    assert states(busy) == ["bought", "rejected", "bought"]
    assert buy(busy).order_id == order.order_id  # what is bought costs no turn
    assert busy.rate_limit().waiting == 0


@pytest.mark.slow
def test_a_place_is_of_use_once(busy: SmsVerifyHook) -> None:
    with pytest.raises(TurnIsFar) as far:
        buy(busy)
    with leaving_queue(far.value.place, beyond=10.0, is_first_only=True):
        first = busy.order("temporary", service="WhatsApp")
        assert busy.order("temporary", service="Telegram").order_id != first.order_id  # it has waited for it
    assert busy.rate_limit().waiting == 0
