"""Which numbers deliver: what was bought, and which SMS came for it, as the store has it on record."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from smsverify._input.amounts import exactly
from smsverify._orders.records import IS_REFUNDED
from smsverify._runtime.clock import DAY
from smsverify._store.parameters import ACCOUNT
from smsverify._store.rows import named
from smsverify._store.store import Store
from smsverify._store.tables import is_order, messages, orders, purchases
from smsverify.checks import OrderRequest
from smsverify.models import has_ended
from smsverify.overview import Delivery
from smsverify.text import log_of

log = log_of(__name__)

DAYS: Final = 30.0  # that the order of alternatives goes by
MOST = 20_000  # purchases that are looked at, the newest: a busy account's month
Z = 1.96  # of an interval that holds the true rate in 95 of 100 cases


def newest_bought(
    since: sa.ColumnElement[float],
    most: int | sa.BindParameter[int],
    of_purchase: Sequence[sa.Column[Any]] = (),
    of_order: Sequence[sa.ColumnElement[Any]] = (),
) -> sa.Select[Any]:
    """The newest purchases with their order, and how long their first SMS took: what `figures` counts.

    Args:
        since: leaves out what was bought before, by the store's clock.
        most: how many purchases count.
        of_purchase, of_order: columns besides.
    """
    needed = (purchases.c.order_id, purchases.c.request, purchases.c.sent_at, purchases.c.charge)
    newest = (
        sa.select(*dict.fromkeys([*needed, *of_purchase]))
        .where(
            purchases.c.account == ACCOUNT,
            purchases.c.sent_at >= since,
            purchases.c.state == "bought",
            purchases.c.kind == "order",
        )
        .order_by(purchases.c.sent_at.desc())
        .limit(most)
        .subquery()
    )
    seconds = sa.select(sa.func.min(messages.c.came_at) - newest.c.sent_at).where(
        messages.c.account == ACCOUNT,
        messages.c.order_id == newest.c.order_id,
        messages.c.came_at >= newest.c.sent_at,
    )
    return sa.select(
        newest.c.request,
        *(newest.c[column.name] for column in of_purchase),
        sa.func.coalesce(orders.c.price, newest.c.charge).label("price"),
        orders.c.status,
        IS_REFUNDED.label("is_refunded"),
        seconds.scalar_subquery().label("seconds"),
        *of_order,
    ).join(orders, is_order(ACCOUNT, newest.c.order_id))


_BOUGHT = newest_bought(sa.bindparam("since", type_=sa.Double), sa.bindparam("most", type_=sa.Integer))


class Deliveries:
    """What the numbers of one account have delivered, from the store alone.

    Args:
        store: where purchases, orders and messages are on record.
        account: whose they are.
    """

    def __init__(self, store: Store, account: str) -> None:
        self._store = store
        self._account = account

    def of_last(self, days: float) -> list[Delivery]:
        """The numbers of the last days by what was bought, the most first; see `SmsVerifyHook.delivery`."""
        with self._store.read() as connection:
            since = self._store.now(connection) - days * DAY
            values = {"account": self._account, "since": since, "most": MOST}
            return figures(named(connection.execute(_BOUGHT, values)))

    def best_first(self, requests: Sequence[OrderRequest]) -> list[OrderRequest]:
        """These purchases in the order in which their numbers have delivered, and says so in the log.

        They are compared by the middle of the rate's interval: what was never bought is as good as a rate of
        one half, and a few numbers do not move it far.
        """
        known = self.of_last(DAYS)
        found = {request.fingerprint: _record_of(request, known) for request in requests}
        best = sorted(requests, key=lambda request: -_middle(found[request.fingerprint]))
        lines = "; ".join(_as_text(request, found[request.fingerprint]) for request in best)
        log.info("By the numbers of the last %g days these are tried in this order: %s", DAYS, lines)
        return best


def figures(bought: Iterable[Any]) -> list[Delivery]:
    """What numbers have delivered by what was bought, the most first.

    Args:
        bought: rows of `newest_bought`.
    """
    by_request = defaultdict[str, list[Any]](list)
    for row in bought:
        by_request[row.request].append(row)
    rows = defaultdict[tuple[Any, ...], list[Any]](list)
    for text, these in by_request.items():
        request = json.loads(text)
        if request["product"] != "esim":
            rows[_what(request)] += these
    found = [_delivery(what, these) for what, these in rows.items()]
    return sorted(found, key=lambda one: (-one.bought, one.product, one.service))


def _what(request: dict[str, Any]) -> tuple[Any, ...]:
    fields = ("product", "name", "service", "country_name", "country", "area_code")
    return tuple(request[field] for field in fields)


@exactly
def _delivery(what: tuple[Any, ...], rows: Sequence[Any]) -> Delivery:
    product, service, service_id, country, country_id, area_code = what
    seconds = sorted(row.seconds for row in rows if row.seconds is not None)
    codes = len(seconds)
    # Many are alike, and a price or a status takes longer to read than to count.
    alike = Counter((row.price, row.status, row.is_refunded, row.seconds is None) for row in rows)
    # A number that is still waited for says nothing yet.
    decided = codes + sum(n for (_, status, _, is_open), n in alike.items() if is_open and has_ended(status))
    low, high = wilson(codes, decided)
    paid = (Decimal(price) * n for (price, _, is_back, _), n in alike.items() if price and not is_back)
    cost = sum(paid, Decimal(0))
    return Delivery(
        product=product,
        service=service,
        service_id=service_id,
        country=country,
        country_id=country_id,
        area_code=area_code,
        bought=len(rows),
        decided=decided,
        codes=codes,
        rate=codes / decided if decided else None,
        rate_low=low,
        rate_high=high,
        p50_seconds=_quantile(seconds, 0.5),
        p95_seconds=_quantile(seconds, 0.95),
        cost=cost,
        cost_per_code=round(cost / codes, 4) if codes else None,
        refunds=sum(n for (_, _, is_back, _), n in alike.items() if is_back),
    )


def wilson(codes: int, decided: int) -> tuple[float, float]:
    """The interval of a rate after Wilson: what it may be in truth, with a certainty of 95 %."""
    if not decided:
        return 0.0, 1.0
    rate, spread = codes / decided, Z * Z / decided
    middle = (rate + spread / 2) / (1 + spread)
    reach = Z * math.sqrt(rate * (1 - rate) / decided + spread / (4 * decided)) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that is not passed by this share of them."""
    return round(ordered[math.ceil(share * len(ordered)) - 1], 3) if ordered else None


def _record_of(request: OrderRequest, known: Iterable[Delivery]) -> Delivery | None:
    return next((one for one in known if _is_of(one, request)), None)


def _is_of(one: Delivery, request: OrderRequest) -> bool:
    return (
        (one.product, one.area_code) == (request.product, request.area_code)
        and _names(request.service, one.service, one.service_id)
        and (request.country is None or _names(request.country, one.country, one.country_id))
    )


def _names(given: int | str | None, *known: str | None) -> bool:
    return str(given).casefold() in {str(one).casefold() for one in known if one is not None}


def _middle(record: Delivery | None) -> float:
    return 0.5 if record is None else (record.rate_low + record.rate_high) / 2


def _as_text(request: OrderRequest, record: Delivery | None) -> str:
    area = f", area code {request.area_code}" if request.area_code else ""
    if record is None or record.rate is None:
        return f"{request.product}{area} (nothing is known of it)"
    return f"{request.product}{area} ({record.codes} codes of {record.decided} numbers)"
