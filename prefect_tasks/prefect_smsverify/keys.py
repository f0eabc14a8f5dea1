"""The key of a purchase that was given none: the same in every attempt of the same call.

Prefect gives a task run another id in each attempt of its flow, so no id of the call itself can be the key.
What stays is the root flow run, what is bought, in which tasks and subflows, and how many equal calls came
before: its ordinal.

Ordinals are counted in the memory of the process, from zero in each attempt. A flow that is retried, or run
again after its process was killed, makes its calls in the same order, and so it meets its orders again. Calls
that run at the same time may change places, but only equal ones: what they buy is interchangeable.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import weakref
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext

from prefect_smsverify.plain import plain
from smsverify.errors import InvalidRequestError
from smsverify.wings import ProcessLock

SWEEP = 10_000  # calls until the places that are over are forgotten

Context = TypeVar("Context", FlowRunContext, TaskRunContext)


@dataclass(frozen=True)
class Place:
    """A task or flow run that a call is made in.

    Attributes:
        id: of the run.
        attempt: which attempt of it.
        call: what runs, and with what.
        context: lives as long as the attempt.
    """

    id: UUID
    attempt: int
    call: str
    context: weakref.ref[Any]


@dataclass
class _Attempt:
    """The calls of one attempt of a place."""

    attempt: int
    slots: dict[Hashable, int]
    context: weakref.ref[Any]


@dataclass(frozen=True)
class RunKey:
    """A key, and the numbers that it is made of."""

    text: str
    _numbers: list[tuple[dict[Hashable, int], Hashable]]

    def give_back(self) -> None:
        """The purchase has failed: the next equal call is the same purchase again, and gets the same key."""
        with _lock:
            for slots, slot in self._numbers:
                slots.pop(slot, None)


_attempts: dict[tuple[UUID, str], _Attempt] = {}
_calls = itertools.count(1)
_lock = ProcessLock()


def run_key(purpose: str) -> RunKey | None:
    """A key that all attempts of this call share, and no other call; `None` outside of a run.

    Args:
        purpose: what the key is for, such as the fingerprint of a purchase.

    Raises:
        InvalidRequestError: the task runs in another process than its flow, so nothing counts its calls.
    """
    if any(flow.detached for flow in enclosing(FlowRunContext)):
        raise InvalidRequestError(
            "key is missing: this task runs in another process than its flow, where equal calls cannot be "
            "distinguished. Nothing was sent. Give each purchase a key, such as the flow run's id and what "
            "the number is for",
            field="key",
        )
    places = list(_places())
    if not places:
        return None
    scope = [place.call for place in places[:-1]]
    digest = hashlib.sha256(json.dumps([purpose, scope]).encode()).hexdigest()[:16]
    numbers = _number(places, digest)
    slots, slot = numbers[-1]
    return RunKey(f"prefect:{places[-1].id}:{digest}:{slots[slot]}", numbers)


def _number(places: list[Place], digest: str) -> list[tuple[dict[Hashable, int], Hashable]]:
    """Numbers a call among its equals in each place around it; the last number, in the root, is its ordinal.

    A place numbers what is called in it, and the places inside of it, in the order of their first appearance
    in the attempt. So a further attempt of a place inside hands out the numbers again that the last one had.
    """
    numbers: list[tuple[dict[Hashable, int], Hashable]] = []
    slot: Hashable = object()  # in the innermost place, each call is another one
    with _lock:
        for place in places:
            known = _attempts.get((place.id, digest))
            if known is None or known.attempt != place.attempt:
                known = _attempts[place.id, digest] = _Attempt(place.attempt, {}, place.context)
            known.context = place.context
            slots = known.slots
            if slot not in slots:
                taken = set(slots.values())
                slots[slot] = next(number for number in itertools.count() if number not in taken)
            numbers.append((slots, slot))
            slot = (place.id, slots[slot])
        if next(_calls) % SWEEP == 0:
            _forget_what_is_over()
    return numbers


def _forget_what_is_over() -> None:
    # Never what still runs, however many calls it makes: the next equal call would get the key of the first.
    for place in [place for place, known in _attempts.items() if known.context() is None]:
        del _attempts[place]


def _places() -> Iterator[Place]:
    """The task and flow runs around this call, the innermost first."""
    tasks = {context.task_run.id: context for context in enclosing(TaskRunContext)}
    flows = {run.id: (run, context) for context in enclosing(FlowRunContext) if (run := context.flow_run)}
    for flow_id in flows or [None]:
        for task_id, task in tasks.items():
            if task.task_run.flow_run_id == flow_id:
                call = _call(task.task.name, task.parameters)
                yield Place(task_id, task.task_run.run_count, call, weakref.ref(task))
        if flow_id is not None:
            run, flow = flows[flow_id]
            call = _call(flow.flow.name if flow.flow else "", flow.parameters)
            yield Place(flow_id, run.run_count, call, weakref.ref(flow))


def enclosing(kind: type[Context]) -> Iterator[Context]:
    """The contexts of a kind that this code runs in, the innermost first."""
    context = kind.get()
    while context is not None:
        yield context
        # Prefect has no public way to the outer context. Without it, only the innermost one is known.
        outer = getattr(getattr(context, "_token", None), "old_value", None)
        context = outer if isinstance(outer, kind) else None


def _call(name: str, parameters: dict[str, Any] | None) -> str:
    """What runs, and with what: that distinguishes the calls of one run."""
    try:
        return json.dumps([name, plain(parameters)])
    except (TypeError, ValueError, RecursionError):
        return name
