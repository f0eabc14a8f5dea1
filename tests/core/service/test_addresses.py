"""One key at several addresses: one limit, one purchase, and one warning where they are not the same."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from smsverify import SmsVerifyHook
from smsverify.simulator import Simulator


def test_however_the_address_is_written_a_key_buys_once_and_has_one_limit(
    simulator: Simulator,
    make_hook: Callable[..., SmsVerifyHook],
    any_store_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = simulator.url.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", "LOCALHOST", "localhost.")
    hooks = [make_hook(f"http://{host}:{port}/", any_store_url) for host in hosts]
    bought = {hook.order("temporary", service="WhatsApp", key="k").order_id for hook in hooks}
    assert bought == {order.order_id for order in simulator.orders()}
    assert len(bought) == 1
    assert len({hook.settings.key_id for hook in hooks}) == 1
    assert not [text for text in caplog.messages if "another store" in text]


def test_a_key_that_is_used_elsewhere_too_is_named_once(
    simulate: Callable[..., Simulator],
    make_hook: Callable[..., SmsVerifyHook],
    any_store_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    one, other = simulate(), simulate()
    for _ in range(2):
        for simulator in (one, other):
            make_hook(simulator, any_store_url).get_balance()
    (logged,) = [text for text in caplog.messages if "another store" in text]
    for simulator in (one, other):
        assert f"http://localhost:{simulator.url.rpartition(':')[2]}" in logged


def test_a_key_that_has_paid_as_another_account_is_named_once(
    simulator: Simulator,
    make_hook: Callable[..., SmsVerifyHook],
    any_store_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    unnamed = make_hook(simulator, any_store_url)
    unnamed.order("temporary", service="WhatsApp", key="k")
    for _ in range(2):
        make_hook(simulator, any_store_url, account="main").order("temporary", service="WhatsApp", key="k")
    (logged,) = [text for text in caplog.messages if "the earlier name" in text]
    assert repr(unnamed.settings.account_id) in logged
