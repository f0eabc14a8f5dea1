"""What a purchase needs to know of the run that it is made in: a task of a framework, or a plain program."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from smsverify._orders.handover import Handover
from smsverify._runtime import surroundings
from smsverify._runtime.tasks import Task
from smsverify.metrics import Meter, Metrics, installed_metrics

_PROGRAM = f"program:{uuid.uuid4().hex}"  # the run of a program without a framework; its forks belong to it


class RunContext:
    """The run that paid calls are made in. This one is for plain Python; each wing has its framework's.

    Attributes:
        framework: a tag of its metrics.
    """

    framework: ClassVar[str] = "python"

    def check_place(self) -> None:
        """Refuses a paid call where it would be repeated again and again.

        Raises:
            InvalidRequestError: for example while a Dag file is imported. Nothing was sent.
        """
        surroundings.refuse_in_import()

    def default_key(self, fingerprint: str) -> str | None:
        """The key of a purchase without a `key`: the same each time that the run makes this call.

        Args:
            fingerprint: what is bought.

        Returns:
            the key; `None` outside of a run: there, nothing tries again by itself, and a random key will do.

        Raises:
            InvalidRequestError: a run makes this call where no key can be derived from it. Nothing was sent.
        """
        surroundings.refuse_without_key()
        return None

    def key_failed(self, key: str) -> None:
        """Notes that the purchase under a default key has failed: the next equal call is that purchase."""

    def next_try_within(self) -> float | None:
        """In how many seconds at most the run makes this call again if it fails now; `None` for never."""
        return None

    def at_final_failure(self, work: Callable[[], Any]) -> None:
        """Does some work if the run fails and, although a next try was expected, makes the call no more."""

    def name(self) -> str:
        """The run that `run_budget` limits."""
        return surroundings.run_name() or _PROGRAM

    def task(self) -> Task | None:
        """The task that runs, for people; `None` in a program of its own."""
        return None

    def metrics(self) -> Metrics | None:
        """Where the metrics of what the run does go: OpenTelemetry, if its API is installed."""
        return installed_metrics()

    def meter(self, account: str | None = None) -> Meter:
        """Reports the metrics of what the run does, on an account that has a name."""
        return Meter(self.metrics(), framework=self.framework, account=account)

    def why_unshared(self) -> str | None:
        """Why a store in a file is not seen by all tasks of the account; `None` where they may share it."""
        return None

    def hand_over(
        self,
        order_id: int,
        handover: Handover,
        holder: str,
        then: Callable[[], object] = lambda: None,
        *,
        then_if_failed: bool = True,
    ) -> None:
        """Hands a purchase over: here at once, in a framework when the task that bought it has succeeded.

        Args:
            order_id: the order.
            handover: of the account.
            holder: names the call that has the order.
            then: called with it, and when the task has failed; not when its process dies before.
            then_if_failed: `False` where it is not called when the task has failed either.
        """
        then()
        handover.hand_over(order_id, holder)
