"""Tasks that run in another process than their flow, such as those of `ProcessPoolTaskRunner`.

Nothing that goes on in the flow's process gets there. So they look now and then whether that process is
gone, and whether the flow run is being cancelled or has ended. What they can not see is a SIGTERM or SIGINT
that was sent to the flow's process alone: it does not end before their waits do, or before it is killed.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import copy_context
from multiprocessing import parent_process
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from prefect_smsverify.keys import enclosing

LOOK = 3.0  # seconds between two looks; a cancelled flow run is given 30 until it is killed

log = logging.getLogger(__name__)

_looks: weakref.WeakValueDictionary[UUID, _Look] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def signs_of_an_end() -> Iterator[Callable[[], bool]]:
    """What holds when a flow has ended, or is about to, that this code is a part of in another process."""
    for flow in enclosing(FlowRunContext):
        if flow.detached and flow.flow_run is not None:
            yield _look_at(flow.flow_run.id).has_ended


def _look_at(flow_run_id: UUID) -> _Look:
    with _lock:
        look = _looks.get(flow_run_id)
        if look is None:
            look = _looks[flow_run_id] = _Look()
            # In the settings of this run: they say where the server is.
            thread = threading.Thread(
                target=copy_context().run,
                args=(_keep_looking, flow_run_id, weakref.ref(look)),
                name="smsverify-flow-run",
                daemon=True,
            )
            thread.start()
        return look


class _Look:
    """What was seen of a flow run, for as long as somebody wants to know."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def has_ended(self) -> bool:
        return self.ended.is_set()


def _keep_looking(flow_run_id: UUID, wanted: weakref.ref[_Look]) -> None:
    while (look := wanted()) is not None:
        if _parent_is_gone() or _is_ending(flow_run_id):
            look.ended.set()
            return
        del look
        threading.Event().wait(LOOK)


def _parent_is_gone() -> bool:
    parent = parent_process()
    return parent is not None and not parent.is_alive()


def _is_ending(flow_run_id: UUID) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run_id).state
    except Exception as error:  # whatever is wrong with the server, it is asked again
        log.debug("Flow run %s can not be looked at: %s", flow_run_id, error)
        return False
    return state is not None and (state.is_cancelling() or state.is_final())
