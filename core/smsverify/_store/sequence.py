"""The order in which facts of an account became known, by numbers that do not depend on a clock.

A paid call gets its number in the transaction that lets it leave; an order gets one in the transaction that
records that the service has shown it. Numbers follow the order of the commits: a fact with a lower number
than a call was known before that call was sent. Before a request asks the service for something, the last
number is noted: every call with a number up to that was sent before.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from smsverify._store.store import Store
from smsverify._store.tables import accounts

LATEST = 2**63 - 1  # after all numbers


@dataclass(frozen=True)
class Asked:
    """When the service was asked for something.

    Attributes:
        number: the last one of the account's sequence before the request left.
        at: seconds by the store's clock.
    """

    number: int
    at: float


def asked(store: Store, connection: sa.Connection, account: str) -> Asked:
    """What to note before the service is asked for what decides on paid calls."""
    return Asked(last(connection, account), store.now(connection))


def last(connection: sa.Connection, account: str) -> int:
    """The number of what became known last; 0 where nothing has."""
    number = sa.select(accounts.c.number).where(accounts.c.account == account)
    return connection.execute(number).scalar() or 0


def hold(connection: sa.Connection, account: str) -> None:
    """Lets no other transaction get a number of this account until this one ends, and takes none.

    For a transaction that writes rows of orders before it needs a number.
    """
    number = sa.select(accounts.c.number).where(accounts.c.account == account)
    connection.execute(number.with_for_update())


def advance(store: Store, connection: sa.Connection, account: str) -> int:
    """The next number, for what a transaction puts on record.

    Until the transaction ends, no other one gets a number of this account. Take it before any row of an
    order is written, so that no two transactions wait for each other.
    """
    return int(
        connection.execute(
            store.insert(accounts)
            .values(account=account, number=1)
            .on_conflict_do_update(
                index_elements=[accounts.c.account], set_={"number": accounts.c.number + 1}
            )
            .returning(accounts.c.number)
        ).scalar_one()
    )
