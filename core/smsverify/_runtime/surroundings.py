"""Where a paid call is made: in an import, or in a process that a framework's run has started.

A run that is tried again makes its calls again, and an import is made again and again. So a paid call needs
a name that all of them share. The wings derive it from the run. Where they cannot, a call without a key would
get a random one, and each try would buy anew: such calls are refused.

The core does not know the frameworks. But it knows the names that they leave in the environment of every
process that a run starts (a shell command, another Python), and looks at what this process has imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from smsverify.errors import InvalidRequestError

# Airflow sets these in a task's process, and all that it starts inherit them. The map index is not among
# them, nor which call of the try this is: no key can be made of them.
_DAG, _DAG_RUN, _TASK = "AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_DAG_RUN_ID", "AIRFLOW_CTX_TASK_ID"
_AIRFLOW_TASKS = "airflow.sdk.execution_time.task_runner"
_AIRFLOW_OTHER_PYTHON = "PYTHON_OPERATORS_VIRTUAL_ENV_MODE"
# Prefect's runners and workers set this for the process of a flow run.
_FLOW_RUN = "PREFECT__FLOW_RUN_ID"

_DAG_FILE = "unusual_prefix_"  # how Airflow begins the name of the module that it makes of a Dag file
_NO_FILE = "<ast>"  # what Prefect calls a flow's file that it runs piece by piece, where it cannot import it


def refuse_in_import() -> None:
    """Refuses a paid call that is made while a file is imported; while a Dag file is, in whatever thread.

    Raises:
        InvalidRequestError: it is. Nothing was sent.
    """
    is_import = any(_is_import(frame) or _is_dag_file(frame) for frame in _outwards(sys._getframe()))
    if is_import or _is_dag_file_imported():
        raise InvalidRequestError(
            "nothing was sent: this call is made while a file is imported. Frameworks import the files of "
            "Dags and flows again and again, and each import would buy again. Make this call in a task, or "
            "in another function that runs when the work is to be done"
        )


def refuse_without_key() -> None:
    """Refuses a paid call without a key that a run of a framework makes where no key can be derived from it.

    Raises:
        InvalidRequestError: it is made there; `field` is "key". Nothing was sent.
    """
    run = run_name()
    if run is not None:
        framework = run.partition(":")[0].capitalize()
        raise InvalidRequestError(
            f"key is missing, and nothing was sent. This call belongs to a run of {framework}, but no key "
            "can be derived here (in another process or thread, or with a hook that is not the framework's "
            "own), so each retry would buy again. Give a key that each retry of this task has, and no other "
            "task: for example, made from the ids of run and task, the map index and the number's purpose",
            field="key",
        )


def run_name() -> str | None:
    """Names the run of a framework that this process is a part of; `None` where there is none."""
    return _airflow_run() or _prefect_run()


def _airflow_run() -> str | None:
    sdk = sys.modules.get("airflow.sdk")
    if sdk is not None:
        try:
            ti = sdk.get_current_context()["ti"]
        except (AttributeError, KeyError, RuntimeError):
            pass
        else:
            return f"airflow:{ti.dag_id}:{ti.run_id}"
    environ: Mapping[str, str] = os.environ
    if _AIRFLOW_TASKS in sys.modules and _AIRFLOW_OTHER_PYTHON not in environ:
        # A process that runs tasks itself keeps what the last one has left. What it was started with counts.
        environ = _environment_at_start()
    if environ.get(_DAG_RUN) and environ.get(_TASK):
        return f"airflow:{environ.get(_DAG, '')}:{environ[_DAG_RUN]}"
    return None


def _prefect_run() -> str | None:
    if os.environ.get(_FLOW_RUN):
        return f"prefect:{os.environ[_FLOW_RUN]}"
    contexts = sys.modules.get("prefect.context")
    kinds = (getattr(contexts, name, None) for name in ("FlowRunContext", "TaskRunContext"))
    for context in (kind.get() for kind in kinds if kind is not None):
        run = getattr(context, "flow_run", None) or getattr(context, "task_run", None)
        if run is not None:
            return f"prefect:{getattr(run, 'flow_run_id', None) or run.id}"
    return None


def _environment_at_start() -> dict[str, str]:
    """The environment that this process was started with; empty where the system does not show it."""
    try:
        lines = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (line.decode(errors="replace").partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


def _is_dag_file_imported() -> bool:
    """Whether a thread of this process imports a Dag file."""
    # The frames of other threads change while they are looked at, and Python 3.11 does not always survive it.
    if not any(name.startswith(_DAG_FILE) for name in list(sys.modules)):
        return False
    frames = sys._current_frames().values()
    return any(_is_dag_file(frame) for one in frames for frame in _outwards(one))


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_import(frame: FrameType) -> bool:
    file, function = frame.f_code.co_filename, frame.f_code.co_name
    if file.startswith("<frozen importlib."):
        return function in ("exec_module", "_load_unlocked")
    return file == _NO_FILE and function == "<module>"


def _is_dag_file(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    return frame.f_code.co_name == "<module>" and isinstance(module, str) and module.startswith(_DAG_FILE)
