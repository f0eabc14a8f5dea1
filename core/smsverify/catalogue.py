"""What can be ordered and for how much: the service's lists, kept for a minute in the store."""

from __future__ import annotations

import difflib
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel

from smsverify.api import ServiceApi
from smsverify.errors import InvalidRequestError, NotAvailableError
from smsverify.models import Country, OrderRequest, Product, Service
from smsverify.store import Store, catalogues

Model = TypeVar("Model", bound=BaseModel)

# Seconds for which one who reads a list is waited for; and between two looks whether he has done it.
LONGEST_READ = 15.0
LOOK = 0.05


class Catalogue:
    """The service's lists as everybody who shares the store last read them.

    Args:
        store: where the lists are kept, so that a hundred orders read a list once.
        api: where they come from.
        account: whose prices they are.
        max_age: seconds after which a list is read anew.
    """

    def __init__(self, store: Store, api: ServiceApi, account: str, *, max_age: float) -> None:
        self._store = store
        self._api = api
        self._account = account
        self._max_age = max_age

    def find(self, request: OrderRequest, *, stop: threading.Event | None = None) -> Service:
        """The catalogue's line that a purchase is about. `stop` ends the waiting for the budget.

        Raises:
            NotAvailableError: there is none; the message names what comes close.
            InvalidRequestError: the name stands for several; the message names their ids.
        """
        if request.product == "esim":
            plans = self._cached("esim", Service, lambda: self._plans(stop))
            return _pick(plans, request.plan or "", "plan", lambda entry: (None, entry.name))
        if request.product == "global":
            country = self.find_country(request.country or "", stop=stop)
            services = self.global_services(country.country_id, stop=stop)
        else:
            services = self.services(request.product, stop=stop)
        return _pick(
            services,
            request.service or "",
            "service",
            lambda entry: (entry.service_id, entry.name),
        )

    def find_country(self, country: str, *, stop: threading.Event | None = None) -> Country:
        """The country with this id or name; raises like `find`."""
        countries = self._cached("countries", Country, lambda: self._api.list_countries(stop=stop))
        return _pick(countries, country, "country", lambda entry: (entry.country_id, entry.name))

    def services(self, product: Product, *, stop: threading.Event | None = None) -> list[Service]:
        """The services of a product, not `global`."""
        return self._cached(product, Service, lambda: self._api.list_services(product, stop=stop))

    def global_services(self, country_id: int | str, *, stop: threading.Event | None = None) -> list[Service]:
        """The services of a country."""
        return self._cached(
            f"global {country_id}", Service, lambda: self._api.list_global_services(country_id, stop=stop)
        )

    def _plans(self, stop: threading.Event | None) -> list[Service]:
        """The eSIM plans as lines of a catalogue like any other."""
        return [
            Service(product="esim", name=plan.name, price=plan.price, highest_price=plan.highest_price)
            for plan in self._api.list_esim_plans(stop=stop)
        ]

    def _cached(self, name: str, model: type[Model], fetch: Callable[[], list[Model]]) -> list[Model]:
        """A list as it is in the store. Where it is too old, one of those who need it reads it for all."""
        patience = time.monotonic() + LONGEST_READ
        while (body := self._fresh_body(name)) is None:
            if self._claim_read(name) or time.monotonic() > patience:
                return self._read(name, fetch)
            time.sleep(LOOK)
        return [model.model_validate(values) for values in json.loads(body)]

    def _this(self, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(catalogues.c.account == self._account, catalogues.c.name == name)

    def _fresh_body(self, name: str) -> str | None:
        with self._store.read() as connection:
            row = connection.execute(sa.select(catalogues).where(self._this(name))).one_or_none()
            now = self._store.now(connection)
        is_fresh = row is not None and 0 <= now - row.fetched_at < self._max_age
        return str(row.body) if row is not None and is_fresh else None

    def _claim_read(self, name: str) -> bool:
        """Whether this caller is the one who reads a list."""
        with self._store.write() as connection:
            now = self._begin(connection, name)
            new = self._store.insert(catalogues).values(
                account=self._account, name=name, fetched_at=0, body="[]"
            )
            connection.execute(new.on_conflict_do_nothing())
            is_read = sa.func.coalesce(catalogues.c.read_until, 0).between(now, now + LONGEST_READ)
            is_fresh = catalogues.c.fetched_at.between(now - self._max_age, now)
            claimed = connection.execute(
                sa.update(catalogues)
                .where(self._this(name), sa.not_(is_read), sa.not_(is_fresh))
                .values(read_until=now + LONGEST_READ)
            )
            return bool(claimed.rowcount)

    def _begin(self, connection: sa.Connection, name: str) -> float:
        """Lets one at a time write about a list. The time comes after that: it may have had to wait."""
        self._store.lock(connection, f"smsverify catalogue {self._account} {name}")
        return self._store.now(connection)

    def _read(self, name: str, fetch: Callable[[], list[Model]]) -> list[Model]:
        values: dict[str, Any] = {"read_until": None}
        try:
            entries = fetch()
            values["body"] = json.dumps([entry.model_dump(mode="json") for entry in entries])
        finally:
            with self._store.write() as connection:
                now = self._begin(connection, name)
                if "body" in values:
                    values["fetched_at"] = now
                connection.execute(sa.update(catalogues).where(self._this(name)).values(**values))
        return entries


def _pick(
    entries: Sequence[Model],
    wanted: str,
    field: str,
    id_and_name: Callable[[Model], tuple[Any, str]],
) -> Model:
    """The one entry with this id, else with this name, whatever the case."""
    by_id = [entry for entry in entries if str(id_and_name(entry)[0]) == wanted]
    by_name = [entry for entry in entries if id_and_name(entry)[1].casefold() == wanted.casefold()]
    found = by_id or by_name
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(str(id_and_name(entry)[0]) for entry in found)
        raise InvalidRequestError(
            f"{field} {wanted!r} stands for several: name one by its id ({ids})",
            field=field,
        )
    names = [id_and_name(entry)[1] for entry in entries]
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {len(names)} others"
    raise NotAvailableError(f"{field} {wanted!r} is not in the catalogue (misspelt, or out of stock): {hint}")
