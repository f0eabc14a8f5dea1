"""What the operators and the sensor share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from smsverify.models import LATER

# Airflow kills a task five seconds after it has told it to end.
KILL_BUDGET = 4.0


def known(value: Any) -> Any:
    """The value, or `LATER` where only the run knows it: a template, or the result of another task."""
    is_template = isinstance(value, str) and ("{{" in value or "{%" in value)
    return LATER if is_template or hasattr(value, "resolve") else value


def within_kill_budget(work: Callable[[], Any]) -> None:
    """Does something at the end of a task that is being killed, as long as Airflow gives it time.

    `on_kill` runs in a signal handler. The code that it has interrupted may hold a lock that the work needs,
    and can not go on before the handler returns: hence a thread, and a limited wait for it.
    """
    thread = threading.Thread(target=work, name="smsverify-kill", daemon=True)
    thread.start()
    thread.join(KILL_BUDGET)
