"""Requests to the service: each with a slot of the rate limit, and repeated where that is safe."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import tenacity

from smsverify._runtime.properties import cached_property
from smsverify._service.answers import Answer, Reply, as_error, as_reply, is_rejection, unexpected
from smsverify._service.exchange import Exchange, Request, WireError
from smsverify._service.rate_limit import HeldSlot, Priority, RateLimit, backoff
from smsverify._service.service_clock import ServiceClock
from smsverify.errors import (
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
    StoreError,
    WaitStoppedError,
)
from smsverify.settings import Settings, refuse_what_is_not_allowed
from smsverify.text import log_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from smsverify._service.wire import Wire

log = log_of(__name__)

ATTEMPTS = 4
HASTE = 10.0  # seconds for the answer to a hasty call, which has two attempts, and twice that for all of it


class OutcomeUnknown(Exception):
    """A POST may or may not have been carried out; `cause` is the error that was seen."""

    def __init__(self, cause: ServiceError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class NotReady(Exception):
    """`before_sending` raises this where something has to be done first, without the slot of this request.

    Args:
        prepare: does it. Then the request waits for its turn again, at the place in the queue that it had.
        why: it has to be done, for people.
    """

    def __init__(self, prepare: Callable[[], None], why: str) -> None:
        super().__init__(why)
        self.prepare = prepare


class CallOptions(TypedDict, total=False):
    """How a request is sent.

    Attributes:
        stop: ends the waiting for a slot, and the pauses, when it is set.
        hasty: whether to give up sooner, because the caller is about to end.
        once: whether one attempt is enough, because the caller asks again later.
        before_sending: called when the request has its slot, and again right before its first byte where much
            time has passed since. What it raises keeps the request from leaving.
        while_waiting: called now and then until the request has its slot. What it raises ends the waiting.
    """

    stop: threading.Event | None
    hasty: bool
    once: bool
    before_sending: Callable[[], None] | None
    while_waiting: Callable[[], None] | None


@dataclass
class _Call:
    """A request, and how it may be sent.

    `slot` is the last one that it had. Where it could not leave, or was refused, it waits for the next one at
    the same place in the queue: `keeps_place`.
    """

    endpoint: str
    request: Request
    priority: Priority
    is_repeatable: bool
    stop: threading.Event | None = None
    hasty: bool = False
    once: bool = False
    before_sending: Callable[[], None] | None = None
    while_waiting: Callable[[], None] | None = None
    slot: HeldSlot | None = None
    keeps_place: bool = False


class _CannotPrepare(Exception):
    """The preparation that `NotReady` asked for has failed; it is not repeated with the request."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Transport:
    """Sends requests to the service within the shared rate limit. Safe to use from several threads.

    Args:
        settings: address, key and times.
        rate_limit: the key's; every attempt takes a slot of it.
    """

    def __init__(self, settings: Settings, rate_limit: RateLimit) -> None:
        self._settings = settings
        self._rate_limit = rate_limit
        self.clock = ServiceClock()

    @cached_property
    def _wire(self) -> Wire:
        from smsverify._service.wire import Wire

        return Wire(self._settings)

    def get(
        self,
        path: str,
        params: dict[str, str] | None = None,
        *,
        priority: Priority = Priority.READ,
        **options: Unpack[CallOptions],
    ) -> Reply:
        """Reads. Repeats attempts that failed through no fault of the request, for `call_timeout` seconds.

        Raises:
            ServiceError: by what the service answered, or `ServiceUnavailableError`.
            WaitStoppedError: `stop` was set.
        """
        request = Request("GET", self._settings.base_url + path, params=params)
        try:
            return self._repeat(_Call(f"GET {path}", request, priority, is_repeatable=True, **options))
        except OutcomeUnknown as unknown:
            raise unknown.cause from unknown.cause.__cause__

    def post(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        priority: Priority,
        is_repeatable: bool = False,
        **options: Unpack[CallOptions],
    ) -> Reply:
        """Changes something. Repeats only what was provably not carried out, unless a repeat is harmless.

        Raises:
            ServiceError: the request was not carried out. One that may be repeated: it was answered with an
                error.
            OutcomeUnknown: the request may have been carried out.
            WaitStoppedError: `stop` was set. Only a request that may be repeated may have been carried out.
        """
        request = Request("POST", self._settings.base_url + path, body=body)
        return self._repeat(_Call(f"POST {path}", request, priority, is_repeatable, **options))

    # -------------------------------------------------------------- repeating

    def _repeat(self, call: _Call) -> Reply:
        _ = self._wire  # loaded before the request has its turn
        # A hook may have read its settings before the test that must not reach their service.
        refuse_what_is_not_allowed(self._settings, os.environ)
        patience = self._settings.call_timeout
        deadline = time.monotonic() + patience
        if call.hasty:
            patience = min(2 * HASTE, patience)
            # Slots may come back one by one, and a release has one of the next two.
            period, limit = self._rate_limit.period, self._rate_limit.limit
            turn = 2 * period / limit if call.priority is Priority.RELEASE else period
            deadline = min(deadline, time.monotonic() + patience + turn)

        def may_repeat(error: BaseException) -> bool:
            if isinstance(error, OutcomeUnknown):
                return call.is_repeatable
            return isinstance(error, ServiceUnavailableError)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_repeat),
            wait=self._pause,
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(1 if call.once else 2 if call.hasty else ATTEMPTS),
                tenacity.stop_before_delay(patience),
            ),
            sleep=lambda seconds: _sleep(seconds, call),
            before_sleep=_log_repetition,
            reraise=True,
        )
        try:
            return retrying(self._attempt, call, deadline)
        except _CannotPrepare as failed:
            raise failed.reason from failed.reason.__cause__

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after", None) or 0.0
        return max(asked, backoff(state.attempt_number - 1, self._settings.time_scale))

    def _attempt(self, call: _Call, deadline: float) -> Reply:
        """One attempt. A 429 is no failure: all wait as long as it says, then the request is sent again."""
        refusal: ServiceError | None = None
        while True:
            try:
                answer = self._exchange(call, deadline)
            except NotReady as not_ready:
                if time.monotonic() > deadline:
                    raise ServiceUnavailableError(
                        f"{call.endpoint} was not sent within call_timeout={self._settings.call_timeout:g} "
                        f"s. Each time its turn came, {not_ready}. Try again later, or set a longer "
                        "call_timeout",
                        endpoint=call.endpoint,
                    ) from None
                _prepare(not_ready)
                continue
            except RateLimitedError as error:
                # The turn does not come in time. What the service itself said explains more.
                if refusal is not None:
                    refusal.retry_after = error.retry_after
                    raise refusal from error
                raise
            if answer.status_code != 429:
                return self._understand(answer, call)
            refusal = as_error(answer)
            self._rate_limit.block(refusal.retry_after or 0.0)
            call.keeps_place = True

    def _exchange(self, call: _Call, deadline: float) -> Answer:
        timeout = min(self._settings.read_timeout, HASTE if call.hasty else math.inf)
        with self._rate_limit.acquire(
            call.priority,
            deadline=deadline,
            stop=call.stop,
            while_waiting=call.while_waiting,
            instead_of=call.slot if call.keeps_place else None,
        ) as slot:
            call.slot, call.keeps_place = slot, False
            exchange = Exchange(
                call.endpoint,
                call.request,
                slot,
                call.before_sending,
                timeout=timeout,
                longest=self._settings.longest_exchange,
            )
            try:
                exchange.announce()
                return self._wire.send(exchange)
            except WireError as error:
                how = "answered" if exchange.may_have_left else "sent"
                unavailable = ServiceUnavailableError(
                    f"{call.endpoint} was not {how}: {error}", endpoint=call.endpoint
                )
                if exchange.may_have_left:
                    raise OutcomeUnknown(unavailable) from None
                raise unavailable from None
            finally:
                if not exchange.may_have_left:
                    call.keeps_place = True
                    slot.release_unused()

    def _understand(self, answer: Answer, call: _Call) -> Reply:
        is_post = call.request.method == "POST"
        try:
            reply = as_reply(answer)
        except ValueError:
            self._note_accepted(call)
            if is_post and call.is_repeatable and not answer.text.strip():
                # A success without a body, such as 204: it need not be repeated.
                return Reply(answer, {})
            # Nothing can be read out of it. What was sent may have been carried out.
            raise OutcomeUnknown(unexpected(answer)) from None
        if reply is not None:
            self.clock.note(answer.date)
            self._note_accepted(call)
            return reply
        error = as_error(answer)
        if isinstance(error, RateLimitedError):  # said in words, with another status than 429
            self._rate_limit.block(error.retry_after or 0.0)
        else:
            self._note_accepted(call)
        if is_post and not call.is_repeatable and not is_rejection(answer):
            raise OutcomeUnknown(error)
        raise error

    def _note_accepted(self, call: _Call) -> None:
        """Notes that the service refuses no requests, whatever it has answered."""
        if call.slot is not None:
            try:
                self._rate_limit.note_accepted(call.slot)
            except StoreError as error:  # the answer matters more: a later one is noted
                log.warning("It cannot be recorded that the service accepts requests again: %s", error)


def _prepare(not_ready: NotReady) -> None:
    try:
        not_ready.prepare()
    except Exception as error:
        raise _CannotPrepare(error) from error


def _sleep(seconds: float, call: _Call) -> None:
    if (call.stop or threading.Event()).wait(seconds):
        what_next = "It changed nothing: call it again"
        if call.request.method == "POST" and call.is_repeatable:
            what_next = "It may have been carried out. Call it again: that does no harm"
        raise WaitStoppedError(
            f"{call.endpoint} failed, and was stopped before it was sent again. {what_next}"
        )


def _log_repetition(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    log.info("%s; trying again in %.1f s", error, pause)
