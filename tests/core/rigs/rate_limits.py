"""Rate limits as the tests make and ask them."""

from __future__ import annotations

import time

import pytest

from smsverify import RateLimitedError
from smsverify._service.rate_limit import Priority, RateLimit
from smsverify._service.slots import MARGIN
from smsverify._store.store import open_store

MINUTE, LEASE = 60.0, 5.0
HOUR = 3600.0  # a period of which a busy machine takes no noticeable part
LONGER = 1 + MARGIN / 60  # a slot stays taken for so many periods


def make(
    url: str, *, limit: int = 1, period: float = MINUTE, lease: float = LEASE, key: str = "key"
) -> RateLimit:
    return RateLimit(open_store(url), key, limit=limit, period=period, lease=lease)


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def refusal(rate_limit: RateLimit, priority: Priority = Priority.POLL, patience: float = 0.0) -> float:
    """For how long the rate limit says that nothing may be sent."""
    with pytest.raises(RateLimitedError) as caught, rate_limit.acquire(priority, deadline=soon(patience)):
        pass
    assert caught.value.retry_after is not None
    return caught.value.retry_after
