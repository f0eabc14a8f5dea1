"""The accounts whose callbacks are taken, and their secrets."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from smsverify._messages.inbox import Inbox


@dataclass(frozen=True, eq=False)
class Account:
    """Whose callbacks are taken.

    Attributes:
        secrets: of its callback URL; each of them is valid.
        inbox: where they go.
    """

    secrets: tuple[bytes, ...] = field(repr=False)
    inbox: Inbox


def merged(accounts: Sequence[Account]) -> list[Account]:
    """One of each account, which may be given in two ways."""
    merged: dict[tuple[str, str], Account] = {}
    for account in accounts:
        known = merged.get(account.inbox.name, Account((), account.inbox))
        merged[account.inbox.name] = Account((*known.secrets, *account.secrets), known.inbox)
    return list(merged.values())


def with_secret(accounts: Sequence[Account], given: str) -> list[Account]:
    """The account of a secret; takes the same time for each that is wrong."""
    secret = given.encode("utf-8", "surrogatepass")
    matches = [
        [hmac.compare_digest(secret, configured) for configured in account.secrets] for account in accounts
    ]
    return [account for account, found in zip(accounts, matches, strict=True) if any(found)]
