"""`AccountView`: what can be seen of an account. Nothing here buys, cancels or waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from smsverify._parts import Parts
from smsverify._runtime.clock import DAY
from smsverify._runtime.properties import cached_property
from smsverify._service.rate_limit import RateLimitState
from smsverify._store.schema import StoreState
from smsverify.checks import (
    check_count,
    check_id_or_name,
    check_listed_product,
    check_seconds,
    check_stop,
    check_switch,
)
from smsverify.errors import InvalidRequestError
from smsverify.models import Balance, Country, EsimPlan, Order, Service

if TYPE_CHECKING:
    from smsverify.overview import Delivery, Overview
    from smsverify.reports import PruneReport

__all__ = ["AccountView", "RateLimitState", "StoreState"]

YOUNGEST = DAY  # seconds; younger rows are never removed from the store
OLDEST = 100 * 366 * DAY  # seconds; no row is older


class AccountView:
    """The part of `SmsVerifyHook` that looks at the account, at what it can buy, and at the store."""

    @cached_property
    def _parts(self) -> Parts:
        """The rooms of the account, which the hook puts together."""
        raise NotImplementedError

    def get_balance(self) -> Balance:
        """The wallet's balance in USD (`GET /api/v1/balance/`)."""
        return self._parts.wallet.read()[0]

    def get_wallet_balance(self) -> Balance:
        """The same from the alias (`GET /api/v1/wallet/balance/`)."""
        return self._parts.wallet.read(self._parts.api.get_wallet_balance)[0]

    def list_services(self, product: str) -> list[Service]:
        """The services of a product with their prices, fresh.

        Args:
            product: `temporary`, `best-temp`, `rental`, `rent-1day` or `rent-30days`
                (`GET /api/v1/services/<product>/`).
        """
        return self._parts.api.list_services(check_listed_product(product)).rows

    def list_esim_plans(self) -> list[EsimPlan]:
        """The eSIM data plans with their prices (`GET /api/v1/services/esim/`)."""
        return self._parts.api.list_esim_plans().rows

    def list_countries(self) -> list[Country]:
        """The countries outside the USA with a service in stock (`GET /api/v1/global/countries/`)."""
        return self._parts.api.list_countries().rows

    def list_global_services(self, country: int | str) -> list[Service]:
        """The services of a country with their prices (`GET /api/v1/global/services/`).

        Args:
            country: id or name.

        Raises:
            NotAvailableError: no such country is in stock.
            InvalidRequestError: several are called so.
        """
        found = self._parts.catalogue.find_country(check_id_or_name(country, "country"))
        return self._parts.api.list_global_services(found.country_id).rows

    def list_orders(self) -> list[Order]:
        """The 50 newest orders, newest first, without product and expiry (`GET /api/v1/orders/`)."""
        return self._parts.orders.status.read_list().rows

    def rate_limit(self) -> RateLimitState:
        """How many requests all users of the key may still send now. Sends no request."""
        return self._parts.rate_limit.state()

    def delivery(self, days: int = 30) -> list[Delivery]:
        """Shows which numbers deliver, for each product, service, country and area code. Sends no request.

        It reads the store, and counts the newest 20,000 purchases at most.

        Args:
            days: how many days to look back.
        """
        return self._parts.deliveries.of_last(check_count(days, "days"))

    def upgrade_store(self) -> int:
        """Makes the store's tables if they are missing. A store of another version is refused.

        Returns:
            the version of the tables.

        Raises:
            StoreError: another version of smsverify made the tables. Nothing was changed.
        """
        return self._parts.store.upgrade()

    def check_store(self) -> StoreState:
        """Says whether the store is missing, older, newer or ready. Makes and changes nothing."""
        return self._parts.store.look()

    def prune_store(
        self,
        older_than: float | timedelta,
        *,
        dry_run: bool = True,
        stop: threading.Event | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> PruneReport:
        """Removes old rows of the account from the store: messages whose text is purged, and what waits and
        callbacks have left. Other processes may use the store meanwhile.

        What was bought and spent stays, with every key, and so does what anything unfinished needs.
        `delivery` counts only messages that are there.

        Args:
            older_than: seconds, a day at least.
            dry_run: only counts the rows.
            stop: ends it between two batches when it is set; another call goes on.
            on_progress: called with the rows that are removed so far, and all that are to be.

        Raises:
            InvalidRequestError: `older_than` is less than a day, or more than a hundred years.
        """
        age, stop = check_seconds(older_than, "older_than"), check_stop(stop)
        if not YOUNGEST <= age <= OLDEST:
            raise InvalidRequestError(
                "older_than must be a day at least, and a hundred years at most", field="older_than"
            )
        dry_run = check_switch(dry_run, "dry_run")
        return self._parts.pruning.run(age, dry_run=dry_run, stop=stop, on_progress=on_progress)

    def overview(self) -> Overview:
        """The account as its records show it, from the store alone. Sends no request.

        Returns:
            what needs a person, the wallet, today's spending, requests, waits, callbacks, rentals, the
            orders of the last 24 hours and which numbers deliver, each with 50 rows at the most and the count
            of the rest. No code and no text of an SMS is in it.
        """
        return self._parts.overviews.make()
