"""The form that numbers are typed into, at a service where four of ten numbers get no SMS."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from smsverify.simulator import Control

SILENT = (1, 4, 6, 9)  # last digits of the orders whose number gets no SMS
UNLUCKY = (7, 23)  # accounts none of whose numbers gets an SMS
DIES_BEFORE, DIES_AFTER = (5, 15, 25), (10, 20, 30)  # whose process is killed, before and after the SMS


def fill_in(order_id: int, account: int) -> int:
    """Has the SMS sent, if the number is one that gets any."""
    _die_once(account, DIES_BEFORE)
    service = Control(os.environ["SIMULATOR"])
    gets_an_sms = order_id % 10 not in SILENT and account not in UNLUCKY
    if gets_an_sms and service.order(order_id).status == "pending":
        service.deliver_sms(order_id)
    _die_once(account, DIES_AFTER)
    return account


def _die_once(account: int, accounts: tuple[int, ...]) -> None:
    """Kills this process the first time that it works for one of some accounts, where that is asked for."""
    deaths = os.environ.get("DEATHS")
    if deaths is None or account not in accounts:
        return
    try:
        Path(deaths, str(account)).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
