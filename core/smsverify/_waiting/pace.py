"""How often the service is asked for those who wait: pure functions, with the constants and their reasons.

The pace follows the rate limit. The slots that purchases, reads of codes yet to come and other reads leave
are spread evenly over its period: a poll every 1.5 s where no other request needs them, and every 10 s where
all slots are needed, or more rarely where a code may lie at the service for longer. It is sooner where slots
come back together sooner. Where slots are scarce, the first poll waits until a code can have come.

While callbacks bring the codes, the first poll for a wait comes after 15 s, or after a minute where callbacks
are reliable. The next ones come more and more rarely, until a poll finds a code that no callback has brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smsverify._runtime.clock import DAY, MINUTE
from smsverify._service.rate_limit import Load
from smsverify._service.turns import FASTEST_POLL, LEAST_SHARE, SLOWEST_POLL, Sharing

# All seconds below are of a service whose minute lasts a minute.

# From the start of the oldest wait, at the most, though no slot can be spared; half the time that a code may
# lie where that is more, but no later than this.
FIRST_POLL = 15.0
LATEST_FIRST_POLL = 20.0
SOON = 4.0  # within so many seconds, slots that come back do so together
ONE_BY_ONE = 4  # orders that one poll asks for one by one, at the most: the others have their turn soon
# The same where numbers are ordered ahead. Many codes are read so late that the list shows their orders no
# more, and others follow in each minute.
ONE_BY_ONE_AHEAD = 10

# While callbacks bring the codes, polls only make up for those that were lost.
FIRST_SAFETY_POLL = 15.0  # from the start of a wait to its first poll
PROVEN_SAFETY_POLL = 60.0  # the same, where they have proven themselves
SLOWEST_SAFETY_POLL = 120.0  # between two polls for a long wait
CALLBACK_LATE = 5.0  # after a poll has found a code, its callback may still come
PROOF = 10  # codes in a row that callbacks have brought, the last one of them
LATELY = 60.0  # seconds ago at the most

# An unverified callback asks for a look at its order, and for more where that finds nothing: the service may
# show an SMS a little later than it calls, but strangers can call, too.
CALLBACK_RETRY = 1.5  # after the first look, doubled with each
CALLBACK_LOOKS = 5  # after these, the polls go on as always
CALLBACK_PAUSE = 5.0  # between two looks that further callbacks ask for
UNSIGNED_SHARE = 0.25  # of the rate limit, that callbacks without a secret may take

# The orders of subscriptions are asked for much more rarely than those whose code is waited for.
SUBSCRIPTION = 20.0  # between two looks at one of them
CALLED_SUBSCRIPTION = 600.0  # the same where callbacks come: they bring the messages
SUBSCRIPTION_GAP = 3.0  # between two looks at any of them
SUBSCRIPTION_SHARE = (
    0.25  # of the rate limit, that these looks may take where no class has a share of its own
)
REFUSED_PAUSE = 600.0  # after the service has refused the key
CALLED = DAY  # seconds for which callbacks are relied on after one has come; the service repeats so long

ALIVE = 15.0  # a wait that has not been seen for so long is dead
SHORTEST_ALIVE = 5.0  # seconds, however short the service's minute

SURELY = 60.0  # seconds beyond what is put off, however short the service's minute, that no clock is ahead


@dataclass(frozen=True)
class Arrival:
    """A message that has come.

    Attributes:
        came_at: when, by the store's clock.
        called_at: when its callback came; `None` where none has.
    """

    came_at: float
    called_at: float | None


@dataclass(frozen=True)
class Poll:
    """What is to become of a poll that is due.

    Attributes:
        is_made: whether the service is asked at all.
        pause: seconds until the next one is due.
        one_by_one: orders that are asked for by their status, where the list does not help.
    """

    is_made: bool
    pause: float
    one_by_one: int


def next_poll(
    limit: int,
    period: float,
    *,
    ages: Sequence[float],
    load: Load,
    unlisted: int | None,
    first_poll: float | None,
    sharing: Sharing,
) -> Poll:
    """Whether a poll that is due is made, and when the next one is due.

    Args:
        limit: requests that the service allows in `period` seconds.
        period: seconds.
        ages: of the orders that are waited for, each in seconds since its first wait began.
        load: what the requests of the last period were for.
        unlisted: orders that the list does not show; `None` where the list is of no use.
        first_poll: what `first_safety_poll` says.
        sharing: how purchases, polls and codes share the requests.
    """
    if not ages:
        return Poll(False, FASTEST_POLL * period / MINUTE, 1)
    poll = _by_what_is_left(
        limit, period, ages=ages, load=load, unlisted=unlisted if len(ages) > 1 else None, sharing=sharing
    )
    if first_poll is None:
        return poll
    oldest, youngest = max(ages), min(ages)
    if oldest < first_poll:
        return Poll(False, first_poll - oldest, poll.one_by_one)
    rarely = max(youngest, FIRST_SAFETY_POLL * period / MINUTE)
    rarely = min(rarely, SLOWEST_SAFETY_POLL * period / MINUTE)
    return Poll(True, max(poll.pause, rarely), poll.one_by_one)


def _by_what_is_left(
    limit: int,
    period: float,
    *,
    ages: Sequence[float],
    load: Load,
    unlisted: int | None,
    sharing: Sharing,
) -> Poll:
    """What others leave of the rate limit, spread evenly over its period."""
    second = period / MINUTE
    purchases = min(load.purchases + load.purchases_waiting, int(limit * sharing.purchases))
    purchases = max(load.purchases, purchases)
    # As many codes as the last period had, or as many as there are fresh orders, are to be read. But there
    # are no more of them than orders that are waited for, and those that will be bought.
    fresh = sum(age < period for age in ages) if unlisted is not None else 0
    codes = min(max(load.releases, fresh), len(ages) + purchases)
    left = max(limit * (1 - sharing.slack) - purchases - codes - load.reads, 1.0)
    lists = 0 if unlisted is None else 1
    is_tiny = _is_tiny(limit)
    most = 1 if is_tiny else ONE_BY_ONE_AHEAD if sharing.orders_ahead else ONE_BY_ONE
    cost = lists + min(len(ages) if unlisted is None else unlisted, most)
    fastest, slowest = sharing.fastest_poll * second, sharing.slowest_poll * second
    if is_tiny:
        # So polls leave half of the slots where others need them, and one of them where no other does.
        slowest = max(slowest, 2 * period * cost / limit)
    pause = min(max(period * cost / left, fastest), slowest)
    if fastest < (enough_at := _enough_come_back(load.free_in, fresh, SOON * second)) < pause:
        pause = enough_at
    if is_tiny:
        pause = max(pause, period * cost / max(limit - 1, limit / 2))
    # What was bought just now has no code yet: a slot that is scarce is better spent a little later.
    # Where numbers are ordered ahead, the next moment may need every slot that is idle now.
    first_at = _first_poll(sharing.code_latency) * second
    if not sharing.orders_ahead:
        first_at = min(pause, first_at) if pause > fastest else 0.0
    if max(ages) < first_at:
        return Poll(False, first_at - max(ages), 1)
    # Where polls are rarer than by default, each asks for more, so that none of these orders is forgotten.
    least = most if sharing.orders_ahead else max(1, int(pause / (SLOWEST_POLL * second)))
    return Poll(True, pause, min(max(least, int(left * pause / period) - lists), most))


def _is_tiny(limit: int) -> bool:
    """Whether the limit has too few slots for each class to have one of its own: see `turns`."""
    return limit * LEAST_SHARE < 1


def _first_poll(code_latency: float) -> float:
    """Seconds at time scale 1 from the start of the oldest wait to the first poll, where slots are scarce."""
    return min(max(FIRST_POLL, min(code_latency / 2, LATEST_FIRST_POLL)), code_latency)


def _enough_come_back(free_in: Sequence[float], codes: int, soon: float) -> float:
    """In how many seconds slots come back for codes that have none; 0 where there are enough.

    That is when the first one of them comes back, where the others follow it soon: the poll takes this one,
    so that no purchase takes the others before the codes are known.
    """
    if not codes or not free_in:
        return 0.0
    enough_in = free_in[min(codes, len(free_in)) - 1]
    return max(enough_in - soon, min(seconds for seconds in free_in if seconds > 0)) if enough_in else 0.0


def first_safety_poll(
    period: float,
    *,
    now: float,
    callback_at: float | None,
    newest: Sequence[Arrival],
    is_configured: bool = False,
) -> float | None:
    """Seconds from the start of a wait to its first poll, where callbacks bring the codes, otherwise `None`.

    They do if one has come or they are configured, and polls have found no code since without one.

    Args:
        period: seconds of the service's minute.
        now: by the store's clock.
        callback_at: when the last callback with a secret came; `None` where none has.
        newest: the newest messages, the newest first: as many as polls can have found while their callbacks
            may have been late.
        is_configured: whether this process knows a secret of the callback URL.
    """
    if callback_at is None or callback_at > now:  # the clock was set while no process looked
        if not is_configured:
            return None
        callback_at = 0.0
    late = now - CALLBACK_LATE * period / MINUTE
    if any(one.called_at is None and callback_at <= one.came_at <= late for one in newest):
        return None
    is_recent = callback_at > now - LATELY * period / MINUTE
    is_proven = len(newest) >= PROOF and all(one.called_at is not None for one in newest[:PROOF])
    return (PROVEN_SAFETY_POLL if is_recent and is_proven else FIRST_SAFETY_POLL) * period / MINUTE


def doubts_at(period: float, *, callback_at: float | None, newest: Sequence[Arrival]) -> float | None:
    """When callbacks are not relied on any more, because one has not come by then; `None` where all have.

    Args:
        period, callback_at, newest: as for `first_safety_poll`.
    """
    missed = [one.came_at for one in newest if one.called_at is None and one.came_at >= (callback_at or 0.0)]
    return min(missed) + CALLBACK_LATE * period / MINUTE if missed else None


def is_due(next_at: float, now: float, farthest: float) -> bool:
    """Whether a look on record for `next_at` is due. A time that lies farther ahead than any pause was noted
    by a clock that was set while no process looked.
    """
    return not now < next_at <= now + farthest


def farthest_poll(time_scale: float) -> float:
    """Seconds beyond which no poll is put off."""
    return 2 * SLOWEST_SAFETY_POLL * time_scale + SURELY


def farthest_look(time_scale: float) -> float:
    """Seconds beyond which no look at one order is put off."""
    return 2 * CALLED_SUBSCRIPTION * time_scale + SURELY


def callback_retry(tries: int) -> float:
    """Seconds until an order is looked at again, after so many looks for a callback and one more."""
    return CALLBACK_RETRY * 2.0**tries


def subscription_gap(limit: int) -> float:
    """Seconds between two looks, at any orders, for subscriptions."""
    return MINUTE / (limit * SUBSCRIPTION_SHARE) if _is_tiny(limit) else SUBSCRIPTION_GAP


def unsigned_gap(limit: int) -> float:
    """Seconds between two looks, at any orders, for callbacks that came without a secret."""
    return MINUTE / (limit * UNSIGNED_SHARE)


def alive_for(time_scale: float) -> float:
    """Seconds after which a wait that sends no heartbeat is taken for dead."""
    return max(ALIVE * time_scale, SHORTEST_ALIVE)
