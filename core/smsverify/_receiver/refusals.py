"""How many callbacks were refused, for the overview."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from smsverify._receiver.accounts import Account

PAUSE = 2.0  # seconds between two records of one account, so that a stranger costs one write in each


class Refusals:
    """Counts refused callbacks, and puts them on record a little later, all of a while at once.

    Args:
        note: puts so many on record for an account, with the reason of the last one.
    """

    def __init__(self, note: Callable[[Account, int, str], None]) -> None:
        self._note = note
        self._counted: dict[tuple[str, str], tuple[int, str]] = {}

    def count(self, accounts: Sequence[Account], why: str) -> None:
        """Counts one that was for one of these accounts; called in the event loop."""
        for account in accounts:
            if account.inbox.name not in self._counted:
                asyncio.get_running_loop().call_later(PAUSE, self._record, account)
            times, _ = self._counted.get(account.inbox.name, (0, why))
            self._counted[account.inbox.name] = (times + 1, why)

    def _record(self, account: Account) -> None:
        times, why = self._counted.pop(account.inbox.name)
        self._note(account, times, why)
