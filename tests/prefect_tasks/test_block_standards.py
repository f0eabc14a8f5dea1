"""Prefect's own suite for blocks."""

from __future__ import annotations

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from prefect_smsverify import SmsVerifyCredentials


class TestBlockStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self) -> type[Block]:
        return SmsVerifyCredentials

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """What can be checked without fetching the image: a test needs no network."""
        assert block._logo_url is not None
        assert block._logo_url.scheme == "https"
