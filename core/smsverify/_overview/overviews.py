"""An overview: its sections put together."""

from __future__ import annotations

from smsverify._overview.bought import (
    delivery_of,
    last_day_of,
    newest_of,
    orders_of,
    rentals_of,
    spend_of,
    wallet_of,
)
from smsverify._overview.needs import needs_of
from smsverify._overview.traffic import callbacks_of, releases_of, requests_of, waits_of
from smsverify._overview.view import View
from smsverify._purchases.findings import Findings
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.wallet import Wallet
from smsverify._service.rate_limit import RateLimit
from smsverify._store.store import Store
from smsverify._store.tables import SCHEMA_VERSION
from smsverify.overview import Overview
from smsverify.settings import Settings


class Overviews:
    """Makes the overviews of one account.

    Args:
        store, settings, wallet, ledger, findings, rate_limit: of the account.
        alive: seconds for which a wait is alive after its last heartbeat.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        wallet: Wallet,
        *,
        ledger: Ledger,
        findings: Findings,
        rate_limit: RateLimit,
        alive: float,
    ) -> None:
        self._store = store
        self._settings = settings
        self._wallet = wallet
        self._ledger = ledger
        self._findings = findings
        self._rate_limit = rate_limit
        self._alive = alive

    def make(self) -> Overview:
        """See `SmsVerifyHook.overview`."""
        settings = self._settings
        with self._store.read(is_snapshot=True) as connection:
            now = self._store.now(connection)
            view = View(self._store, connection, settings.account_id, now, self._alive)
            at = view.utc(now)
            open_calls = self._ledger.open_calls(connection, now)
            unknown = self._findings.unknown_calls(open_calls, now)
            rentals, day, newest = rentals_of(view), last_day_of(view), newest_of(view)
            return Overview(
                at=at,
                account=settings.account_id,
                store=self._store.place,
                schema_version=SCHEMA_VERSION,
                needs=needs_of(
                    view, self._findings, unknown, rentals, day, is_exclusive=settings.exclusive_account
                ),
                wallet=wallet_of(view, self._wallet, rentals, at),
                spend=spend_of(view, day, settings.daily_budget),
                requests=requests_of(view, self._rate_limit),
                waits=waits_of(view),
                callbacks=callbacks_of(
                    view, [secret.get_secret_value() for secret in settings.callback_secrets]
                ),
                releases=releases_of(view),
                rentals=rentals,
                orders=orders_of(view, day, newest, open_calls),
                delivery=delivery_of(newest),
            )
