"""Many accounts, each in a mapped task; see test_many_accounts.py."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

from form import fill_in
from prefect import flow, task
from prefect.cache_policies import INPUTS, RUN_ID
from prefect.futures import wait

from prefect_smsverify import verify_number
from smsverify import Order, VerificationError


def type_in(number: Order, account: int) -> None:
    fill_in(number.order_id, account)


# A flow run that starts again leaves out what is done: the result of this task is kept, which is no secret.
@task(persist_result=True, cache_policy=INPUTS + RUN_ID)
def provision(account: int) -> int:
    """Returns the order of the account's number."""
    action = partial(type_in, account=account)
    return verify_number(
        "mine", action, "temporary", service="WhatsApp", max_price="0.50", attempts=4, timeout=5
    ).order_id


@flow
def many_accounts(accounts: int) -> None:
    """Writes down what has become of each account: its order, or the orders that its error lists."""
    provisioned = provision.map(range(accounts))
    wait(provisioned)
    outcomes = [one.result(raise_on_failure=False) for one in provisioned]
    ends = [
        [one.order_id for one in outcome.attempts] if isinstance(outcome, VerificationError) else outcome
        for outcome in outcomes
    ]
    Path(os.environ["REPORT"]).write_text(json.dumps(ends, default=repr))
