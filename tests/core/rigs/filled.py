"""An account with something in each section of its overview, and what each face has to show of it.

The faces are the command line, `top`, Airflow's page, Prefect's artifact and `reconcile`'s report. Each is
tested where it runs; this rig is the same for all, and needs neither framework.
"""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from rigs import eventually
from rigs.rooms import rooms_of
from smsverify import errors
from smsverify._messages.callbacks import Callback, name_of_secret
from smsverify.hook import SmsVerifyHook
from smsverify.overview import Task
from smsverify.reports import Reconciliation
from smsverify.simulator import Fault, Simulator

SECRETS = ("the-first-callback-secret", "the-secret-that-comes-next")
SIMULATOR: dict[str, Any] = {
    "balance": "60", "sms_delay": "never", "products": {"temporary": {"validity": 360_000}}
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "daily_budget": "40", "exclusive_account": False, "callback_secrets": list(SECRETS)
}  # fmt: skip
CODE = "918273"
TASK = Task(
    framework="airflow",
    workflow="provision_many",
    name="order_number[3]",
    ids={"dag_id": "provision_many", "run_id": "r", "task_id": "order_number", "map_index": 3},
)
BY = TASK.as_text()


@dataclass(frozen=True)
class Filled:
    """What is on record.

    Attributes:
        report: of a reconciliation.
        figures: what each face says, in pieces.
        rows: what stands in one row of each face, in this order; `…` for a time.
        secrets: what none of them says.
    """

    report: Reconciliation
    figures: list[str]
    rows: list[tuple[str, ...]]
    secrets: list[str]

    def missing_in(self, lines: Iterable[str]) -> list[Any]:
        """What a face does not say. A line is a row of a table, or a figure with its name and its note."""
        plain = [re.sub(r"[\s|–-]+", " ", html.unescape(line)) for line in lines]
        figures = [re.sub(r"[\s-]+", " ", figure) for figure in self.figures]
        patterns = [
            ".*".join(re.escape(re.sub(r"[\s-]+", " ", cell)) for cell in row if cell != "…")
            for row in self.rows
        ]
        return [one for one in figures if not any(one in line for line in plain)] + [
            row
            for row, pattern in zip(self.rows, patterns, strict=True)
            if sum(re.search(pattern, line) is not None for line in plain) != 1
        ]


@contextmanager
def filled(hook: SmsVerifyHook, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    """Fills an account whose simulator has the settings `SIMULATOR` and whose hook has `SETTINGS`."""
    monkeypatch.setattr(type(hook._run_context), "task", lambda _: TASK)
    used, cancelled, awaited = (
        hook.order("temporary", service="WhatsApp", key=key) for key in ("used", "cancelled", "awaited")
    )
    rental = hook.order("rent-30days", service="Instagram", key="rental")
    hook.renew_expiring(40 * 86_400, max_price="1")
    simulator.deliver_sms(used.order_id, otp=CODE)
    assert hook.wait_for_otp(used.order_id, 60).otp == CODE
    hook.cancel(cancelled.order_id)
    hook.list_orders()  # which says that the money has come back
    inbox = rooms_of(hook).inbox
    secret = name_of_secret(SECRETS[1])
    inbox.take(Callback(True, "sms", True, order_id=used.order_id, message="hello", secret=secret))
    inbox.take(Callback(False, "sms", True, order_id=5, message="hello"))
    inbox.note_refused(2, "its body is not JSON")
    simulator.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    back = hook.order("temporary", service="WhatsApp", key="back")
    assert not hook.release(back.order_id, "nobody needs it")
    simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
    with pytest.raises(errors.PurchaseAmbiguousError) as unknown:
        hook.order("temporary", service="WhatsApp", key="unknown")
    (candidate,) = unknown.value.order_ids
    stop = threading.Event()
    thread = threading.Thread(target=_wait, args=(hook, awaited.order_id, stop))
    thread.start()
    try:
        eventually(lambda: hook.overview().waits.rows, "the wait is on record")
        report = hook.reconcile()
        phones = {order.order_id: str(order.phone) for order in (used, cancelled, awaited, rental, back)}
        yield Filled(
            report,
            [
                "46.40 USD",
                "renewals in the next 24 h cost 12.00 USD",
                "13.60 of 40.00 USD",
                "refunded 0.40 USD",
                "of 60",
                "waiting for their turn: none · refused by the service so far: 0",
                "healthy",
                "by secret 2 of 2 · in 24 h 2 refused",
                "its body is not JSON), 1 without a secret",
                "3 need a person",
                "5 bought, 1 with an SMS, 1 refunded, 1 unknown · spent today by provision_many 13.60",
                "the newest 5 numbers of the last 30 days",
            ],
            [
                (
                    "purchase unknown",
                    f"may have bought order {candidate}",
                    BY,
                    f"resolve unknown --order {candidate}",
                ),
                ("rental not kept", f"order {rental.order_id} (Instagram)", BY, "--max-price 12"),
                ("to give back", f"order {back.order_id}", BY, f"smsverify cancel {back.order_id}"),
                (f"{awaited.order_id}", phones[awaited.order_id], "WhatsApp", "…", "then cancelled", BY),
                (f"{back.order_id}", phones[back.order_id], "WhatsApp", "nobody needs it", "×", "…"),
                (f"{rental.order_id}", phones[rental.order_id], "Instagram (30 days)", "…", "0", "12.00"),
                ("Instagram (30 days)", "12.00", "never", BY, "too expensive"),
                *(
                    (f"{order.order_id}", phones[order.order_id], service, price, state, "…", BY)
                    for order, service, price, state in (
                        (used, "WhatsApp", "0.40", "code arrived"),
                        (cancelled, "WhatsApp", "0.40", "cancelled, refunded"),
                        (awaited, "WhatsApp", "0.40", "waiting"),
                        (rental, "Instagram", "12.00", "bought"),
                        (back, "WhatsApp", "0.40", "bought"),
                    )
                ),
                ("WhatsApp", "0.40", "unknown", BY),
                ("temporary", "WhatsApp", "4", "1", "50% (9% to 91%)", "…", "…", "1.20", "1"),
                ("rent-30days", "Instagram", "1", "0"),
            ],
            [CODE, "hello", simulator.api_key, *SECRETS],
        )
    finally:
        stop.set()
        thread.join()


def _wait(hook: SmsVerifyHook, order_id: int, stop: threading.Event) -> None:
    with pytest.raises(errors.WaitStoppedError):
        hook.wait_for_otp(order_id, 3000, stop=stop)
