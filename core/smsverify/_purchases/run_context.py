"""What a purchase asks of the run that it is made in: a task of a framework, or a program of its own."""

from __future__ import annotations

import uuid

from smsverify._orders.handover import Handover
from smsverify._runtime import surroundings

_PROGRAM = f"program:{uuid.uuid4().hex}"  # the run of what is in no framework's; forks belong to it


class RunContext:
    """The run that paid calls are made in. This one is for plain Python; each wing has its framework's."""

    def check_place(self) -> None:
        """Refuses a paid call where it would be made again and again.

        Raises:
            InvalidRequestError: such as while a file is imported. Nothing was sent.
        """
        surroundings.refuse_in_import()

    def default_key(self, fingerprint: str) -> str | None:
        """The key of a purchase that was given none: the same each time that the run makes this call.

        Args:
            fingerprint: what is bought.

        Returns:
            the key; `None` outside of a run, where nothing tries again by itself: a random one will do.

        Raises:
            InvalidRequestError: a run makes this call where no key can be derived from it. Nothing was sent.
        """
        surroundings.refuse_without_key()
        return None

    def key_failed(self, key: str) -> None:
        """The purchase under a default key has failed: the next equal call is the same purchase again."""

    def next_try_within(self) -> float | None:
        """Within how many seconds the run makes this call again if it fails now; `None` where it does not."""
        return None

    def name(self) -> str:
        """The run that `run_budget` is about."""
        return surroundings.run_name() or _PROGRAM

    def why_unshared(self) -> str | None:
        """Why a store in a file is not seen by all tasks of the account; `None` where they may share it."""
        return None

    def hand_over(self, order_id: int, handover: Handover) -> None:
        """Hands a purchase over: here at once, in a framework when the task that bought it has succeeded."""
        handover.hand_over(order_id)
