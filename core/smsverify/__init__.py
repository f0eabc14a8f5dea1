"""Rent phone numbers and receive the one-time codes (OTPs) sent to them.

`SmsVerifyHook` is the face of it all. Names are loaded when they are first used, so that importing this
package costs nothing where a DAG file only needs to name an operator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from smsverify.version import __version__

if TYPE_CHECKING:
    from smsverify.budget import (
        BudgetState,
    )
    from smsverify.errors import (
        AuthenticationError,
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
        RentalsNotKeptError,
        ServiceError,
        ServiceUnavailableError,
        SmsVerifyError,
        SpendingLimitError,
        StoreError,
        UnexpectedResponseError,
        WaitStoppedError,
        WaitTimeoutError,
    )
    from smsverify.hook import (
        RentedNumber,
        SmsVerifyHook,
    )
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
    from smsverify.reconciling import Reconciliation
    from smsverify.rentals import KeptRental, RentalsReport

__all__ = [
    "PRODUCTS",
    "AuthenticationError",
    "Balance",
    "BudgetState",
    "Country",
    "EsimPlan",
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
    "PriceLimitError",
    "Product",
    "PurchaseAmbiguousError",
    "PurchaseConflictError",
    "PurchaseUnknownError",
    "PurchaseUnverifiableError",
    "RateLimitedError",
    "Reconciliation",
    "Rental",
    "RentalsNotKeptError",
    "RentalsReport",
    "RentedNumber",
    "Service",
    "ServiceError",
    "ServiceUnavailableError",
    "SmsVerifyError",
    "SmsVerifyHook",
    "SpendingLimitError",
    "StoreError",
    "UnexpectedResponseError",
    "WaitStoppedError",
    "WaitTimeoutError",
    "__version__",
]

_HOMES = {
    "AuthenticationError": "errors",
    "Balance": "models",
    "BudgetState": "budget",
    "Country": "models",
    "EsimPlan": "models",
    "InsufficientBalanceError": "errors",
    "InvalidRequestError": "errors",
    "KeptRental": "rentals",
    "Message": "models",
    "NotAvailableError": "errors",
    "NotCancellableError": "errors",
    "NotFoundError": "errors",
    "Order": "models",
    "OrderEndedError": "errors",
    "OrderStatus": "models",
    "PRODUCTS": "models",
    "PriceLimitError": "errors",
    "Product": "models",
    "PurchaseAmbiguousError": "errors",
    "PurchaseConflictError": "errors",
    "PurchaseUnknownError": "errors",
    "PurchaseUnverifiableError": "errors",
    "RateLimitedError": "errors",
    "Reconciliation": "reconciling",
    "Rental": "models",
    "RentalsNotKeptError": "errors",
    "RentalsReport": "rentals",
    "RentedNumber": "hook",
    "Service": "models",
    "ServiceError": "errors",
    "ServiceUnavailableError": "errors",
    "SmsVerifyError": "errors",
    "SmsVerifyHook": "hook",
    "SpendingLimitError": "errors",
    "StoreError": "errors",
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
