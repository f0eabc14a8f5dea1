"""What can be ordered and for how much: the service's lists, kept for a minute in the store.

Where the price matters, because there is a `max_price` or a budget, a line is used only if it is at most a
third of that minute old, and if the service has charged what its list says since the list was read.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel

from smsverify._input.countries import is_usa, same_country
from smsverify._input.names import pick
from smsverify._runtime.forking import PerProcess
from smsverify._service.endpoints import Listed, ServiceApi
from smsverify._service.transport import CallOptions, NotReady
from smsverify._store.store import Store
from smsverify._store.tables import catalogues, purchases
from smsverify.checks import OrderRequest
from smsverify.errors import NotAvailableError, StoreError
from smsverify.models import Country, Product, Service
from smsverify.text import amount, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

Model = TypeVar("Model", bound=BaseModel)

LONGEST_READ = 15.0  # seconds for which others wait for the caller that reads a list
LOOK = 0.05  # seconds between two looks whether it has been read
FRESH = 1 / 3  # of the service's minute: a price that matters may be this old
_looking = PerProcess[threading.Lock]()
_ORDERED_BY_NAME = frozenset({"rental", "esim"})


@dataclass(frozen=True)
class PriceList:
    """One of the service's lists.

    Attributes:
        product: what it sells.
        country_id: in which country; for `global` only.
    """

    product: Product
    country_id: int | str | None = None

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self.product if self.country_id is None else f"{self.product} {self.country_id}"


@dataclass(frozen=True)
class Quote:
    """A line of a list.

    Attributes:
        entry: the line.
        of: the list.
        read_at: when the list was read, by the store's clock.
    """

    entry: Service
    of: PriceList
    read_at: float


@dataclass(frozen=True)
class _Kept:
    """A list as the store keeps it."""

    body: str
    read_at: float
    unread: int

    def entries(self, model: type[Model]) -> Listed[Model]:
        try:
            rows = [model.model_validate(values) for values in json.loads(self.body)]
        except ValueError as error:
            raise StoreError(
                "a list of the service that the store keeps cannot be read, so nothing was sent. It is read "
                "anew from the service within a minute"
            ) from error
        return Listed(rows, self.unread)


class _ReadMeanwhile(Exception):
    """Another caller has read the list that this one was about to read; `kept` is that list."""

    def __init__(self, kept: _Kept) -> None:
        super().__init__("another caller has read the list")
        self.kept = kept


class Catalogue:
    """The service's lists, as any user of the store last read them.

    Args:
        store: where the lists are kept, so that a hundred orders read a list once.
        api: where they come from.
        account: whose prices they are.
        max_age: seconds after which a list is read anew: the service's minute.
        turn: seconds from one request that the rate limit allows to the next, on average.
        longest_read: seconds for which others wait for the caller that reads a list.
    """

    def __init__(
        self,
        store: Store,
        api: ServiceApi,
        account: str,
        *,
        max_age: float,
        turn: float = 0.0,
        longest_read: float = LONGEST_READ,
    ) -> None:
        self._store = store
        self._api = api
        self._account = account
        self._max_age = max_age
        # A purchase that has read a list waits for one more turn, and must be able to use what it has read.
        self._fresh_for = max(max_age * FRESH, 2 * turn)
        self._longest_read = longest_read

    def quote(
        self, request: OrderRequest, *, is_strict: bool = False, stop: threading.Event | None = None
    ) -> Quote:
        """The line that a purchase is about.

        Args:
            request: the purchase.
            is_strict: whether the price matters.
            stop: ends the waiting for the rate limit.

        Raises:
            NotAvailableError: there is none; the message names what comes close.
            InvalidRequestError: several lines fit what was given; the message says how to name one.
        """
        country = None
        if request.product == "global":
            country = self.find_country(request.country or "", stop=stop).country_id
        prices = PriceList(request.product, country)
        lines, read_at = self._lines(prices, is_strict=is_strict, stop=stop)
        field, wanted = ("plan", request.plan) if request.product == "esim" else ("service", request.service)
        entry = _pick(lines, wanted or "", field)
        if entry.service_id is None and request.product not in _ORDERED_BY_NAME:
            raise NotAvailableError(
                f"{shown(entry.name)} stands in the {request.product} catalogue without the service_id that "
                "an order needs. Nothing was sent. Choose another service, or ask the service's support"
            )
        return Quote(entry, prices, read_at)

    def quote_again(
        self, product: Product, service: str, *, is_strict: bool = False, stop: threading.Event | None = None
    ) -> Quote:
        """The line of what was bought as `service`, its id or its name; raises like `quote`."""
        prices = PriceList(product)
        lines, read_at = self._lines(prices, is_strict=is_strict, stop=stop)
        by_id = [entry for entry in lines.rows if str(entry.service_id) == service]
        by_name = [entry for entry in lines.rows if entry.service_id is None and entry.name == service]
        lines = Listed(by_id or by_name or lines.rows, lines.unreadable)
        return Quote(_pick(lines, service, "service"), prices, read_at)

    def kept(self, quote: Quote) -> Quote | None:
        """A line as of now; `None` where its list has to be read anew, since the price matters.

        Raises:
            NotAvailableError: the line is gone.
        """
        with self._store.read() as connection:
            kept = self._usable(connection, quote.of, is_strict=True)
        if kept is None:
            return None
        if kept.read_at == quote.read_at:
            return quote
        thing = _described(quote.entry)[:2]
        lines = [line for line in _distinct(kept.entries(Service).rows) if _described(line)[:2] == thing]
        if len(lines) != 1:
            found = "more than once" if lines else "no longer"
            raise NotAvailableError(
                f"{quote.entry.name} ({quote.of.product}) is {found} in the catalogue. Nothing was sent"
            )
        return Quote(lines[0], quote.of, kept.read_at)

    def refresh(self, quote: Quote, *, stop: threading.Event | None = None) -> None:
        """Makes the list of a line fresh; raises a `ServiceError` where the list cannot be read."""
        self._lines(quote.of, is_strict=True, stop=stop)

    def find_country(self, country: int | str, *, stop: threading.Event | None = None) -> Country:
        """The country with this id or name; raises like `quote`."""
        kept = self._cached(
            "countries",
            partial(self._api.list_countries, stop=stop),
            lambda connection: self._fresh(connection, "countries", self._max_age),
        )
        try:
            return pick(
                kept.entries(Country).rows,
                country,
                "country",
                lambda entry: (entry.country_id, entry.name, ""),
                is_same=same_country,
                unread=kept.unread,
            )
        except NotAvailableError as error:
            if isinstance(country, str) and is_usa(country):
                error.args = (f"{error}; the other products sell numbers of the USA, such as temporary",)
            raise

    # -------------------------------------------------------------- lists

    def _lines(
        self, prices: PriceList, *, is_strict: bool, stop: threading.Event | None
    ) -> tuple[Listed[Service], float]:
        """The lines of a list, and when it was read."""
        kept = self._cached(
            prices.name,
            partial(self._read_lines, prices, stop=stop),
            lambda connection: self._usable(connection, prices, is_strict=is_strict),
        )
        return kept.entries(Service), kept.read_at

    def _read_lines(self, prices: PriceList, **options: Unpack[CallOptions]) -> Listed[Service]:
        if prices.country_id is not None:
            return self._api.list_global_services(prices.country_id, **options)
        if prices.product != "esim":
            return self._api.list_services(prices.product, **options)
        plans = self._api.list_esim_plans(**options)
        lines = [
            Service(product="esim", name=plan.name, price=plan.price, highest_price=plan.highest_price)
            for plan in plans.rows
        ]
        return Listed(lines, plans.unreadable, left_out=plans.left_out)

    # -------------------------------------------------------------- the store

    def _cached(
        self,
        name: str,
        fetch: Callable[..., Listed[Any]],
        usable: Callable[[sa.Connection], _Kept | None],
    ) -> _Kept:
        """A list as it is in the store. Where that is not usable, one caller reads it for all who need it.

        That one may have to wait for its turn for longer than others wait for it. So these stand in the
        queue, too, and the first of them whose turn comes reads the list. The others would spend the slots of
        what they want to buy.
        """
        claim: float | None = None

        def look() -> bool:
            """Whether another caller reads the list now."""
            with self._store.read() as connection:
                kept = usable(connection)
                if kept is None:
                    return self._is_being_read(connection, name, claim)
            raise _ReadMeanwhile(kept)

        def is_claimed() -> bool:
            nonlocal claim
            claim = self._claim_read(name, usable, claim)
            return claim is not None

        def wait_for_reader() -> None:
            patience = time.monotonic() + self._longest_read
            # One thread looks for all of this process: many would leave no time to the one that reads.
            with _looking.get(f"{self._store.name_here} {self._account} {name}", threading.Lock):
                while (look() or not is_claimed()) and time.monotonic() <= patience:
                    time.sleep(LOOK)

        def begin() -> None:
            if look() or not is_claimed():
                raise NotReady(wait_for_reader, "another caller was reading the same list")

        def wait() -> None:
            look()

        try:
            look()  # not behind those who wait: what is too old for them may do here
            wait_for_reader()
            return self._read(name, partial(fetch, before_sending=begin, while_waiting=wait))
        except _ReadMeanwhile as read:
            return read.kept

    def _usable(self, connection: sa.Connection, prices: PriceList, *, is_strict: bool) -> _Kept | None:
        if not is_strict:
            return self._fresh(connection, prices.name, self._max_age)
        kept = self._fresh(connection, prices.name, self._fresh_for)
        is_true = kept is None or self._is_true(connection, prices, since=kept.read_at)
        return kept if is_true else None

    def _is_true(self, connection: sa.Connection, prices: PriceList, *, since: float) -> bool:
        """Whether the service has charged what a list says, since that was read."""
        bought = connection.execute(
            sa.select(purchases.c.request, purchases.c.price, purchases.c.charge).where(
                purchases.c.account == self._account,
                purchases.c.kind == "order",
                purchases.c.state == "bought",
                purchases.c.sent_at >= since,
                purchases.c.price.is_not(None),
                purchases.c.charge.is_not(None),
            )
        )
        country = None if prices.country_id is None else str(prices.country_id)
        for row in bought:
            request = json.loads(row.request)
            is_of_list = request["product"] == prices.product and country in (None, request["country"])
            if is_of_list and Decimal(row.charge) != Decimal(row.price):
                return False
        return True

    def _fresh(self, connection: sa.Connection, name: str, max_age: float) -> _Kept | None:
        row = connection.execute(sa.select(catalogues).where(self._this(name))).one_or_none()
        if row is None or not 0 <= self._store.now(connection) - row.fetched_at < max_age:
            return None
        return _Kept(row.body, row.fetched_at, row.unreadable or 0)

    def _this(self, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(catalogues.c.account == self._account, catalogues.c.name == name)

    def _claim_read(
        self, name: str, usable: Callable[[sa.Connection], _Kept | None], claim: float | None = None
    ) -> float | None:
        """Until when this caller reads a list for the others; `None` where another one does.

        Args:
            name: of the list.
            usable: the list as it is in the store, where nobody needs to read it.
            claim: what this has returned before, if this caller still needs the list.
        """
        with self._store.write() as connection:
            now = self._begin(connection, name)
            if usable(connection) is not None:
                return None
            new = self._store.insert(catalogues).values(
                account=self._account, name=name, fetched_at=0, body="[]"
            )
            connection.execute(new.on_conflict_do_nothing())
            until = now + self._longest_read
            read_until = sa.func.coalesce(catalogues.c.read_until, 0)
            is_free = sa.or_(sa.not_(read_until.between(now, until)), read_until == claim)
            claimed = sa.update(catalogues).where(self._this(name), is_free).values(read_until=until)
            return until if connection.execute(claimed).rowcount else None

    def _is_being_read(self, connection: sa.Connection, name: str, claim: float | None) -> bool:
        """Whether a list is claimed by another caller than the one with this claim."""
        read_until = connection.execute(sa.select(catalogues.c.read_until).where(self._this(name))).scalar()
        if read_until is None or read_until == claim:
            return False
        return 0 <= float(read_until) - self._store.now(connection) <= self._longest_read

    def _begin(self, connection: sa.Connection, name: str) -> float:
        """Lets one transaction at a time write about a list. Read the time afterwards: this may wait."""
        self._store.lock(connection, f"smsverify catalogue {self._account} {name}")
        return self._store.now(connection)

    def _read(self, name: str, fetch: Callable[[], Listed[Any]]) -> _Kept:
        values: dict[str, Any] = {"read_until": None}
        try:
            listed = fetch()
            values["body"] = json.dumps([entry.as_dict() for entry in listed.rows])
            values["unreadable"] = listed.unreadable + listed.left_out
        finally:
            with self._store.write() as connection:
                now = self._begin(connection, name)
                if "body" in values:
                    values["fetched_at"] = now
                connection.execute(sa.update(catalogues).where(self._this(name)).values(**values))
        return _Kept(values["body"], now, values["unreadable"])


def _described(entry: Service) -> tuple[int | str | None, str, str]:
    """Id, name and price of a line."""
    prices = [f"{amount(price)} USD for {days} days" for days, price in entry.prices.items()]
    if entry.price is not None:
        prices.append(f"{amount(entry.price)} USD")
    return entry.service_id, entry.name, ", ".join(prices) or "unknown price"


def _pick(lines: Listed[Service], wanted: int | str, field: str) -> Service:
    return pick(_distinct(lines.rows), wanted, field, _described, unread=lines.unreadable)


def _distinct(lines: Sequence[Service]) -> list[Service]:
    """The lines. Lines with the same id and name are the same thing: the most expensive one counts."""
    dearest: dict[Any, Service] = {}
    for place, line in enumerate(lines):
        thing = place if line.service_id is None else (line.service_id, line.name)
        dearest[thing] = max(dearest.get(thing, line), line, key=_highest_price)
    return list(dearest.values())


def _highest_price(line: Service) -> Decimal:
    """What a line may cost at the most; an unknown price is the highest."""
    prices = [line.highest_price, *line.highest_prices.values()]
    return max((price for price in prices if price is not None), default=Decimal("Infinity"))
