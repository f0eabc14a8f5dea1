"""Tasks that wait for the rate limit hold no worker: they leave their place in the queue to the triggerer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from smsverify.errors import SmsVerifyError
from smsverify.text import log_of
from smsverify.wings import store_name, store_time
from smsverify_provider.arguments import CheckedOperator
from smsverify_provider.results import without_frames
from smsverify_provider.resuming import LEAD, RESUME_GAP
from smsverify_provider.versions import AirflowFailException

if TYPE_CHECKING:
    from smsverify.wings import Place
    from smsverify_provider.hooks.smsverify import SmsVerifyHook

log = log_of(__name__)

T = TypeVar("T")

# Seconds. A task whose turn is nearer waits on its worker: deferred, it would be back after its turn.
WORTH_DEFERRING = RESUME_GAP + LEAD


class WaitsForTurn(CheckedOperator):
    """An operator that is deferred while its paid call waits for the rate limit."""

    deferrable: bool
    smsverify_conn_id: str

    def _at_its_turn(
        self,
        hook: SmsVerifyHook,
        pay: Callable[[], T],
        event: Mapping[str, Any] | None,
        *,
        method_name: str = "execute_complete",
        is_first_only: bool = False,
        passed_on: Mapping[str, str] | None = None,
    ) -> T:
        """Makes a paid call, or defers the task until its turn is near.

        Args:
            hook: on the account.
            pay: makes the call; called again when the task comes back.
            event: what the task has come back with; `None` at the first time.
            method_name: the method that it comes back to.
            is_first_only: whether the worker waits for all turns after the first one.
            passed_on: what the event brings back besides.

        Raises:
            SmsVerifyError: what the call raises, without the frames below it.
        """
        from smsverify.wings import TurnIsFar, leaving_queue

        try:
            if not self.deferrable:
                return pay()
            with leaving_queue(_place_in(event), beyond=WORTH_DEFERRING, is_first_only=is_first_only):
                return pay()
        except TurnIsFar as far:
            place, seconds = far.place, far.seconds
        except SmsVerifyError as error:
            raise without_frames(error) from None
        from smsverify_provider.triggers.smsverify import SmsVerifyTurnTrigger

        log.info("The rate limit lets this task pay in about %.0f s: it is deferred until then", seconds)
        self.defer(
            trigger=SmsVerifyTurnTrigger(
                place=place.id,
                arrived_at=place.arrived_at,
                not_before=store_time(hook) + RESUME_GAP,
                store=store_name(hook),
                passed_on=dict(passed_on or {}),
                smsverify_conn_id=self.smsverify_conn_id,
            ),
            method_name=method_name,
        )


def _place_in(event: Mapping[str, Any] | None) -> Place | None:
    if event is None or "place" not in event:
        return None
    if event.get("detail"):
        raise AirflowFailException(event["detail"])
    from smsverify.wings import Place

    return Place(event["place"], event["arrived_at"])
