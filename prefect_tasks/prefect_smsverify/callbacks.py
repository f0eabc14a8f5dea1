"""The receiver of callbacks, for accounts in blocks."""

from __future__ import annotations

from prefect_smsverify.arguments import block_of
from prefect_smsverify.credentials import SmsVerifyCredentials
from smsverify.errors import SmsVerifyError
from smsverify.text import log_of

log = log_of(__name__)


def serve_callbacks(
    *credentials: SmsVerifyCredentials | str, host: str = "127.0.0.1", port: int = 8080
) -> None:
    """Receives callbacks until SIGTERM or SIGINT, as `smsverify callbacks serve` does for the environment.

    The waiting flows find the SMS in the store; they may run on other machines. An error in one of several
    blocks is logged once, and the others get their callbacks. Needs the extra `server`.

    Args:
        credentials: the accounts, as blocks or by their names; each has `callback_secrets` of its own.
        host: where to listen. TLS is a proxy's concern.
        port: where to listen; 0 takes a free one.

    Raises:
        InvalidRequestError: there is no account, none has a secret, all have the same, or the port is taken.
        StoreError: no account's store can be used.
    """
    from smsverify.callback import serve

    hooks, troubles = [], []
    for one in credentials:
        name = repr(one) if isinstance(one, str) else "that was given as an object"
        try:
            hooks.append(block_of(one).get_hook())
        except Exception as error:
            # The text of an error that is not ours could quote anything.
            text = str(error) if isinstance(error, SmsVerifyError) else type(error).__name__
            troubles.append((name, text))
            if len(troubles) == len(credentials):
                raise
    for name, text in troubles:
        log.error("No callbacks are taken for the block %s: %s", name, text)
    serve(hooks, host=host, port=port)
