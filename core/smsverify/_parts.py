"""How the parts of a hook are put together for one account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from smsverify._messages.inbox import Inbox
from smsverify._orders.orders import Orders
from smsverify._orders.records import Records
from smsverify._purchases.checkout import Checkout
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.periods import Periods
from smsverify._purchases.purchasing import Purchases
from smsverify._purchases.recovery import Recovery
from smsverify._purchases.refunds import Refunds
from smsverify._purchases.run_context import RunContext
from smsverify._purchases.sending import Sender
from smsverify._purchases.wallet import Wallet
from smsverify._runtime.clock import DAY
from smsverify._runtime.forking import PerProcess
from smsverify._runtime.properties import cached_property
from smsverify._service.addresses import note_address
from smsverify._service.catalogue import Catalogue
from smsverify._service.endpoints import ServiceApi
from smsverify._service.places import Keeper
from smsverify._service.rate_limit import RateLimit
from smsverify._service.transport import Transport
from smsverify._service.turns import Sharing
from smsverify._store.store import Store, open_store
from smsverify._waiting.otp_waits import OtpWaits
from smsverify._waiting.pace import alive_for
from smsverify.metrics import Meter
from smsverify.settings import Settings

# A task of Airflow loads all that it uses anew. What buying and waiting do without is loaded with its part.
if TYPE_CHECKING:
    from smsverify._overview.overviews import Overviews
    from smsverify._purchases.decisions import Decisions
    from smsverify._purchases.deliveries import Deliveries
    from smsverify._purchases.findings import Findings
    from smsverify._purchases.reconciling import Reconciler
    from smsverify._purchases.renewing import Renewals
    from smsverify._purchases.rentals import Rentals
    from smsverify._upkeep.pruning import Pruning
    from smsverify._waiting.waiter import Waiter

# Seconds in which the wallet shows a refund that the list shows, of a service whose minute lasts a minute.
REFUND_TIME = 60.0
# Seconds after which a caller that waits to make a paid call, and sends no heartbeat, is dead: of a service
# whose minute lasts a minute, and at least.
PLAN_ALIVE = 10.0
SHORTEST_PLAN_ALIVE = 3.0

KEEPERS: Final = PerProcess[Keeper]()
WAITERS: Final = PerProcess["Waiter"]()


class Parts:
    """The parts of a hook, each made when it is first used. Nothing is connected before that.

    Args:
        settings: of the account.
        run: the run that its purchases are made in.
    """

    def __init__(self, settings: Settings, run: RunContext) -> None:
        self.settings = settings
        self.run = run

    @cached_property
    def store(self) -> Store:
        return open_store(self.settings.store_url.get_secret_value())

    @cached_property
    def meter(self) -> Meter:
        # The name that is derived from the key is left out.
        return self.run.meter(self.settings.account)

    @cached_property
    def rate_limit(self) -> RateLimit:
        settings = self.settings
        return RateLimit(
            self.store,
            settings.key_id,
            limit=settings.rate_limit,
            period=settings.rate_period,
            lease=settings.longest_exchange,
            begin_within=settings.longest_start,
            sharing=Sharing(settings.code_latency, expects_polls=not settings.callback_secrets),
            meter=self.meter,
        )

    @property
    def keeper(self) -> Keeper:
        settings = self.settings
        whose = (settings.store_url.get_secret_value(), settings.key_id)
        return KEEPERS.get(" ".join(whose), lambda: Keeper(self.rate_limit.keep))

    @cached_property
    def api(self) -> ServiceApi:
        note_address(self.store, self.settings.key_id, self.settings.base_url)
        return ServiceApi(Transport(self.settings, self.rate_limit))

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue(
            self.store,
            self.api,
            self.settings.account_id,
            max_age=self.settings.rate_period,
            turn=self.settings.rate_period / self.settings.rate_limit,
        )

    @cached_property
    def orders(self) -> Orders:
        settings = self.settings
        records = Records(
            self.store, settings.account_id, address=settings.base_url, time_scale=settings.time_scale
        )
        return Orders(self.api, records, self.inbox, time_scale=settings.time_scale, meter=self.meter)

    @cached_property
    def recovery(self) -> Recovery:
        return Recovery(
            self.store,
            self.ledger,
            self.orders,
            self.wallet,
            grace=self.settings.purchase_grace,
            is_exclusive=self.settings.exclusive_account,
            time_scale=self.settings.time_scale,
        )

    @cached_property
    def wallet(self) -> Wallet:
        return Wallet(self.store, self.settings.account_id, self.api, self.refunds.compare, meter=self.meter)

    @cached_property
    def purchases(self) -> Purchases:
        settings = self.settings
        return Purchases(
            self.api,
            self.catalogue,
            self.ledger,
            self.orders,
            self.recovery,
            sender=self.sender,
            periods=self.periods,
            grace=settings.purchase_grace,
        )

    @cached_property
    def renewals(self) -> Renewals:
        from smsverify._purchases.renewing import Renewals

        return Renewals(
            self.api,
            self.catalogue,
            self.ledger,
            self.orders,
            self.recovery,
            sender=self.sender,
            periods=self.periods,
        )

    @cached_property
    def checkout(self) -> Checkout:
        return Checkout(
            self.store,
            self.settings,
            self.run,
            self.orders,
            purchases=self.purchases,
            renewals=lambda: self.renewals,
            rentals=lambda: self.rentals,
            deliveries=lambda: self.deliveries,
        )

    @cached_property
    def deliveries(self) -> Deliveries:
        from smsverify._purchases.deliveries import Deliveries

        return Deliveries(self.store, self.settings.account_id)

    @cached_property
    def sender(self) -> Sender:
        return Sender(self.catalogue, self.ledger, time_scale=self.settings.time_scale)

    @cached_property
    def decisions(self) -> Decisions:
        from smsverify._purchases.decisions import Decisions

        return Decisions(self.store, self.ledger, self.orders, self.refunds)

    @cached_property
    def reconciler(self) -> Reconciler:
        from smsverify._purchases.reconciling import Reconciler

        return Reconciler(
            self.store,
            self.wallet,
            self.ledger,
            self.orders,
            self.recovery,
            findings=self.findings,
            rate_limit=self.rate_limit,
            meter=self.meter,
            is_exclusive=self.settings.exclusive_account,
        )

    @cached_property
    def findings(self) -> Findings:
        from smsverify._purchases.findings import Findings

        return Findings(
            self.store,
            self.ledger,
            self.orders,
            self.refunds,
            grace=self.settings.purchase_grace,
            alive=alive_for(self.settings.time_scale),
            time_scale=self.settings.time_scale,
        )

    @cached_property
    def overviews(self) -> Overviews:
        from smsverify._overview.overviews import Overviews

        return Overviews(
            self.store,
            self.settings,
            self.wallet,
            ledger=self.ledger,
            findings=self.findings,
            rate_limit=self.rate_limit,
            alive=alive_for(self.settings.time_scale),
        )

    @cached_property
    def refunds(self) -> Refunds:
        settings = self.settings
        return Refunds(
            self.store,
            settings.account_id,
            grace=min(settings.purchase_grace, REFUND_TIME * settings.time_scale),
            is_exclusive=settings.exclusive_account,
        )

    @cached_property
    def rentals(self) -> Rentals:
        from smsverify._purchases.kept import KeptRecords
        from smsverify._purchases.rentals import Rentals

        return Rentals(
            self.wallet,
            self.ledger,
            self.orders,
            self.renewals,
            self.recovery,
            periods=self.periods,
            kept=KeptRecords(self.store, self.settings.account_id),
            grace=self.settings.purchase_grace,
            time_scale=self.settings.time_scale,
        )

    @cached_property
    def periods(self) -> Periods:
        return Periods(
            self.store, self.settings.account_id, self.api.clock, time_scale=self.settings.time_scale
        )

    @cached_property
    def ledger(self) -> Ledger:
        settings = self.settings
        return Ledger(
            self.store,
            self.orders,
            settings.account_id,
            namespace=settings.namespace,
            lease=settings.longest_exchange,
            patience=max(PLAN_ALIVE * settings.time_scale, SHORTEST_PLAN_ALIVE),
            grace=settings.purchase_grace,
            meter=self.meter,
        )

    @cached_property
    def inbox(self) -> Inbox:
        retention = self.settings.message_retention_days * DAY
        return Inbox(self.store, self.settings.account_id, retention=retention, meter=self.meter)

    @cached_property
    def pruning(self) -> Pruning:
        from smsverify._upkeep.pruning import Pruning

        retention = self.settings.message_retention_days * DAY
        return Pruning(self.store, self.inbox, self.settings.account_id, retention=retention)

    @cached_property
    def otp_waits(self) -> OtpWaits:
        return OtpWaits(self.orders, self.inbox, lambda: self.waiter, self.run.task, meter=self.meter)

    @property
    def waiter(self) -> Waiter:
        from smsverify._waiting.poller import Poller
        from smsverify._waiting.schedule import Schedule
        from smsverify._waiting.subscriptions import Consumers, Subscriptions
        from smsverify._waiting.waiter import Waiter

        settings = self.settings
        account, time_scale = settings.account_id, settings.time_scale

        def make() -> Waiter:
            schedule = Schedule(self.store, self.rate_limit, account)
            consumers = Consumers(self.store, schedule, account, time_scale=time_scale)
            poller = Poller(self.store, self.orders, schedule, account, time_scale=time_scale)
            subscriptions = Subscriptions(consumers, self.inbox)
            return Waiter(
                self.store,
                self.orders.handover,
                self.inbox,
                poller,
                account,
                subscriptions=subscriptions,
                time_scale=time_scale,
            )

        whose = (settings.store_url.get_secret_value(), account, settings.key_id, settings.base_url)
        return WAITERS.get(" ".join(whose), make)
