"""When what was done in a transaction is undone.

Prefect rolls a transaction back as soon as a task in it has failed: also where that task has retries left,
and the next attempt may well succeed. Then the transaction goes on, and what it holds is still wanted. It is
undone when a failure leaves the transaction, or when a task in it fails that is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prefect.context import TaskRunContext
from prefect.transactions import BaseTransaction, TransactionState, get_transaction

from prefect_smsverify.keys import enclosing


def transactions() -> Iterator[BaseTransaction]:
    """The transactions that this code is a part of, the innermost first. Each task run is one."""
    transaction = get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.get_parent()


def on_undo(transaction: BaseTransaction, undo: Callable[[], object]) -> None:
    """Has something called when a transaction that this code is a part of is undone."""
    around = frozenset(context.task_run.id for context in enclosing(TaskRunContext))

    def undo_unless_tried_again(_: BaseTransaction) -> None:
        step, rolled_back = TaskRunContext.get(), get_transaction()
        if step is not None and step.task_run.id not in around and _is_tried_again(step):
            if rolled_back is not None:
                join(rolled_back)
                # Else Prefect would neither roll it back a second time, nor what joins it from now on.
                rolled_back.state = TransactionState.ACTIVE
        else:
            undo()

    def join(joined: BaseTransaction) -> None:
        # As a child, since Prefect rolls children back after it has changed the transaction's own state; and
        # not as a hook of the task, which `Task.with_options` of Prefect 3.7 drops.
        child = type(joined)(state=TransactionState.STAGED, on_rollback_hooks=[undo_unless_tried_again])
        joined.add_child(child)

    # Prefect's way to say nothing of a hook: what is undone is logged where that is done.
    undo_unless_tried_again.log_on_run = False  # type: ignore[attr-defined]
    join(transaction)


def _is_tried_again(step: TaskRunContext) -> bool:
    """Whether a task that has just failed is likely to be tried again.

    Its `retry_condition_fn` may say no. Then its error goes on, and undoes what it leaves.
    """
    return step.task_run.run_count <= step.task.retries
