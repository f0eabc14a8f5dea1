"""`SmsVerifyHook` inside of a flow run."""

from __future__ import annotations

from typing import Any

from prefect_smsverify.keys import RunKey, run_key
from smsverify.hook import SmsVerifyHook


class PrefectHook(SmsVerifyHook):
    """The core's hook; a purchase without a key gets one from the run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._run_keys: dict[str, RunKey] = {}

    def _default_key(self, fingerprint: str) -> str | None:
        key = run_key(fingerprint)
        if key is None:
            return None
        self._run_keys[key.text] = key
        return key.text

    def _key_failed(self, key: str) -> None:
        self._run_keys.pop(key).give_back()
