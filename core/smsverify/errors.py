"""The errors of this package: one class for each case in which a caller acts differently.

```
SmsVerifyError
├── InvalidRequestError    the input is wrong; `field` names it. Nothing was bought: it was not sent, or the
│                          service refused it (`status_code`).
├── StoreError             the store cannot be used. Without it, no paid call is sent.
│   └── SettingsUnavailableError  the account's settings cannot be read now.
├── PriceLimitError        the price is above `max_price`, or unknown. Nothing was sent.
├── SpendingLimitError     the call would pass a budget. Nothing was sent.
├── ServiceError           the service answered with another error than these:
│   ├── AuthenticationError       401, 403: the key is wrong. Not retried. A 403 about one order is a
│   │                             plain `ServiceError`, unless it names the key.
│   ├── InsufficientBalanceError  402: top up the wallet.
│   ├── NotFoundError             404: there is no such order.
│   ├── NotAvailableError         out of stock, or no such service.
│   ├── NotCancellableError       the order cannot be cancelled, or not now.
│   ├── RateLimitedError          429: come back after `retry_after` seconds.
│   ├── ServiceUnavailableError   no connection, time-out or 5xx: try again later.
│   └── UnexpectedResponseError   an answer that the documentation does not describe.
├── PurchaseUnknownError   the outcome of a paid call is unknown; it is not sent again.
│   ├── PurchaseAmbiguousError    several orders may be it: a person has to decide.
│   └── PurchaseUnverifiableError the list does not show it yet: call again later.
├── PurchaseConflictError  the key stands for another purchase, or is in use.
├── OrderEndedError        the order has ended without the SMS that was asked for.
├── FindingsError          a person should look at something; `report` names it.
├── VerificationError      none of several numbers got its code; `attempts` lists them.
├── WaitTimeoutError       no code arrived in time.
└── WaitStoppedError       the wait was stopped.
```
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from smsverify.text import printable

ORDER_ANOTHER = "Order another number"
NO_CODE = "no code came in time"  # why most waits end without one
_LONGEST = 10_000  # characters of a message


class SmsVerifyError(Exception):
    """Base of all errors of this package. Its message is one line, even if it quotes a text."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message, _LONGEST))


class InvalidRequestError(SmsVerifyError, ValueError):
    """A value is missing, malformed, or does not fit the others.

    Attributes:
        field: the name of the parameter or setting that is wrong, if known.
        status_code: as in `ServiceError`, if the service refused the value; `None` if it was not sent.
        service_message: likewise.
        endpoint: likewise.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        status_code: int | None = None,
        service_message: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.status_code = status_code
        self.service_message = service_message
        self.endpoint = endpoint


class StoreError(SmsVerifyError):
    """The store (SQLite file or PostgreSQL) cannot be reached, is locked, or belongs to another version."""


class SettingsUnavailableError(StoreError):
    """The account's settings (Airflow's connection, Prefect's block) cannot be read now.

    Nothing was sent, because the wallet is not known. The same call may be made again later.
    """


class PriceLimitError(SmsVerifyError):
    """The price in the catalogue is above `max_price`, or unknown. Nothing was sent, no money has moved."""


class SpendingLimitError(SmsVerifyError):
    """The purchase would exceed a budget. Nothing was sent, no money has moved.

    Attributes:
        budget: its name, `daily_budget` or `run_budget`.
    """

    def __init__(self, message: str, *, budget: str | None = None) -> None:
        super().__init__(message)
        self.budget = budget


class ServiceError(SmsVerifyError):
    """The service refused a request.

    Attributes:
        status_code: the HTTP status, `None` if there was no answer.
        service_message: the service's own text.
        endpoint: method and path, e.g. `POST /api/v1/order/temporary/`.
        retry_after: seconds after which it makes sense to try again, if known.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        service_message: str | None = None,
        endpoint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.service_message = service_message
        self.endpoint = endpoint
        self.retry_after = retry_after


class AuthenticationError(ServiceError):
    """The API key is missing, wrong or not allowed (401, or 403 to more than one order)."""


class InsufficientBalanceError(ServiceError):
    """The wallet does not hold enough for this purchase."""


class NotFoundError(ServiceError):
    """The service knows no such order, or no such address."""


class NotAvailableError(ServiceError):
    """The service, country or plan does not exist or is out of stock."""


class NotCancellableError(ServiceError):
    """The order cannot be cancelled, or not now."""


class RateLimitedError(ServiceError):
    """The API key's requests per minute are used up: try again after `retry_after` seconds."""


class ServiceUnavailableError(ServiceError):
    """The service could not be reached, did not answer in time, or answered 5xx."""


class UnexpectedResponseError(ServiceError):
    """The answer is not what the documentation says; the message quotes its beginning without secrets."""


class PurchaseUnknownError(SmsVerifyError):
    """A paid call may or may not have been carried out.

    The purchase is on record under `key`. A call with the same key looks for its outcome first, and never
    buys twice.

    Attributes:
        key: the purchase's key.
        order_ids: the orders that may be this purchase, if there are several.
    """

    def __init__(self, message: str, *, key: str | None = None, order_ids: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.key = key
        self.order_ids = order_ids


class PurchaseAmbiguousError(PurchaseUnknownError):
    """Several orders may be this purchase, and only a person can decide. Until then, the key buys nothing.

    `order_ids` lists the candidates; `SmsVerifyHook.resolve` (`smsverify resolve`) takes the decision.
    """


class PurchaseUnverifiableError(PurchaseUnknownError):
    """Whether a call was carried out is not known yet, because the list of orders cannot be read now, or was
    read too early. Call again later.
    """


class PurchaseConflictError(SmsVerifyError):
    """The key is taken: by another request, or by a purchase that is under way.

    Attributes:
        key: the purchase's key.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class OrderEndedError(SmsVerifyError):
    """The order has ended (cancelled, failed, expired or completed) without the SMS that was asked for.

    Attributes:
        order_id: the order.
        status: how it ended, in the service's word.
        reason: the message without the order's name and what to do next.
    """

    def __init__(
        self,
        message: str,
        *,
        order_id: int | None = None,
        status: str | None = None,
        reason: str = "it has ended",
    ) -> None:
        super().__init__(message)
        self.order_id = order_id
        self.status = status
        self.reason = reason


class FindingsError(SmsVerifyError):
    """A run on a schedule has findings, which the message names. The run has done all that it could do.

    After `renew_expiring`: some rentals were due, or may have been, and were not renewed. After `reconcile`:
    a person has to look at some orders or paid calls.

    Attributes:
        report: the `RentalsReport` or the `Reconciliation`.
    """

    def __init__(self, message: str, *, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class VerificationError(SmsVerifyError):
    """None of several numbers got its code. Each is refunded, on record as to be cancelled, or spent.

    Attributes:
        attempts: the attempts in their order, each a `smsverify.verification.TriedNumber`.
        cost: USD that was not refunded.
    """

    def __init__(self, message: str, *, attempts: Sequence[Any] = (), cost: Decimal = Decimal(0)) -> None:
        super().__init__(message)
        self.attempts = list(attempts)
        self.cost = cost


class WaitTimeoutError(SmsVerifyError, TimeoutError):
    """No code arrived before the deadline.

    Attributes:
        order_id: the order.
        cancelled: whether the order was then cancelled.
        reason: the message without the order's name and what became of it.
    """

    def __init__(
        self,
        message: str,
        *,
        order_id: int | None = None,
        cancelled: bool = False,
        reason: str = NO_CODE,
    ) -> None:
        super().__init__(message)
        self.order_id = order_id
        self.cancelled = cancelled
        self.reason = reason


class WaitStoppedError(SmsVerifyError):
    """The `stop` event of the wait was set."""
