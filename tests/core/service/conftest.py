"""Fixtures for the tests of the transport and of the wire."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs import API_KEY
from rigs.transport import MakeTransport
from rigs.wire import WireServer, make_certificate

from smsverify._service.rate_limit import RateLimit
from smsverify._service.transport import Transport
from smsverify._store.store import open_store
from smsverify.hook import SmsVerifyHook
from smsverify.settings import Settings


@pytest.fixture
def make_transport(store_url: str) -> MakeTransport:
    """Transports with short time-outs; several share one rate_limit as they share a key."""

    def make(url: str, **settings: Any) -> Transport:
        defaults = {"read_timeout": 5.0, "connect_timeout": 5.0, "call_timeout": 20.0, "rate_period": 1.0}
        given = {"api_key": API_KEY, "base_url": url, "store_url": store_url, **defaults, **settings}
        checked = Settings.load(given, {})
        rate_limit = RateLimit(
            open_store(store_url),
            checked.key_id,
            limit=checked.rate_limit,
            period=checked.rate_period,
            lease=checked.longest_exchange,
            begin_within=checked.longest_start,
        )
        return Transport(checked, rate_limit)

    return make


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that no authority has signed."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: Path) -> Iterator[WireServer]:
    """A wire server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = WireServer(context)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmsVerifyHook]:
    """A hook whose service is a mock."""
    path: Path = tmp_path_factory.mktemp("offline") / "store.db"
    url = f"sqlite:///{path}"
    yield SmsVerifyHook(
        API_KEY, base_url="http://127.0.0.1:9", store_url=url, rate_limit=1000, rate_period=0.001
    )
    open_store(url).close()
