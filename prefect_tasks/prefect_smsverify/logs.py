"""Shows the log lines of the core and of this wing in the logs of the run that they belong to."""

import logging

from prefect.context import get_run_context
from prefect.exceptions import MissingContextError
from prefect.logging.handlers import APILogHandler

from smsverify.wings import ProcessLock

LOGS = ("smsverify", "prefect_smsverify")

_lock = ProcessLock()


def show_in_runs() -> None:
    """Has the effect of `PREFECT_LOGGING_EXTRA_LOGGERS` with both names, unless the user has set that."""
    with _lock:
        for logger in map(logging.getLogger, LOGS):
            if any(isinstance(handler, APILogHandler) for handler in logger.handlers):
                continue
            handler = APILogHandler()
            handler.addFilter(_is_in_a_run)
            logger.addHandler(handler)
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.getLogger("prefect").getEffectiveLevel())


def _is_in_a_run(record: logging.LogRecord) -> bool:
    # The core's threads work for several runs at once, and Prefect warns about lines that belong to no run.
    try:
        get_run_context()
    except MissingContextError:
        return False
    return True
