"""The receiver of callbacks inside Airflow's API server; the plugin mounts it.

Its accounts are the connections that the option `[smsverify] callback_conn_ids` names and that have
`callback_secrets`. It reads them again every half minute, so that a secret can be rotated without a restart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from smsverify.callback import Account, account_of, make_app
from smsverify.errors import InvalidRequestError, SmsVerifyError
from smsverify.text import log_of
from smsverify_provider.hooks.smsverify import SmsVerifyHook
from smsverify_provider.runs import AirflowRun
from smsverify_provider.versions import conf, start_stats

log = log_of(__name__)

RELOAD = 30.0  # seconds between two readings of the connections


class Connections:
    """The accounts of the connections, for all requests of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[str, Account | None] | None = None
        self._read_again_at = 0.0
        self._troubles: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def __call__(self) -> Sequence[Account | None]:
        """The accounts, `None` for one that cannot be read now. A trouble of a connection is logged once."""
        accounts = self._refreshed()
        for conn_id, trouble in list(self._troubles.items()):
            if self._said.get(conn_id) != trouble:
                self._said[conn_id] = trouble
                log.error("No callbacks are taken for the connection %r: %s", conn_id, trouble)
        return accounts

    def secrets(self) -> list[str]:
        """All secrets."""
        return _secrets_of(self._refreshed())

    def known_secrets(self) -> list[str]:
        """The secrets that were read so far; reads nothing."""
        return _secrets_of(list((self._accounts or {}).values()))

    def _refreshed(self) -> Sequence[Account | None]:
        """Reads the connections again if it is time. Requests meanwhile use what was read before."""
        is_due = time.monotonic() >= self._read_again_at
        if is_due and self._lock.acquire(blocking=self._accounts is None):
            try:
                if self._accounts is None or time.monotonic() >= self._read_again_at:
                    self._accounts = self._read(self._accounts or {})
                    is_all = None not in self._accounts.values()
                    self._read_again_at = time.monotonic() + (RELOAD if is_all else RELOAD / 10)
            finally:
                self._lock.release()
        return list((self._accounts or {}).values())

    def _read(self, before: dict[str, Account | None]) -> dict[str, Account | None]:
        """The accounts by connection. One that cannot be read now stays as it was before."""
        configured = conf.get("smsverify", "callback_conn_ids", fallback=SmsVerifyHook.default_conn_name)
        accounts: dict[str, Account | None] = {}
        troubles = {}
        for conn_id in dict.fromkeys(name.strip() for name in configured.split(",") if name.strip()):
            try:
                accounts[conn_id] = account_of(SmsVerifyHook(conn_id))
            except InvalidRequestError as error:
                troubles[conn_id] = str(error)
            except Exception as error:
                # The text of an error that is not ours could quote anything.
                text = str(error) if isinstance(error, SmsVerifyError) else type(error).__name__
                troubles[conn_id] = text
                accounts[conn_id] = before.get(conn_id)
        self._said = {conn_id: said for conn_id, said in self._said.items() if conn_id in troubles}
        self._troubles = troubles
        return {conn_id: one for conn_id, one in accounts.items() if one is None or one.secrets}


def _secrets_of(accounts: Sequence[Account | None]) -> list[str]:
    return [secret.decode("utf-8", "replace") for one in accounts if one for secret in one.secrets]


connections = Connections()
start_stats()
app = make_app(connections, meter=AirflowRun().meter())
