"""A store with two outages, ten minutes apart, for what is tried again until it works."""

from __future__ import annotations

import pytest

from smsverify.errors import StoreError

TROUBLE = "there is no room on the disk"


class TwoOutages:
    """Fails three times in each outage, with the same words. The seconds between two calls pass at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = 0.0
        self._pauses = [0.0, 5.0, 5.0, 600.0, 5.0, 5.0]
        monkeypatch.setattr("smsverify._runtime.outages.boottime", lambda: self._now)

    def are_over(self) -> bool:
        return not self._pauses

    def strike(self) -> None:
        """Raises the error of an outage; nothing when both are over."""
        if self._pauses:
            self._now += self._pauses.pop(0)
            raise StoreError(TROUBLE)
