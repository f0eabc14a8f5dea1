"""What is for sale: the documentation's own sample entries, and more for variety.

`services/temporary/`, `services/rent-1day/`, `services/rent-30days/`, `services/best-temp/` and
`global/services/` sell by `service_id`; `services/rental/` and `services/esim/` by name.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from typing import Any

from smsverify.simulator.records import SimulatorError

PRODUCTS = ("temporary", "best-temp", "rental", "rent-1day", "rent-30days", "global", "esim")
"""The products, by the API's own words."""


@dataclass
class Service:
    """A service sold by id.

    Attributes:
        service_id: The id; 1012 (WhatsApp) stands in three catalogues at different prices.
        name: The service's name.
        price: USD; what is debited.
        stock: How many may still be bought; None for any number.
        country_id: Of a global service; None for others.
        shown_price: What the field `price` shows where it differs from `sell_price` (global services only).
    """

    service_id: int
    name: str
    price: Decimal
    stock: int | None = None
    country_id: int | None = None
    shown_price: Decimal | None = None

    def sell_price(self, _duration: int | None = None) -> Decimal:
        """USD."""
        return self.price


@dataclass
class Rental:
    """A USA rental sold by name for 3 or 30 days.

    Attributes:
        name: The service's name.
        price_3days: USD for 3 days.
        price_30days: USD for 30 days.
        stock: How many may still be bought; None for any number.
    """

    name: str
    price_3days: Decimal
    price_30days: Decimal
    stock: int | None = None
    service_id: None = field(default=None, init=False)
    country_id: None = field(default=None, init=False)

    def sell_price(self, duration: int | None) -> Decimal:
        """USD for `duration` days, 3 or 30."""
        return self.price_3days if duration == 3 else self.price_30days  # 3 days


@dataclass
class Plan:
    """An eSIM plan, sold by name.

    Attributes:
        name: The plan's name.
        data_gb: Gigabytes.
        validity_days: Days.
        price: USD.
        stock: How many may still be bought; None for any number.
    """

    name: str
    data_gb: float
    validity_days: int
    price: Decimal
    stock: int | None = None
    service_id: None = field(default=None, init=False)
    country_id: None = field(default=None, init=False)

    def sell_price(self, _duration: int | None = None) -> Decimal:
        """USD."""
        return self.price


Offer = Service | Rental | Plan


@dataclass
class Country:
    """A country of the global numbers.

    Attributes:
        country_id: The id.
        name: As `global/countries/` writes it.
        label: As `orders/` writes it behind the service's name: "WhatsApp (UK)".
    """

    country_id: int
    name: str
    label: str


def _service(service_id: int, name: str, price: str, country_id: int | None = None) -> Service:
    return Service(service_id, name, Decimal(price), country_id=country_id)


@dataclass
class Catalogue:
    """Everything for sale, one list per product, and the countries."""

    temporary: list[Service] = field(
        default_factory=lambda: [
            _service(1012, "WhatsApp", "0.40"),
            _service(22, "Telegram", "0.30"),
            _service(31, "Google", "0.35"),
            _service(47, "Discord", "0.25"),
            _service(58, "PayPal", "0.55"),
            _service(63, "Instagram", "0.28"),
            _service(71, "Facebook", "0.27"),
            _service(85, "Amazon", "0.32"),
            _service(96, "Uber", "0.38"),
            _service(104, "Microsoft", "0.20"),
            _service(118, "Tinder", "0.60"),
            _service(127, "Signal", "0.45"),
        ]
    )
    best_temp: list[Service] = field(
        default_factory=lambda: [
            _service(1012, "WhatsApp", "0.40"),
            _service(22, "Telegram", "0.42"),
            _service(31, "Google", "0.50"),
            _service(58, "PayPal", "0.75"),
        ]
    )
    rental: list[Rental] = field(
        default_factory=lambda: [
            Rental("WhatsApp", Decimal("4.00"), Decimal("12.00")),
            Rental("Telegram", Decimal("3.50"), Decimal("10.50")),
            Rental("Google", Decimal("3.80"), Decimal("11.00")),
            Rental("PayPal", Decimal("4.50"), Decimal("13.50")),
        ]
    )
    rent_1day: list[Service] = field(
        default_factory=lambda: [
            _service(4421, "Tinder", "1.20"),
            _service(4422, "Discord", "1.50"),
            _service(4423, "WhatsApp", "1.60"),
            _service(4424, "Google", "1.35"),
        ]
    )
    rent_30days: list[Service] = field(
        default_factory=lambda: [
            _service(7821, "Instagram", "12.00"),
            _service(7822, "WhatsApp", "14.00"),
            _service(7823, "Telegram", "11.50"),
        ]
    )
    global_: list[Service] = field(
        default_factory=lambda: [
            _service(1012, "WhatsApp", "0.95", 4),
            _service(22, "Telegram", "0.80", 4),
            _service(31, "Google", "0.70", 4),
            _service(1012, "WhatsApp", "1.10", 17),
            _service(22, "Telegram", "0.90", 17),
            _service(58, "PayPal", "1.25", 17),
            _service(1012, "WhatsApp", "0.60", 9),
            _service(31, "Google", "0.45", 9),
            _service(85, "Amazon", "0.50", 9),
        ]
    )
    esim: list[Plan] = field(
        default_factory=lambda: [
            Plan("USA 5GB / 30 days", 5.0, 30, Decimal("12.00")),
            Plan("USA 1GB / 7 days", 1.0, 7, Decimal("4.00")),
            Plan("Europe 3GB / 15 days", 3.0, 15, Decimal("9.50")),
        ]
    )
    countries: list[Country] = field(
        default_factory=lambda: [
            Country(4, "United Kingdom", "UK"),
            Country(17, "Germany", "Germany"),
            Country(9, "India", "India"),
        ]
    )

    def offers(self, product: str) -> list[Service] | list[Rental] | list[Plan]:
        """The list of one product, by the API's word for it."""
        offers: list[Service] | list[Rental] | list[Plan] = getattr(self, _attribute(product))
        return offers

    def find(self, product: str, wanted: object, country_id: int | None = None) -> Offer | None:
        """The offer with this id (compared as text) or name (any case), or None."""
        text = str(wanted).strip().lower()
        by_id = product not in ("rental", "esim")
        for offer in self.offers(product):
            known = str(offer.service_id) if by_id else offer.name.lower()
            if known == text and offer.country_id == country_id:
                return offer
        return None

    def known_services(self) -> set[str]:
        """The ids, and the names in lower case, of all services."""
        offers = [offer for product in PRODUCTS for offer in self.offers(product)]
        return {offer.name.lower() for offer in offers} | {str(offer.service_id) for offer in offers}

    def country(self, country_id: int) -> Country | None:
        """The country with this id, or None."""
        return next((country for country in self.countries if country.country_id == country_id), None)

    def copy(self) -> Catalogue:
        """A copy whose stock and prices may change on their own."""
        return copy.deepcopy(self)

    def to_json(self) -> dict[str, Any]:
        """The catalogue as JSON: one list per product, keyed by the API's words, and "countries"."""
        return {
            section: [
                {
                    item.name: str(value)
                    if isinstance(value := getattr(entry, item.name), Decimal)
                    else value
                    for item in fields(entry)
                    if item.init
                }
                for entry in getattr(self, attribute)
            ]
            for section, (attribute, _) in _SECTIONS.items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Catalogue:
        """A catalogue from JSON; a product that is not named keeps its default list."""
        catalogue = cls()
        if not isinstance(values, dict):
            raise SimulatorError(f"catalogue: an object, not {values!r}")
        for section, entries in values.items():
            if section not in _SECTIONS:
                raise SimulatorError(f"catalogue: unknown section {section!r}; known: {', '.join(_SECTIONS)}")
            attribute, kind = _SECTIONS[section]
            setattr(catalogue, attribute, [_entry(kind, section, entry) for entry in entries])
        return catalogue


_SECTIONS: dict[str, tuple[str, type[Any]]] = {
    "temporary": ("temporary", Service),
    "best-temp": ("best_temp", Service),
    "rental": ("rental", Rental),
    "rent-1day": ("rent_1day", Service),
    "rent-30days": ("rent_30days", Service),
    "global": ("global_", Service),
    "esim": ("esim", Plan),
    "countries": ("countries", Country),
}


def _attribute(product: str) -> str:
    if product not in PRODUCTS:
        raise SimulatorError(f"product: unknown {product!r}; known: {', '.join(PRODUCTS)}")
    return _SECTIONS[product][0]


def _entry(kind: type[Any], section: str, entry: dict[str, Any]) -> Any:
    amounts = {name for name in entry if "price" in name and entry[name] is not None}
    try:
        return kind(**{**entry, **{name: Decimal(str(entry[name])) for name in amounts}})
    except (TypeError, InvalidOperation) as error:
        raise SimulatorError(f"catalogue: {section}: {entry!r}: {error}") from error
