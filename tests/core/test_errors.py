"""The errors: one for each thing a caller would do differently, and fit to travel between processes."""

from __future__ import annotations

import inspect
import pickle
from decimal import Decimal
from typing import Any

import pytest

import smsverify
from smsverify import errors

EXAMPLES: dict[str, dict[str, Any]] = {
    "InvalidRequestError": {"field": "duration", "status_code": 400},
    "PurchaseUnknownError": {"key": "k", "order_ids": (4, 5)},
    "PurchaseConflictError": {"key": "k"},
    "OrderEndedError": {"order_id": 4, "status": "expired", "reason": "it has ended (expired)"},
    "VerificationError": {"attempts": [], "cost": Decimal("0.40")},
    "WaitTimeoutError": {"order_id": 4, "cancelled": True, "reason": "another SMS came"},
}
OF_THE_SERVICE = {"status_code": 429, "service_message": "no", "endpoint": "GET /x", "retry_after": 2.5}
ALL = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.SmsVerifyError)
]


def test_every_error_is_public_and_of_one_family() -> None:
    assert {error.__name__ for error in ALL} == {name for name in smsverify.__all__ if name.endswith("Error")}


@pytest.mark.parametrize("kind", ALL)
def test_an_error_survives_the_way_to_another_process(kind: type[errors.SmsVerifyError]) -> None:
    details = OF_THE_SERVICE if issubclass(kind, errors.ServiceError) else EXAMPLES.get(kind.__name__, {})
    error = kind("what happened", **details)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "what happened"
    assert {name: getattr(copy, name) for name in details} == details


def test_bad_input_and_time_outs_are_what_python_calls_them() -> None:
    assert issubclass(errors.InvalidRequestError, ValueError)
    assert issubclass(errors.WaitTimeoutError, TimeoutError)
