"""How the orders of a product live and how the SMS of a service look: settings with their defaults."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, Literal

from smsverify.simulator.records import SimulatorError

Delay = float | tuple[float, float] | Literal["never"]
"""Seconds of the service's time; a (low, high) range drawn from the seeded random; or "never"."""

DAY = 86_400.0


@dataclass(frozen=True)
class ProductSettings:
    """How the orders of one product live.

    =========================  ==============  ============  ============  ==========  ==========
    defaults                   validity        start_status  sms_status    end_status  end_refund
    =========================  ==============  ============  ============  ==========  ==========
    temporary, best-temp       20 minutes      pending       completed     cancelled   yes
    global                     20 minutes      pending       completed     cancelled   yes
    rental                     as bought       active        active        expired     no
    rent-1day, rent-30days     1 day, 30 days  pending       active        expired     no
    esim                       as bought       active        (no SMS)      expired     no
    =========================  ==============  ============  ============  ==========  ==========

    The service documents neither the validity of a temporary number nor what its end looks like.

    Attributes:
        validity: Seconds from purchase to the end of the order; None means as bought: `duration` days for
            `rental`, the plan's days for `esim`.
        start_status: The status after the purchase.
        sms_status: The status after an SMS has arrived.
        end_status: The status at the end of the validity, unless completed or cancelled before.
        end_refund: Whether what was paid comes back at that end if no SMS has arrived.
        sms_delay: Overrides the general `sms_delay` for this product; None keeps it.
    """

    validity: float | None
    start_status: str = "pending"
    sms_status: str = "completed"
    end_status: str = "cancelled"
    end_refund: bool = True
    sms_delay: Delay | None = None

    def __post_init__(self) -> None:
        if self.validity is not None:
            positive("validity", self.validity)
        if self.sms_delay is not None:
            object.__setattr__(self, "sms_delay", parse_delay(self.sms_delay, "sms_delay"))


@dataclass(frozen=True)
class ServiceSettings:
    """How the SMS of one service look and when they come, whatever the product.

    Attributes:
        sms_delay: Overrides the product's and the general delay; None keeps them.
        sender: The SMS's sender.
        text: The SMS's text; ``{otp}`` stands for the code and ``{service}`` for the service's name.
        digits: The code's length.
    """

    sms_delay: Delay | None = None
    sender: str = "72000"
    text: str = "Your {service} code is {otp}"
    digits: int = 6

    def __post_init__(self) -> None:
        if self.sms_delay is not None:
            object.__setattr__(self, "sms_delay", parse_delay(self.sms_delay, "sms_delay"))
        whole("digits", self.digits)
        try:
            self.text.format(service="", otp="")
        except (LookupError, ValueError) as error:
            raise SimulatorError(f"text: only {{otp}} and {{service}} are filled in: {error!r}") from error


def default_products() -> dict[str, ProductSettings]:
    once = partial(ProductSettings, 20 * 60.0)
    kept = partial(ProductSettings, sms_status="active", end_status="expired", end_refund=False)
    return {
        "temporary": once(),
        "best-temp": once(),
        "global": once(),
        "rental": kept(None, start_status="active"),
        "rent-1day": kept(DAY),
        "rent-30days": kept(30 * DAY),
        "esim": kept(None, start_status="active"),
    }


def default_services() -> dict[str, ServiceSettings]:
    return {
        "whatsapp": ServiceSettings(sender="WhatsApp"),
        "telegram": ServiceSettings(sender="Telegram", text="Telegram code: {otp}", digits=5),
        "google": ServiceSettings(sender="22000", text="G-{otp} is your Google verification code."),
        "paypal": ServiceSettings(sender="8843", text="Your PayPal OTP is {otp}"),
        "uber": ServiceSettings(
            sender="89203", text="Your Uber code is {otp}. Never share this code.", digits=4
        ),
    }


def parse_amount(value: object, name: str) -> Decimal:
    """A finite USD amount from a number or text."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise SimulatorError(f"{name}: an amount such as 12.50, not {value!r}")
    return amount


def parse_delay(value: object, name: str) -> Delay:
    """A delay from a number, a pair, "never", or the text forms "7", "5-20" and "never"."""
    if value is None or value == "never":
        return "never"
    try:
        if isinstance(value, str):
            value = tuple(float(part) for part in value.split("-")) if "-" in value else float(value)
        if isinstance(value, (int, float)):
            low = high = float(value)
        else:
            low, high = (float(part) for part in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not (0 <= low <= high < math.inf):
        raise SimulatorError(f'{name}: seconds, a (low, high) range, or "never", not {value!r}')
    return low if low == high else (low, high)


def whole(name: str, value: int) -> None:
    """Refuse anything but a whole number from 1."""
    if not isinstance(value, int) or value < 1:
        raise SimulatorError(f"{name}: a whole number from 1, not {value!r}")


def positive(name: str, value: float) -> None:
    """Refuse anything but a positive, finite number."""
    if not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise SimulatorError(f"{name}: a positive number, not {value!r}")


def merged(kind: type[Any], name: str, base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of `kind`: those of `base`, with the fields that `given` names changed."""
    result = dict(base)
    if not isinstance(given, Mapping):
        raise SimulatorError(f"{name}: a mapping, not {given!r}")
    for name_, entry in given.items():
        key = str(name_).lower()
        if isinstance(entry, kind):
            result[key] = entry
            continue
        try:
            old = result.get(key)
            result[key] = dataclasses.replace(old, **entry) if old else kind(**entry)
        except TypeError as error:
            raise SimulatorError(f"{name}: {key}: {error}") from error
    return result
