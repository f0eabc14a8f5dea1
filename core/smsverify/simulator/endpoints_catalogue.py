"""The endpoints that read the wallet and the catalogues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smsverify.simulator.answers import Answer, Request, reply, reply_data
from smsverify.simulator.state import Refused, State


def balance(state: State, _request: Request) -> Answer:
    return reply(_balance(state))


def wallet_balance(state: State, _request: Request) -> Answer:
    return reply_data(_balance(state))


def _balance(state: State) -> dict[str, Any]:
    return {"balance": state.balance, "currency": "USD"}


def services(product: str, **extra: str) -> Callable[[State, Request], Answer]:
    def endpoint(state: State, _request: Request) -> Answer:
        offers = state.catalogue.offers(product)
        return reply_data(
            {
                "services": [
                    {"service_id": o.service_id, "name": o.name, "price": o.sell_price(None), **extra}
                    for o in offers
                ]
            }
        )

    return endpoint


def rental_services(state: State, _request: Request) -> Answer:
    return reply(
        [
            {
                "name": offer.name,
                "sell_price_3days": offer.price_3days,
                "sell_price_30days": offer.price_30days,
                "price_3days": offer.price_3days,
                "price_30days": offer.price_30days,
            }
            for offer in state.catalogue.rental
        ]
    )


def esim_plans(state: State, _request: Request) -> Answer:
    return reply(
        [
            {
                "name": plan.name,
                "data_gb": plan.data_gb,
                "validity_days": plan.validity_days,
                "sell_price": plan.price,
                "price": plan.price,
            }
            for plan in state.catalogue.esim
        ]
    )


def countries(state: State, _request: Request) -> Answer:
    in_stock = {offer.country_id for offer in state.catalogue.global_ if offer.stock != 0}
    return reply(
        {
            "countries": [
                {"country_id": country.country_id, "country_name": country.name}
                for country in state.catalogue.countries
                if country.country_id in in_stock
            ]
        }
    )


def global_services(state: State, request: Request) -> Answer:
    text = request.query.get("country_id", "")
    if not text:
        raise Refused(400, "country_id query parameter is required")
    if not text.isdecimal():
        raise Refused(400, "country_id must be an integer")
    country = state.catalogue.country(int(text))
    if country is None:
        raise Refused(404, "Country not found")
    offers = [o for o in state.catalogue.global_ if o.country_id == country.country_id and o.stock != 0]
    return reply(
        {
            "country_id": country.country_id,
            "country_name": country.name,
            "offers": [
                {
                    "service_id": offer.service_id,
                    "service_name": offer.name,
                    "country_id": country.country_id,
                    "country_name": country.name,
                    "sell_price": offer.price,
                    "price": offer.price if offer.shown_price is None else offer.shown_price,
                }
                for offer in offers
            ],
        }
    )
