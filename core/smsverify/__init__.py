"""Rent phone numbers and receive the one-time codes (OTPs) sent to them.

`SmsVerifyHook` is the face of it all. Names are loaded when they are first used, so that importing this
package costs nothing if a Dag file only needs to name an operator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from smsverify._version import __version__

if TYPE_CHECKING:
    from smsverify._service.rate_limit import RateLimitState
    from smsverify._store.schema import StoreState
    from smsverify._waiting.subscriptions import Subscription
    from smsverify.errors import (
        AuthenticationError,
        FindingsError,
        InsufficientBalanceError,
        InvalidRequestError,
        NotAvailableError,
        NotCancellableError,
        NotFoundError,
        OrderEndedError,
        PriceLimitError,
        PurchaseAmbiguousError,
        PurchaseConflictError,
        PurchaseUnknownError,
        PurchaseUnverifiableError,
        RateLimitedError,
        ServiceError,
        ServiceUnavailableError,
        SettingsUnavailableError,
        SmsVerifyError,
        SpendingLimitError,
        StoreError,
        UnexpectedResponseError,
        VerificationError,
        WaitStoppedError,
        WaitTimeoutError,
    )
    from smsverify.hook import SmsVerifyHook
    from smsverify.models import (
        PRODUCTS,
        Balance,
        Country,
        EsimPlan,
        Message,
        Order,
        OrderStatus,
        Product,
        Rental,
        Service,
    )
    from smsverify.numbers import Attempt, RentedNumber
    from smsverify.overview import Delivery, Overview
    from smsverify.reports import KeptRental, Reconciliation, RentalsReport
    from smsverify.verification import TriedNumber, Verification

__all__ = [
    "PRODUCTS",
    "Attempt",
    "AuthenticationError",
    "Balance",
    "Country",
    "Delivery",
    "EsimPlan",
    "FindingsError",
    "InsufficientBalanceError",
    "InvalidRequestError",
    "KeptRental",
    "Message",
    "NotAvailableError",
    "NotCancellableError",
    "NotFoundError",
    "Order",
    "OrderEndedError",
    "OrderStatus",
    "Overview",
    "PriceLimitError",
    "Product",
    "PurchaseAmbiguousError",
    "PurchaseConflictError",
    "PurchaseUnknownError",
    "PurchaseUnverifiableError",
    "RateLimitState",
    "RateLimitedError",
    "Reconciliation",
    "Rental",
    "RentalsReport",
    "RentedNumber",
    "Service",
    "ServiceError",
    "ServiceUnavailableError",
    "SettingsUnavailableError",
    "SmsVerifyError",
    "SmsVerifyHook",
    "SpendingLimitError",
    "StoreError",
    "StoreState",
    "Subscription",
    "TriedNumber",
    "UnexpectedResponseError",
    "Verification",
    "VerificationError",
    "WaitStoppedError",
    "WaitTimeoutError",
    "__version__",
]

_HOMES = {
    "Attempt": "numbers",
    "TriedNumber": "verification",
    "Verification": "verification",
    "VerificationError": "errors",
    "AuthenticationError": "errors",
    "Balance": "models",
    "RateLimitState": "_service.rate_limit",
    "Country": "models",
    "Delivery": "overview",
    "EsimPlan": "models",
    "FindingsError": "errors",
    "InsufficientBalanceError": "errors",
    "InvalidRequestError": "errors",
    "KeptRental": "reports",
    "Message": "models",
    "NotAvailableError": "errors",
    "NotCancellableError": "errors",
    "NotFoundError": "errors",
    "Order": "models",
    "OrderEndedError": "errors",
    "OrderStatus": "models",
    "Overview": "overview",
    "PRODUCTS": "models",
    "PriceLimitError": "errors",
    "Product": "models",
    "PurchaseAmbiguousError": "errors",
    "PurchaseConflictError": "errors",
    "PurchaseUnknownError": "errors",
    "PurchaseUnverifiableError": "errors",
    "RateLimitedError": "errors",
    "Reconciliation": "reports",
    "Rental": "models",
    "RentalsReport": "reports",
    "RentedNumber": "numbers",
    "Service": "models",
    "ServiceError": "errors",
    "ServiceUnavailableError": "errors",
    "SmsVerifyError": "errors",
    "SmsVerifyHook": "hook",
    "SpendingLimitError": "errors",
    "SettingsUnavailableError": "errors",
    "StoreError": "errors",
    "StoreState": "_store.schema",
    "Subscription": "_waiting.subscriptions",
    "UnexpectedResponseError": "errors",
    "WaitStoppedError": "errors",
    "WaitTimeoutError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
