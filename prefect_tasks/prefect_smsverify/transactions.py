"""What the end of a transaction, a block or a flow run means for the orders that were bought in it.

An order is handed over when the code around it has come to a good end: a block that holds it, otherwise the
transaction (each task run is one), otherwise the flow run. Until then only this process knows of it.

An order is given back when its transaction is undone. Prefect rolls a transaction back as soon as a task in
it fails, also when that task has retries left. Then the transaction goes on, the next attempt may succeed,
and the order is still needed. So a transaction counts as undone when an error leaves it, or when a task in it
fails that is not tried again.

The time limit of a coroutine cancels a scope of anyio's. Prefect rolls back inside of that scope, where it
can start no thread, so its first hook ends the rollback. Ours shield themselves and what they roll back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import anyio
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.transactions import AsyncTransaction, BaseTransaction, TransactionState, get_transaction

from prefect_smsverify.keys import enclosing
from prefect_smsverify.threads import to_its_end
from smsverify.wings import ProcessLock

if TYPE_CHECKING:
    from smsverify import SmsVerifyHook
    from smsverify.models import Order
    from smsverify.wings import Handover, Held

# -------------------------------------------------------------- undoing


def transactions() -> Iterator[BaseTransaction]:
    """The transactions that this code is a part of, the innermost first. Each task run is one."""
    transaction = get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.get_parent()


def on_undo(
    transaction: BaseTransaction, undo: Callable[[], object], keep: Callable[[], object] | None = None
) -> None:
    """When a transaction that this code is a part of ends: calls `undo` if it is undone, `keep` if not."""
    around = frozenset(context.task_run.id for context in enclosing(TaskRunContext))

    def undo_unless_tried_again() -> None:
        step, rolled_back = TaskRunContext.get(), get_transaction()
        if step is not None and step.task_run.id not in around and _is_tried_again(step):
            if rolled_back is not None:
                join(rolled_back)
                # Otherwise Prefect would neither roll it back a second time, nor what joins it from now on.
                rolled_back.state = TransactionState.ACTIVE
        else:
            undo()

    def join(joined: BaseTransaction) -> None:
        # As a child, since Prefect rolls children back after it has changed the transaction's own state; and
        # not as a hook of the task, which `Task.with_options` of Prefect 3.7 drops.
        child = type(joined)(
            state=TransactionState.STAGED,
            on_commit_hooks=[_hook(joined, keep)] if keep else [],
            on_rollback_hooks=[_hook(joined, undo_unless_tried_again)],
        )
        joined.add_child(child)

    join(transaction)
    for outer in transactions():
        if isinstance(outer, AsyncTransaction):
            _append_once(outer.on_rollback_hooks, _roll_children_back)


def _hook(transaction: BaseTransaction, call: Callable[[], object]) -> Callable[[Any], Any]:
    """A hook of a transaction, which Prefect does not log: what it calls logs what it does."""

    def hook(_: Any) -> None:
        call()

    async def shielded(_: Any) -> None:
        await to_its_end(call, "transaction")

    chosen: Any = shielded if isinstance(transaction, AsyncTransaction) else hook
    chosen.log_on_run = False
    return cast("Callable[[Any], Any]", chosen)


async def _roll_children_back(transaction: AsyncTransaction) -> None:
    """A hook, which does what Prefect does next, behind a shield."""
    with anyio.CancelScope(shield=True):
        for child in reversed(transaction.children):
            if isinstance(child, AsyncTransaction):
                await child.rollback()
            else:
                child.rollback()


_roll_children_back.log_on_run = False  # type: ignore[attr-defined]


def _is_tried_again(step: TaskRunContext) -> bool:
    """Whether a task that has just failed is likely to be tried again.

    Its `retry_condition_fn` may refuse. Then its error goes on, and undoes the transactions that it leaves.
    """
    return step.task_run.run_count <= step.task.retries


# -------------------------------------------------------------- handing over


@dataclass
class Bought:
    """Takes the order that a block buys at once: a signal may come before the task returns it."""

    hook: SmsVerifyHook | None = None
    order: Order | None = None
    handover: Handover | None = None
    held: Held | None = None

    def is_used(self) -> bool:
        """Whether any call has returned the order's code."""
        if self.order is None or self.handover is None:
            return False
        return self.handover.was_used(self.order.order_id)


_bought: ContextVar[Bought | None] = ContextVar("smsverify_bought", default=None)


@contextmanager
def buying_for(block: Bought) -> Iterator[None]:
    """Leaves an order that is bought in it to a block, which gives it back at its end; no rollback does."""
    token = _bought.set(block)
    try:
        yield
    finally:
        _bought.reset(token)


def block_around() -> Bought | None:
    """The block that an order bought here is left to."""
    return _bought.get()


def is_in_a_run() -> bool:
    """Whether an order that is bought here is handed over later."""
    return block_around() is not None or get_transaction() is not None or FlowRunContext.get() is not None


def hand_over_at_the_end(
    order_id: int, handover: Handover, holder: str, at_end: Callable[[], object]
) -> None:
    """Hands an order over when the code around it has come to a good end."""
    block, flow = block_around(), FlowRunContext.get()
    transaction = _transaction_with_an_end()
    if transaction is None:  # A flow run that begins again repeats what is in no task.
        at_end()
    held = handover.hold(order_id, holder=holder, claims=block is not None, at_end=at_end)
    if block is not None:
        block.handover, block.held = handover, held
    elif transaction is not None:
        on_undo(transaction, held.let_go, keep=held.hand_over)
    elif flow is not None and flow.flow is not None and flow.flow_run is not None:
        _at_end_of(flow.flow, flow.flow_run, held)
    else:
        held.hand_over()


def _transaction_with_an_end() -> BaseTransaction | None:
    """The innermost transaction around this code that calls its hooks at its end.

    One that is rolled back, because the error of a step was caught, calls none, and commits none in it.
    """
    found = None
    for transaction in transactions():
        if transaction.is_rolled_back():
            found = None
        elif found is None:
            found = transaction
    return found


# By flow run of this process: the orders that were bought in it outside of any task.
_held_by: dict[Any, list[Held]] = {}
_lock = ProcessLock()


def _at_end_of(flow: Any, run: FlowRun, held: Held) -> None:
    with _lock:
        _held_by.setdefault(run.id, []).append(held)
    # Each list by itself: a flow that `with_options` has made shares some with the one before.
    _append_once(flow.on_completion_hooks, hand_over_orders)
    for hooks in (flow.on_failure_hooks, flow.on_cancellation_hooks, flow.on_crashed_hooks):
        _append_once(hooks, let_orders_go)
    # A hook of the flow buys after its end, and so may a coroutine that the flow has left behind. Prefect has
    # called these hooks then, or is about to.
    if run.state is not None and run.state.is_final():
        end = hand_over_orders if run.state.is_completed() else let_orders_go
        end(flow, run, run.state)


def _append_once(hooks: list[Any], hook: Any) -> None:
    if hook not in hooks:
        hooks.append(hook)


# Prefect's runner gives the parameters of a flow hook by these names.


def hand_over_orders(flow: Any, flow_run: Any, state: Any) -> None:
    """A flow hook: the run has completed, so its orders are handed over."""
    for held in _taken_from(flow_run):
        held.hand_over()


def let_orders_go(flow: Any, flow_run: Any, state: Any) -> None:
    """A flow hook: the run has not completed, so its orders are let go."""
    for held in _taken_from(flow_run):
        held.let_go()


def _taken_from(run: Any) -> list[Held]:
    with _lock:
        return _held_by.pop(run.id, [])
