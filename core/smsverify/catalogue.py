"""What can be ordered and for how much: the service's lists, kept for a minute in the store."""

from __future__ import annotations

import difflib
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel

from smsverify.api import ServiceApi
from smsverify.errors import InvalidRequestError, NotAvailableError
from smsverify.models import Country, OrderRequest, Product, Service
from smsverify.store import Store, catalogues

Model = TypeVar("Model", bound=BaseModel)


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
        this = sa.and_(catalogues.c.account == self._account, catalogues.c.name == name)
        with self._store.read() as connection:
            row = connection.execute(sa.select(catalogues).where(this)).one_or_none()
            now = self._store.now(connection)
        if row is not None and 0 <= now - row.fetched_at < self._max_age:
            return [model.model_validate(values) for values in json.loads(row.body)]
        entries = fetch()
        body = json.dumps([entry.model_dump(mode="json") for entry in entries])
        with self._store.write() as connection:
            values = {"fetched_at": self._store.now(connection), "body": body}
            insert = self._store.insert(catalogues).values(account=self._account, name=name, **values)
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=[catalogues.c.account, catalogues.c.name],
                    set_=values,
                )
            )
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
