"""Whose turn it is: which request goes next, and when, by the slots of a key and the requests that wait.

Requests wait in a queue, by priority and then by arrival. A slot goes to the first of them when it becomes
free. So that no class starves, each goes first while it holds less than a twelfth of the slots; releases
(what gives money back, and reads of codes that are known to be there) while they hold less than a quarter.

A release must not wait for a minute because others have just spent all slots. So every other request leaves
one of 20 slots to releases, unless as many others are free again within 4 s of the service's minute. So with
60 slots three releases find one at once after a burst of all the others, and within 4 s where the requests
are spread over the minute; then no slot has to be kept. With fewer than 20 slots none is kept, since one is
more than 5 % of the limit: a release gets the next slot that is free, which after a burst is up to a minute
later.

Each number whose code is polled for costs a second request, to read the code. If all slots were spent on
numbers, none would be left for the codes until the numbers' slots come back, a whole period later. So while
codes are polled for, purchases hold at the most half of the slots that polls leave: 45 of 100 by default.
They also leave a twentieth free, so that a code that has come need not wait. The longer a code may lie at the
service, the rarer are the polls, and the more is left for numbers and their codes (`Sharing`).

Slots that were idle for a whole period belong to no code. Where a code may lie for half a minute, they may be
spent on numbers at once: the codes of these numbers wait until the slots come back, for half a minute on
average. So that no purchase takes these slots before a poll has found the codes, purchases leave each slot
alone for a second then.

After a pause that the service asked for (429), requests leave one by one, until it has accepted one.

Before the first poll, this also holds for a moment, because it is not known yet whether the codes will be
polled for. A user who only buys, or gets the codes by callbacks, is not held back; where callbacks are
configured, not even for that moment.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from smsverify.models import LIST_LENGTH

CODE_LATENCY = 5.0  # seconds at time scale 1 that a code may lie at the service while requests are scarce
# Seconds at time scale 1 between two polls, at the least. Faster, a code would hardly be in hand sooner:
# people and pages take seconds.
FASTEST_POLL = 1.5
# Seconds at time scale 1 between two polls, at the most, where other requests need the slots: no less for a
# code that may lie for 5 s or more, and no more for any.
SLOWEST_POLL = 10.0
RAREST_POLL = 30.0
# Where a code may lie for so long, numbers are ordered ahead on idle slots, as many as the list shows.
ORDERS_AHEAD = 30.0
# Shares of the slots.
FREE_SHARE = 1 / 20  # purchases leave this free while codes are polled for, and may lie for 5 s
SLACK = 1 / 30  # polls leave this unused then, since the next minute may need more than the last one
LEAST_SHARE = 1 / 12  # each class gets this, whatever the others want
RELEASE_SHARE = 1 / 4  # releases get this
KEPT_SHARE = 1 / 20  # others leave this to releases
AHEAD_SHARE = 5 / 6  # purchases hold this at the most where numbers are ordered ahead
# Seconds at time scale 1.
FIRST_POLL = 10.0  # after the first purchase, codes are expected to be polled for within this time
RELEASE_WITHIN = 4.0  # a release waits no longer
TRIAL = 2.0  # after a pause that the service asked for, between two requests until it has accepted one
HEAD_START = 1.0  # of a poll and the reads of codes, for a slot that comes back, before numbers ordered ahead


@dataclass(frozen=True)
class Sharing:
    """How purchases, polls and codes share the slots.

    Attributes:
        code_latency: seconds at time scale 1 that a code may lie at the service while requests are scarce.
        expects_polls: whether codes will be polled for, as far as is known before the first poll.
    """

    code_latency: float = CODE_LATENCY
    expects_polls: bool = True

    @property
    def free(self) -> float:
        """The share of the slots that purchases leave free: the less, the longer a code may lie."""
        return FREE_SHARE * self._haste

    @property
    def slack(self) -> float:
        """The share of the slots that polls leave unused."""
        return SLACK * self._haste

    @property
    def fastest_poll(self) -> float:
        """Seconds at time scale 1 between two polls where the rate limit is idle.

        What a poll takes then, a number of the same minute may need: a task may order it a moment later. So
        where a code may lie for longer, polls are rarer: a code lies for a twentieth of that on average.
        """
        return min(max(FASTEST_POLL, self.code_latency / 10), RAREST_POLL)

    @property
    def slowest_poll(self) -> float:
        """Seconds at time scale 1 between two polls, at the most, while callbacks bring no codes.

        A code lies for half of this on average, until a poll finds it. Where it may lie for longer than 5 s,
        these are left for it to wait for a slot.
        """
        longest = min(SLOWEST_POLL, 2 * self.code_latency)
        return min(max(longest, 2 * (self.code_latency - CODE_LATENCY)), RAREST_POLL)

    @property
    def purchases(self) -> float:
        """The share of the slots that purchases hold at the most, while codes are polled for.

        It is half of what the polls leave, so that each code finds a slot.
        """
        return max((1 - 1 / self.slowest_poll) / 2, LEAST_SHARE)

    @property
    def orders_ahead(self) -> bool:
        """Whether idle slots may be spent on more numbers than can have their codes in the same minute."""
        return self.code_latency >= ORDERS_AHEAD

    @property
    def _haste(self) -> float:
        return min(CODE_LATENCY / self.code_latency, 1.0)


class Priority(enum.IntEnum):
    """Who goes first when requests wait for the rate limit."""

    RELEASE = 0
    """Requests that give money back, and reads of codes that are known to be there."""
    POLL = 1
    """The poll that is due, for all waits for codes."""
    READ = 2
    """Other reads."""
    PURCHASE = 3
    """Requests that spend money."""


@dataclass(frozen=True)
class Waiting:
    """The requests of one class that wait.

    Attributes:
        count: how many.
        before: how many of them came before the request in question.
        first_at: when the first of them came, by the store's time.
    """

    count: int = 0
    before: int = 0
    first_at: float = math.inf


_NONE = Waiting()


@dataclass(frozen=True)
class Slot:
    """A slot: when it is free again, when it was last used, and for what.

    `priority` is `None` where it was not used: ever, or the last time, because nothing was sent.
    """

    number: int
    free_at: float
    used_at: float
    priority: Priority | None


@dataclass(frozen=True)
class Snapshot:
    """The slots of a key, as of one moment.

    Attributes:
        now: the store's time.
        read_at: the machine's uptime at that moment, or a little before.
        period: seconds after which a slot is free again.
        slots: the slots, the first to be free first.
        blocked_until: no request is sent before this.
        polled_until: codes are polled for until then.
        refusals: how often the service has refused a request for its rate.
        pauses: how many pauses of all requests are over or under way since the service has accepted one last.
        sharing: how the slots are shared.
    """

    now: float
    read_at: float
    period: float
    slots: list[Slot]
    blocked_until: float
    polled_until: float
    refusals: int
    pauses: int = 0
    sharing: Sharing = Sharing()

    @property
    def limit(self) -> int:
        """How many slots there are."""
        return len(self.slots)

    @property
    def taken(self) -> list[Slot]:
        """The slots that are not free."""
        return [slot for slot in self.slots if slot.free_at > self.now]

    @property
    def is_blocked(self) -> bool:
        """Whether the service has asked for silence."""
        return self.blocked_until > self.now

    def held(self, priority: Priority) -> int:
        """How many requests of a class the last period has seen."""
        return sum(slot.priority is priority for slot in self.taken)

    def turn(self, mine: Priority, waiting: Mapping[Priority, Waiting]) -> tuple[float, Slot]:
        """When it is a request's turn as things are, and which slot it takes then.

        Args:
            mine: its class.
            waiting: the other requests that wait.
        """
        ahead, turn_at = self._ahead(mine, waiting), self.earliest(mine, waiting)
        if self.pauses:
            turn_at = max(turn_at, self._trial_at(ahead))
        return turn_at, self.slots[ahead % self.limit]

    def earliest(self, mine: Priority, waiting: Mapping[Priority, Waiting]) -> float:
        """When it is a request's turn at the earliest: after a pause, if the next request is accepted.

        Args:
            mine, waiting: as for `turn`.
        """
        ahead = self._ahead(mine, waiting)
        turn_at = max(self._free_at(ahead), self.blocked_until)
        if self.pauses:
            turn_at = max(turn_at, self._trial_at(0))
        if mine is not Priority.RELEASE:
            turn_at = max(turn_at, self._leaves_enough_for_releases_at(ahead))
        if mine is Priority.PURCHASE:
            place = waiting.get(mine, _NONE).before
            turn_at = max(turn_at, self._leaves_enough_for_codes_at(place, ahead))
        return turn_at

    def _free_at(self, place: int) -> float:
        """When a slot is free for the request at this place of the queue; the first is at 0."""
        return self.slots[place % self.limit].free_at + (place // self.limit) * self.period

    def _trial_at(self, place: int) -> float:
        """When the request at this place of the queue tries whether the service accepts requests again."""
        gap = TRIAL * self.period / 60
        tried = [slot.used_at for slot in self.slots if slot.used_at >= self.blocked_until]
        return max(tried, default=self.blocked_until - gap) + (place + 1) * gap

    def _ahead(self, mine: Priority, waiting: Mapping[Priority, Waiting]) -> int:
        """How many waiting requests go before a request of this class."""
        ahead = place = waiting.get(mine, _NONE).before
        is_urgent = place < self._urgent(mine)
        for other, others in waiting.items():
            if other < mine:
                ahead += min(others.count, self._urgent(other)) if is_urgent else others.count
            elif other > mine and not is_urgent:
                ahead += min(others.count, self._urgent(other))
        return ahead

    def _urgent(self, priority: Priority) -> int:
        """How many more requests of a class go before all others."""
        share = RELEASE_SHARE if priority is Priority.RELEASE else LEAST_SHARE
        return max(0, int(self.limit * share) - self.held(priority))

    def _leaves_enough_for_releases_at(self, ahead: int) -> float:
        """When a request, with so many before it, leaves enough slots, or enough will be free in time."""
        kept = int(self.limit * KEPT_SHARE)
        if not kept or not self._urgent(Priority.RELEASE):
            return self.now
        return self._free_at(ahead + kept) - RELEASE_WITHIN * self.period / 60

    @property
    def _most_purchases(self) -> int:
        """How many slots purchases hold at the most, while codes are polled for."""
        lasting = max(1, int(self.limit * self.sharing.purchases))
        if not self.sharing.orders_ahead:
            return lasting
        # A slot that has come back within this period was used in the one before, perhaps for a number whose
        # code is not read yet.
        before = self.now - self.period
        used = [slot.used_at for slot in self.slots if slot.priority is not None]
        were_idle = not any(before - self.period < used_at <= before for used_at in used)
        return max(lasting, min(int(self.limit * AHEAD_SHARE), LIST_LENGTH)) if were_idle else lasting

    def _leaves_enough_for_codes_at(self, place: int, ahead: int) -> float:
        """When a purchase, with so many purchases and requests before it, leaves enough slots for codes."""
        held = [slot for slot in self.taken if slot.priority is Priority.PURCHASE]
        if len(held) + place < int(self.limit * LEAST_SHARE):
            return self.now
        share = self._most_purchases
        behind = place - (share - len(held))
        if behind < 0:
            has_share_at = self.now
        elif behind < len(held):
            has_share_at = held[behind].free_at
        else:
            has_share_at = self.now + self.period * (1 + (behind - len(held)) // share)
        last_taken = min(ahead + int(self.limit * self.sharing.free), self.limit - 1)
        leaves_some_free_at = self.slots[last_taken].free_at
        if self.sharing.orders_ahead:
            back_at = self.slots[min(ahead, self.limit - 1)].free_at
            leaves_some_free_at = max(leaves_some_free_at, back_at + HEAD_START * self.period / 60)
        first = min((slot.used_at for slot in held), default=self.now)
        first_poll_at = first + FIRST_POLL * self.period / 60 if self.sharing.expects_polls else self.now
        free_for_all_at = max(self.polled_until, first_poll_at)
        return min(max(has_share_at, leaves_some_free_at), free_for_all_at)
