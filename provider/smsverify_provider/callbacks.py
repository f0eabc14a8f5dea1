"""The receiver of callbacks inside of Airflow's API server; the plugin mounts it.

Its accounts are the connections that the option `[smsverify] callback_conn_ids` names, as far as they have
`callback_secrets`. They are read again now and then, so that a secret can be rotated without a restart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from airflow.sdk import conf

from smsverify.callback import Account, account_of, check_secrets, make_app
from smsverify.errors import InvalidRequestError
from smsverify_provider.hooks.smsverify import SmsVerifyHook

log = logging.getLogger(__name__)

RELOAD = 30.0  # seconds for which the connections are taken to be as they were


class _Connections:
    """The accounts of the connections, for all requests of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: Sequence[Account] = ()
        self._read_again_at = 0.0

    def __call__(self) -> Sequence[Account]:
        with self._lock:
            if time.monotonic() >= self._read_again_at:
                self._accounts = _read()
                self._read_again_at = time.monotonic() + RELOAD
            return self._accounts


def _read() -> Sequence[Account]:
    configured = conf.get("smsverify", "callback_conn_ids", fallback=SmsVerifyHook.default_conn_name)
    accounts = []
    for conn_id in dict.fromkeys(name.strip() for name in configured.split(",") if name.strip()):
        try:
            accounts.append(account_of(SmsVerifyHook(conn_id)))
        except InvalidRequestError as error:
            log.error("No callbacks are taken for the connection %r: %s", conn_id, error)
    accounts = [account for account in accounts if account.secrets]
    check_secrets(accounts)
    return accounts


app = make_app(_Connections())
