"""The receiver of callbacks as a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stacks.account import Account
from stacks.processes import Managed, Processes, inherited_environment, python_of

READY = 60.0
_SAYS = "taking callbacks at"


def start_receiver(
    processes: Processes,
    environment: Path,
    account: Account,
    *,
    port: int = 0,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Starts `smsverify callbacks serve`, and waits until it takes callbacks.

    Args:
        processes: starts and ends it.
        environment: a virtual environment with smsverify.
        account: whose callbacks it takes; its settings hold `callback_secrets`.
        port: where it listens on this machine; default: a free one.
        variables: of its environment, besides.

    Returns:
        the URL for callbacks, with `<secret>` in the place of the secret.
    """
    command = [str(python_of(environment)), "-m", "smsverify", "callbacks", "serve", "--port", str(port)]
    given = inherited_environment() | account.environment() | dict(variables or {})
    receiver = processes.spawn("callbacks", command, given)
    return processes.wait_until(lambda: _address(receiver), READY, "the receiver of callbacks", [receiver])


def _address(receiver: Managed) -> str | None:
    said = (line.partition(_SAYS)[2].split() for line in receiver.output().splitlines())
    return next((words[0] for words in said if words), None)
