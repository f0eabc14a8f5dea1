"""What tests of rentals ask of a hook, its report and the simulator."""

from __future__ import annotations

from typing import Any

from smsverify.hook import SmsVerifyHook
from smsverify.reports import KeptRental, RentalsReport
from smsverify.simulator import Simulator

HOUR = 3600.0
DAY = 24 * HOUR
KINDS: dict[str, dict[str, Any]] = {
    "day": {"product": "rent-1day", "service": "Tinder"},  # 1.20
    "month": {"product": "rent-30days", "service": "Instagram"},  # 12.00
    "three": {"product": "rental", "service": "WhatsApp", "duration": 3},  # 4.00
    "thirty": {"product": "rental", "service": "Telegram", "duration": 30},  # 10.50
}


def rent(hook: SmsVerifyHook, *kinds: str) -> list[int]:
    return [hook.order(**KINDS[kind]).order_id for kind in kinds]


def of(report: RentalsReport, order_id: int) -> KeptRental:
    (kept,) = [rental for rental in report.rentals if rental.order_id == order_id]
    return kept


def outcomes(report: RentalsReport) -> dict[int, str]:
    return {rental.order_id: rental.outcome for rental in report.rentals}


def renewals(service: Simulator) -> dict[int, int]:
    return {order.order_id: order.renewals for order in service.orders()}


def posts(service: Simulator) -> int:
    return sum(record.path.endswith("/renew/") for record in service.requests())
