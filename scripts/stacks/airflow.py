"""A real Airflow: API server, scheduler, triggerer and Dag processor, each as a process of its own."""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal
from urllib.parse import quote

from stacks.hosts import Host
from stacks.processes import (
    Managed,
    Processes,
    ProcessFailed,
    free_port,
    inherited_environment,
    python_of,
)
from stacks.rest import HttpError, Rest

# A component's command line and what it is called by the API's health answer. A second one of a kind has a
# number at the end of its name: scheduler-2.
_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "worker": ("celery", "worker", "--skip-serve-logs"),
}
_HEALTH: Final[Mapping[str, str]] = {
    "scheduler": "scheduler",
    "triggerer": "triggerer",
    "dag-processor": "dag_processor",
}
COMPONENTS: Final = ("api-server", "scheduler", "triggerer", "dag-processor")

MIGRATION = 300.0
READY = 300.0
RUN_STATES: Final = ("success", "failed")
PAGE = 100  # entries that the API shows at a time, at the most
WAITING: Final = "waiting"  # stands for the state of a task that has none yet
USER = "stacks"


@dataclass(frozen=True)
class Run:
    """A Dag run.

    Attributes:
        dag_id: the Dag.
        run_id: the run.
        state: the run's state when it was looked at.
    """

    dag_id: str
    run_id: str
    state: str

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"/api/v2/dags/{quote(self.dag_id)}/dagRuns/{quote(self.run_id)}"


class AirflowStack:
    """Airflow, with SQLite and the LocalExecutor unless its options say otherwise, reached by its public API.

    Args:
        processes: starts and ends its processes.
        environment: a virtual environment with Airflow and smsverify.
        dags: the folder of the Dag files.
        home: `AIRFLOW_HOME`: takes database and logs; made where it is missing.
        variables: environment variables for all components, such as a connection.
        options: Airflow's options, such as `core__executor`.
        address: where the API server listens.
        path: goes before every path of the API server, such as `/airflow`.
        hosts: components that run on a host of their own, where they have a home below `home`.
        lasting: whether it is a failure when a component ends by itself.
    """

    def __init__(
        self,
        processes: Processes,
        environment: Path,
        *,
        dags: Path,
        home: Path,
        variables: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        path: str = "",
        hosts: Mapping[str, Host] | None = None,
        lasting: bool = True,
    ) -> None:
        self.home = home
        self.database = home / "airflow.db"
        self.port = free_port()
        self.url = f"http://{address}:{self.port}{path}"
        self.rest = Rest(self.url)
        self._processes = processes
        self._python = python_of(environment)
        self._password = secrets.token_hex(16)
        self._hosts = dict(hosts or {})
        self._lasting = lasting
        settings = _variables({**self._settings(dags, address), **(options or {})})
        self._environment = {
            **inherited_environment(),
            **settings,
            "AIRFLOW_HOME": str(home),
            **(variables or {}),
        }
        self._running: dict[str, Managed] = {}

    def _settings(self, dags: Path, address: str) -> dict[str, str]:
        return {
            "core__dags_folder": str(dags),
            "core__executor": "LocalExecutor",
            "core__parallelism": "4",
            "core__load_examples": "False",
            "core__fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "core__execution_api_server_url": f"{self.url}/execution/",
            "core__simple_auth_manager_users": f"{USER}:admin",
            "core__simple_auth_manager_passwords_file": str(self._passwords),
            "database__sql_alchemy_conn": f"sqlite:///{self.database}",
            "api__host": address,
            "api__port": str(self.port),
            "api__base_url": self.url,
            "api__workers": "1",
            "api__secret_key": secrets.token_hex(32),
            "api_auth__jwt_secret": secrets.token_hex(32),
            "logging__base_log_folder": str(self.home / "logs"),
            "dag_processor__refresh_interval": "5",
            "usage_data_collection__enabled": "False",
        }

    @property
    def _passwords(self) -> Path:
        return self.home / "passwords.json"

    def __enter__(self) -> AirflowStack:
        self.migrate()
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -------------------------------------------------------------- its processes

    def migrate(self) -> None:
        """Makes the database."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._passwords.touch(mode=0o600)
        self._passwords.write_text(json.dumps({USER: self._password}))
        command = [str(self._python), "-m", "airflow", "db", "migrate"]
        self._processes.run("airflow-db-migrate", command, self._environment, timeout=MIGRATION)

    def start(self, components: Iterable[str] = COMPONENTS) -> None:
        """Starts components, without waiting for them."""
        for component in components:
            command = [str(self._python), "-m", "airflow", *_COMMANDS[_kind(component)]]
            environment = self._environment
            if host := self._hosts.get(component):
                command = host.command(command)
                environment = environment | self._own_home(host)
            self._running[component] = self._processes.spawn(
                f"airflow-{component}", command, environment, lasting=self._lasting
            )

    def _own_home(self, host: Host) -> dict[str, str]:
        home = self.home / host.name
        home.mkdir(parents=True, exist_ok=True)
        own = _variables({"logging__base_log_folder": str(home / "logs")})
        return {**own, "AIRFLOW_HOME": str(home), "HOME": str(home)}

    def wait_until_ready(self, timeout: float = READY) -> None:
        """Waits until the components that were started are up: these ones, not others of the same address."""
        concerned = list(self._running.values())
        self._processes.wait_until(self._logged_in, timeout, "Airflow's API server", concerned)
        for component, managed in self._running.items():
            if _kind(component) in _HEALTH:
                self._processes.wait_until(
                    lambda component=component, managed=managed: self._beats(component, managed),  # type: ignore[misc]
                    timeout,
                    f"Airflow's {component}",
                    [managed],
                )

    def _logged_in(self) -> bool:
        # Only our own server knows the password.
        answer = self.rest.post("/auth/token", {"username": USER, "password": self._password})
        self.rest.token = answer["access_token"]
        return True

    def _beats(self, component: str, managed: Managed) -> bool:
        name = _HEALTH[_kind(component)]
        health = self.rest.get("/api/v2/monitor/health")[name]
        beat = health[f"latest_{name}_heartbeat"]
        return (
            health["status"] == "healthy"
            and beat is not None
            and datetime.fromisoformat(beat.replace("Z", "+00:00")).timestamp() > managed.started_at
        )

    def kill(self, component: str) -> None:
        """Kills a component and what it has started, without a chance to clean up."""
        self._processes.stop([self._running.pop(component)], kill=True)

    def restart(self, component: str) -> None:
        """Ends a component properly if it runs, starts it anew and waits until it is up."""
        if component in self._running:
            self._processes.stop([self._running.pop(component)])
        self.start([component])
        self.wait_until_ready()

    def revive(self) -> list[str]:
        """Starts the components again that have ended by themselves; returns their names."""
        ended = [name for name, managed in self._running.items() if managed.exit_code is not None]
        for component in ended:
            self._processes.stop([self._running.pop(component)])
        self.start(ended)
        return ended

    def stop(self) -> None:
        """Ends all components and what they have started."""
        self._processes.stop(self._running.values())
        self._running.clear()

    # -------------------------------------------------------------- Dag runs

    def wait_for_dag(self, dag_id: str, timeout: float = 120.0) -> None:
        """Waits until a Dag is known.

        Raises:
            ProcessFailed: it does not appear, or a Dag file cannot be imported.
        """

        def known() -> bool:
            broken = self.rest.get("/api/v2/importErrors")["import_errors"]
            if broken:
                raise ProcessFailed(
                    f"{broken[0]['filename']} cannot be imported:\n{broken[0]['stack_trace']}"
                )
            try:
                self.rest.get(f"/api/v2/dags/{quote(dag_id)}")
            except HttpError as error:
                if error.status != 404:
                    raise
                return False
            return True

        self._processes.wait_until(known, timeout, f"the Dag {dag_id}", self._running.values())

    def trigger_dag(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """Starts a run of a Dag, which it waits for to be known and unpauses. No other Dag runs.

        Args:
            dag_id: the Dag.
            conf: the run's configuration, which overrides the Dag's params.
        """
        self.unpause(dag_id)
        path, run_id = f"/api/v2/dags/{quote(dag_id)}/dagRuns", f"stacks_{uuid.uuid4()}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
        return _run_of(self._insist(lambda: self._post_once(path, body, run_id), f"a run of {dag_id}"))

    def unpause(self, dag_id: str) -> None:
        """Lets the schedule of a Dag run it, which it waits for to be known."""
        self.wait_for_dag(dag_id)
        path = f"/api/v2/dags/{quote(dag_id)}"
        self._insist(lambda: self.rest.call("PATCH", path, {"is_paused": False}), f"{dag_id} to be unpaused")

    def runs(self, dag_id: str) -> list[Run]:
        """All runs of a Dag, the earliest first."""
        return [_run_of(one) for one in self.entries(f"/api/v2/dags/{quote(dag_id)}/dagRuns", "dag_runs")]

    def look(self, run: Run) -> Run:
        """The run as it is now."""
        return _run_of(self.rest.get(run.path))

    def wait_for_run(
        self, run: Run, timeout: float = 300.0, seen: Callable[[dict[str, str]], None] = lambda states: None
    ) -> Run:
        """Waits for the end of a run.

        Args:
            run: the run.
            timeout: seconds.
            seen: is given the states of its tasks at each look.

        Returns:
            the run, with its last state.
        """

        def ended() -> Run | None:
            now = self.look(run)
            seen(self.task_states(run))
            return now if now.state in RUN_STATES else None

        return self._processes.wait_until(ended, timeout, f"the end of {run.run_id}", self._running.values())

    def wait_for_state(self, run: Run, task_id: str, states: Iterable[str], timeout: float = 120.0) -> str:
        """Waits until a task is in one of some states, such as `deferred`; returns that."""
        wanted = set(states)
        return self._processes.wait_until(
            lambda: next(iter({self.task_states(run).get(task_id, "")} & wanted), None),
            timeout,
            f"{task_id} to be {' or '.join(sorted(wanted))}",
            self._running.values(),
        )

    def task_states(self, run: Run) -> dict[str, str]:
        """The states of a run's tasks by id, of mapped ones by `<id>[<index>]`."""
        return {
            task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}[{task['map_index']}]": task[
                "state"
            ]
            or WAITING
            for task in self.tasks(run)
        }

    def tasks(self, run: Run) -> list[dict[str, Any]]:
        """What the API knows of all tasks of a run."""
        return self.entries(f"{run.path}/taskInstances", "task_instances")

    def entries(self, path: str, name: str) -> list[dict[str, Any]]:
        """All entries of one of the API's lists, the earliest first.

        Args:
            path: of the list, without a query.
            name: what the API's answer calls the entries.
        """
        found: list[dict[str, Any]] = []
        while True:
            page = self.rest.get(f"{path}?limit={PAGE}&offset={len(found)}&order_by=id")
            found += page[name]
            if not page[name] or len(found) >= page["total_entries"]:
                return found

    def task(self, run: Run, task_id: str) -> dict[str, Any]:
        """What the API knows of a task of a run."""
        return dict(self.rest.get(f"{run.path}/taskInstances/{quote(task_id)}"))

    def xcom(self, run: Run, task_id: str, key: str = "return_value") -> Any:
        """What a task has returned, or pushed under another key."""
        path = f"{run.path}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}?deserialize=true"
        return self.rest.get(path)["value"]

    def log(self, run: Run, task_id: str, attempt: int = 1) -> str:
        """A task's log."""
        pages = self.rest.get(f"{run.path}/taskInstances/{quote(task_id)}/logs/{attempt}?full_content=true")
        return "\n".join(json.dumps(line) if isinstance(line, dict) else line for line in pages["content"])

    def mark(self, run: Run, task_id: str, state: Literal["success", "failed", "skipped"]) -> None:
        """Sets the state of a task, as a user does in the UI."""
        path = f"{run.path}/taskInstances/{quote(task_id)}"
        self._insist(lambda: self.rest.call("PATCH", path, {"new_state": state}), f"{task_id} to be marked")

    def make_pool(self, name: str, *, slots: int) -> None:
        """Makes a pool, in which so many tasks run at a time."""
        pool = {"name": name, "slots": slots}
        self._insist(lambda: self._post_once("/api/v2/pools", pool, name), f"the pool {name}")

    def _post_once(self, path: str, body: Mapping[str, Any], name: str) -> Any:
        """Makes one of a list's entries; where an earlier answer did not say so, it is there already."""
        try:
            return self.rest.post(path, body)
        except HttpError as error:
            if error.status != 409:
                raise
            return self.rest.get(f"{path}/{quote(name)}")

    def _insist(self, change: Callable[[], Any], what: str) -> Any:
        # Its database is locked now and then while many write.
        return self._processes.wait_until(change, 60.0, what, self._running.values())

    def clear(self, run: Run, task_ids: Iterable[str]) -> None:
        """Clears tasks, whatever their state, so that they run again."""
        path = f"/api/v2/dags/{quote(run.dag_id)}/clearTaskInstances"
        which = {
            "dry_run": False,
            "dag_run_id": run.run_id,
            "task_ids": list(task_ids),
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self._insist(lambda: self.rest.post(path, which), f"{run.run_id} to be cleared")


def _variables(options: Mapping[str, str]) -> dict[str, str]:
    return {f"AIRFLOW__{name.upper()}": value for name, value in options.items()}


def _kind(component: str) -> str:
    return component.rstrip("-0123456789")


def _run_of(answer: Mapping[str, Any]) -> Run:
    return Run(answer["dag_id"], answer["dag_run_id"], answer["state"])
