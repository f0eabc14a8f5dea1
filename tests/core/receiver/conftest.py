"""A hook with callback secrets, a receiver for it, and an order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from rigs.receiver import ROTATED, SECRET, Receiver, receiving

from smsverify.hook import SmsVerifyHook
from smsverify.models import Order
from smsverify.simulator import Simulator

MakeHook = Callable[..., SmsVerifyHook]


@pytest.fixture(autouse=True)
def is_patient(patient_receiver: None) -> None:
    """Tests of its patience shorten it themselves."""


@pytest.fixture
def hook(simulator: Simulator, make_hook: MakeHook, store_url: str) -> SmsVerifyHook:
    return make_hook(simulator, store_url, callback_secrets=[SECRET, ROTATED])


@pytest.fixture
def receiver(hook: SmsVerifyHook) -> Iterator[Receiver]:
    with receiving([hook]) as receiver:
        yield receiver


@pytest.fixture
def order(hook: SmsVerifyHook) -> Order:
    return hook.order("temporary", service="WhatsApp")
