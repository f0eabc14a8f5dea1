"""How the rooms of the core are put together for one account."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from smsverify.api import ServiceApi
from smsverify.budget import Budget
from smsverify.catalogue import Catalogue
from smsverify.following import Following, Follows
from smsverify.hints import alive_for
from smsverify.inbox import Inbox
from smsverify.ledger import Ledger
from smsverify.orderbook import OrderBook
from smsverify.orders import Orders
from smsverify.polling import Poller
from smsverify.purchasing import Purchases
from smsverify.reconciling import Reconciler
from smsverify.recovery import Recovery
from smsverify.rentals import Rentals
from smsverify.settings import Settings
from smsverify.store import Store, open_store
from smsverify.transport import Transport
from smsverify.waiting import Watch, shared_watch

DAY = 86_400.0
# Seconds after which one who waits to make a paid call, and shows no sign of life, is dead: of a service
# whose minute lasts a minute, and at least.
PLAN_ALIVE = 10.0
SHORTEST_PLAN_ALIVE = 3.0


class Assembly:
    """The parts that a hook is made of, each made when it is first used. Nothing is connected before that."""

    _given: dict[str, Any]

    @cached_property
    def settings(self) -> Settings:
        """The settings, checked. Raises `InvalidRequestError`, which names the setting."""
        return Settings.load(self._given_settings())

    def _given_settings(self) -> dict[str, Any]:
        """Settings by name, as far as they are given; a wing reads them from its framework."""
        return self._given

    @cached_property
    def _store(self) -> Store:
        return open_store(self.settings.store_url.get_secret_value())

    @cached_property
    def _budget(self) -> Budget:
        settings = self.settings
        return Budget(
            self._store,
            settings.key_id,
            limit=settings.rate_limit,
            period=settings.rate_period,
            lease=settings.longest_exchange,
        )

    @cached_property
    def _api(self) -> ServiceApi:
        return ServiceApi(Transport(self.settings, self._budget))

    @cached_property
    def _catalogue(self) -> Catalogue:
        return Catalogue(
            self._store,
            self._api,
            self.settings.account_id,
            max_age=self.settings.rate_period,
        )

    @cached_property
    def _orders(self) -> Orders:
        return Orders(self._api, self._book, self._inbox, tempo=self.settings.tempo)

    @cached_property
    def _recovery(self) -> Recovery:
        return Recovery(
            self._store,
            self._ledger,
            self._orders,
            grace=self.settings.purchase_grace,
            is_exclusive=self.settings.exclusive_account,
            tempo=self.settings.tempo,
        )

    @cached_property
    def _purchases(self) -> Purchases:
        settings = self.settings
        return Purchases(
            self._api,
            self._catalogue,
            self._ledger,
            self._orders,
            self._recovery,
            grace=settings.purchase_grace,
            tempo=settings.tempo,
        )

    @cached_property
    def _reconciler(self) -> Reconciler:
        return Reconciler(
            self._store,
            self._api,
            self._ledger,
            self._orders,
            self._recovery,
            grace=self.settings.purchase_grace,
            is_exclusive=self.settings.exclusive_account,
            alive=alive_for(self.settings.tempo),
            tempo=self.settings.tempo,
        )

    @cached_property
    def _rentals(self) -> Rentals:
        return Rentals(
            self._api,
            self._ledger,
            self._orders,
            self._purchases,
            self._recovery,
            grace=self.settings.purchase_grace,
            tempo=self.settings.tempo,
        )

    @cached_property
    def _book(self) -> OrderBook:
        return OrderBook(self._store, self.settings.account_id)

    @cached_property
    def _ledger(self) -> Ledger:
        settings = self.settings
        return Ledger(
            self._store,
            self._book,
            settings.account_id,
            namespace=settings.namespace,
            lease=settings.longest_exchange,
            patience=max(PLAN_ALIVE * settings.tempo, SHORTEST_PLAN_ALIVE),
        )

    @cached_property
    def _inbox(self) -> Inbox:
        retention = self.settings.message_retention_days * DAY
        return Inbox(self._store, self.settings.account_id, retention=retention)

    @property
    def _watch(self) -> Watch:
        settings = self.settings
        account, tempo = settings.account_id, settings.tempo

        def make() -> Watch:
            following = Following(self._store, account, tempo=tempo)
            poller = Poller(self._store, self._budget, self._orders, following, account)
            follows = Follows(following, self._inbox)
            return Watch(self._store, self._book, self._inbox, poller, account, follows=follows, tempo=tempo)

        return shared_watch(f"{settings.store_url.get_secret_value()} {account} {settings.key_id}", make)
