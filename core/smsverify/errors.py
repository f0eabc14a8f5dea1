"""What can go wrong, one class for each thing a caller would do differently.

```
SmsVerifyError
├── InvalidRequestError      the input is wrong: `field` names it. Nothing was sent, or the service refused.
├── StoreError               the store cannot be used; without it nothing that costs money is sent.
├── PriceLimitError          the catalogue's price is above `max_price`, or unknown. Nothing was sent.
├── SpendingLimitError       a budget for the day or the run would be passed. Nothing was sent.
├── ServiceError             the service answered with an error that fits none of the classes below.
│   ├── AuthenticationError      401 / 403: the key is wrong. Never retried.
│   ├── InsufficientBalanceError 402: top up the wallet.
│   ├── NotFoundError            404: no such order.
│   ├── NotAvailableError        out of stock, or no such service: choose another.
│   ├── NotCancellableError      the order can not be cancelled (now).
│   ├── RateLimitedError         429: come back after `retry_after` seconds.
│   ├── ServiceUnavailableError  no connection, time-out or 5xx: try again later.
│   └── UnexpectedResponseError  the answer is not what the documentation says.
├── PurchaseUnknownError     a paid call was sent and its outcome is not known. It is on record; never send it
│   │                        again blindly.
│   ├── PurchaseAmbiguousError   several orders may be it: a person has to tell which.
│   └── PurchaseUnverifiableError the list of orders can not be read: look again later.
├── PurchaseConflictError    the purchase's key stands for something else, or is in use.
├── OrderEndedError          the order was cancelled, expired or completed without a code.
├── RentalsNotKeptError      some rentals that end soon could not be renewed: `report` says which, and why.
├── WaitTimeoutError         no code arrived in time.
└── WaitStoppedError         the wait was told to stop.
```
"""

from __future__ import annotations

from typing import Any


class SmsVerifyError(Exception):
    """Base of all errors of this package."""


class InvalidRequestError(SmsVerifyError, ValueError):
    """A value is missing, malformed, or does not go with the others.

    Attributes:
        field: the name of the offending parameter or setting, where known.
        status_code, service_message, endpoint: as in `ServiceError`, where it was the service that refused.
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
    """The store (SQLite file or PostgreSQL) cannot be reached, is locked, or belongs to a newer version."""


class PriceLimitError(SmsVerifyError):
    """The price in the catalogue is above `max_price`, or no price is known. No money has moved."""


class SpendingLimitError(SmsVerifyError):
    """A budget would be passed. No money has moved.

    Attributes:
        budget: its name, `daily_budget` or `run_budget`.
    """

    def __init__(self, message: str, *, budget: str | None = None) -> None:
        super().__init__(message)
        self.budget = budget


class ServiceError(SmsVerifyError):
    """The service refused a request.

    Attributes:
        status_code: the HTTP status, `None` where there was no answer.
        service_message: the service's own text.
        endpoint: method and path, e.g. `POST /api/v1/order/temporary/`.
        retry_after: seconds until it makes sense to try again, where known.
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
    """The API key is missing, wrong or not allowed (401, 403)."""


class InsufficientBalanceError(ServiceError):
    """The wallet does not hold enough for this purchase."""


class NotFoundError(ServiceError):
    """The service knows no such order (or address)."""


class NotAvailableError(ServiceError):
    """The service, country or plan does not exist or is out of stock."""


class NotCancellableError(ServiceError):
    """The order can not be cancelled, or not now."""


class RateLimitedError(ServiceError):
    """The account's requests per minute are used up; `retry_after` says for how long."""


class ServiceUnavailableError(ServiceError):
    """The service could not be reached, did not answer in time, or answered 5xx."""


class UnexpectedResponseError(ServiceError):
    """The answer could not be understood; the message carries a redacted excerpt."""


class PurchaseUnknownError(SmsVerifyError):
    """A paid call may or may not have been carried out.

    The intent is on record under `key`. Calling again with the same key looks for the outcome first and
    never buys twice.

    Attributes:
        key: the purchase's key.
        order_ids: orders that may be this purchase, where several came into question.
    """

    def __init__(self, message: str, *, key: str | None = None, order_ids: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.key = key
        self.order_ids = order_ids


class PurchaseAmbiguousError(PurchaseUnknownError):
    """More orders than purchases fit, or they fit different ones. Nothing is bought until a person has told.

    `order_ids` lists the candidates; `SmsVerifyHook.settle` (`smsverify settle`) takes the decision.
    """


class PurchaseUnverifiableError(PurchaseUnknownError):
    """Whether the call was carried out can not be found out now: the list of orders can not be read."""


class PurchaseConflictError(SmsVerifyError):
    """The key is taken: by another request, or by a purchase that is being made at this moment.

    Attributes:
        key: the purchase's key.
    """

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class OrderEndedError(SmsVerifyError):
    """The order came to its end (cancelled, expired, completed) and no code had arrived.

    Attributes:
        order_id: the order.
        status: the service's word for how it ended.
    """

    def __init__(self, message: str, *, order_id: int | None = None, status: str | None = None) -> None:
        super().__init__(message)
        self.order_id = order_id
        self.status = status


class RentalsNotKeptError(SmsVerifyError):
    """Some rentals were due, or may have been, and were not renewed. The others were.

    Attributes:
        report: what was done for each rental, as `SmsVerifyHook.renew_expiring` returned it.
    """

    def __init__(self, message: str, *, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class WaitTimeoutError(SmsVerifyError, TimeoutError):
    """No code arrived before the deadline.

    Attributes:
        order_id: the order.
        cancelled: whether the order was cancelled on that account.
    """

    def __init__(self, message: str, *, order_id: int | None = None, cancelled: bool = False) -> None:
        super().__init__(message)
        self.order_id = order_id
        self.cancelled = cancelled


class WaitStoppedError(SmsVerifyError):
    """The wait was ended by its `stop` event."""
