"""The receiver of callbacks, for accounts that are kept in blocks."""

from __future__ import annotations

from prefect_smsverify.calls import block_of
from prefect_smsverify.credentials import SmsVerifyCredentials


def serve_callbacks(
    *credentials: SmsVerifyCredentials | str, host: str = "127.0.0.1", port: int = 8080
) -> None:
    """Receives callbacks until SIGTERM or SIGINT, as `smsverify callbacks serve` does for the environment.

    The flows that wait find in the store what has come; they need not run on this machine. Needs the extra
    `server`.

    Args:
        credentials: the accounts, as blocks or by their names; each has `callback_secrets` of its own.
        host: where to listen. TLS is a proxy's concern.
        port: where to listen; 0 takes a free one.

    Raises:
        InvalidRequestError: an account has no secret, two have the same, or the port is taken.
        StoreError: a store can not be used.
    """
    from smsverify.callback import serve

    serve([block_of(one).get_hook() for one in credentials], host=host, port=port)
