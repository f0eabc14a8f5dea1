"""A real Prefect server, and flow runs in processes of their own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from stacks.account import Account
from stacks.hosts import Host
from stacks.processes import Managed, Processes, free_port, inherited_environment, python_of
from stacks.rest import Rest

READY = 300.0

# The settings come in by the environment: a command line can be read by every user of the machine.
_SAVE_CREDENTIALS = """
import sys
from prefect_smsverify import SmsVerifyCredentials
from smsverify.settings import Settings
given = Settings.load({}).model_dump(exclude_unset=True)
SmsVerifyCredentials(**given).save(sys.argv[1], overwrite=True)
"""

# Deploys what the `prefect.yaml` of a folder has under some names, as on the command line.
_DEPLOY_FOLDER = """
import os, runpy, sys
folder, *names = sys.argv[1:]
os.chdir(folder)
sys.argv = ["prefect", "--no-prompt", "deploy", *(word for name in names for word in ("--name", name))]
runpy.run_module("prefect", run_name="__main__")
"""

# Deploys flows of a file to a work pool, and prints the ids of their deployments.
_DEPLOY = """
import json, sys
from pathlib import Path
from prefect import flow
pool, file, *names = sys.argv[1:]
file = Path(file)
options = {"work_pool_name": pool, "print_next_steps": False, "ignore_warnings": True}
ids = {}
for name in names:
    source = flow.from_source(source=str(file.parent), entrypoint=f"{file.name}:{name}")
    ids[name] = str(source.deploy(name=f"{file.stem}-{name}", **options))
print("deployed", json.dumps(ids), flush=True)
"""


@dataclass(frozen=True)
class FlowRun:
    """A flow run in a process of its own.

    Attributes:
        tag: by which the server's API finds it and its task runs.
        process: runs it.
        result_file: holds what the flow has returned, if it has.
    """

    tag: str
    process: Managed
    result_file: Path

    @property
    def succeeded(self) -> bool:
        """Whether the flow has returned."""
        return self.process.exit_code == 0

    def result(self) -> Any:
        """What the flow has returned, as JSON."""
        return json.loads(self.result_file.read_text(encoding="utf-8"))


class PrefectServer:
    """`prefect server start` on a free port, in a home of its own.

    Args:
        processes: starts and ends it, and the flow runs.
        environment: a virtual environment with Prefect and smsverify.
        home: `PREFECT_HOME`: takes database and results; made where it is missing.
        variables: environment variables for the server and the flow runs.
        address: where it listens.
        database_url: its database; SQLite in its home by default.
    """

    def __init__(
        self,
        processes: Processes,
        environment: Path,
        *,
        home: Path,
        variables: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        database_url: str | None = None,
    ) -> None:
        self.home = home
        self.database = home / "prefect.db"
        self.port = free_port()
        self.url = f"http://{address}:{self.port}"
        self.rest = Rest(f"{self.url}/api")
        self._processes = processes
        self._python = python_of(environment)
        self._managed: Managed | None = None
        self._runs = 0
        settings = self._settings(address, database_url or f"sqlite+aiosqlite:///{self.database}")
        self._environment = {**inherited_environment(), **settings, **(variables or {})}

    def _settings(self, address: str, database_url: str) -> dict[str, str]:
        settings = {
            "home": str(self.home),
            "profiles_path": str(self.home / "profiles.toml"),
            # The home alone does not move it in Prefect 3.7.
            "results_local_storage_path": str(self.home / "results"),
            "api_url": self.rest.base_url,
            "server_api_host": address,
            "server_api_port": str(self.port),
            "server_database_connection_url": database_url,
            "server_ui_enabled": "false",
            "server_analytics_enabled": "false",
        }
        variables = {f"PREFECT_{name.upper()}": value for name, value in settings.items()}
        return {**variables, "DO_NOT_TRACK": "1"}

    def __enter__(self) -> PrefectServer:
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -------------------------------------------------------------- its process

    def start(self) -> None:
        """Starts the server, without waiting for it."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [str(self._python), "-m", "prefect", "server", "start"]
        self._managed = self._processes.spawn("prefect-server", command, self._environment)

    def wait_until_ready(self, timeout: float = READY) -> None:
        """Waits until the server answers."""
        assert self._managed is not None, "it has not been started"
        self._processes.wait_until(
            lambda: self.rest.get("/health"), timeout, "the Prefect server", [self._managed]
        )

    def stop(self) -> None:
        """Ends the server."""
        if self._managed is not None:
            self._processes.stop([self._managed])
            self._managed = None

    def kill(self) -> None:
        """Kills the server, without a chance to clean up."""
        assert self._managed is not None, "it has not been started"
        self._processes.stop([self._managed], kill=True)
        self._managed = None

    # -------------------------------------------------------------- its clients

    def save_credentials(self, block: str, account: Account, timeout: float = 120.0) -> None:
        """Saves an account as a `SmsVerifyCredentials` block, so that flows take it by the block's name."""
        command = [str(self._python), "-c", _SAVE_CREDENTIALS, block]
        environment = self._environment | account.environment()
        self._processes.run("prefect-credentials", command, environment, timeout=timeout)

    def start_flow(self, entrypoint: str, parameters: Mapping[str, Any]) -> FlowRun:
        """Runs a flow in a process of its own, without waiting for it.

        Args:
            entrypoint: `<file>:<function>`.
            parameters: the flow's, as JSON values.
        """
        self._runs += 1
        tag = f"run-{self._runs}"
        result_file = self.home / f"{tag}.json"
        command = [
            str(self._python),
            "-m",
            "stacks.run_flow",
            entrypoint,
            json.dumps(dict(parameters)),
            tag,
            str(result_file),
        ]
        environment = self._environment | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        process = self._processes.spawn(f"prefect-{tag}", command, environment, lasting=False)
        return FlowRun(tag, process, result_file)

    def start_script(self, file: Path) -> Managed:
        """Runs a program that does not end by itself."""
        return self._processes.spawn(
            f"prefect-{file.stem}", [str(self._python), str(file)], self._environment
        )

    def wait_for_flow(
        self,
        run: FlowRun,
        timeout: float = 300.0,
        seen: Callable[[dict[str, str]], None] = lambda states: None,
    ) -> FlowRun:
        """Waits for the end of a flow run's process.

        Args:
            run: the run.
            timeout: seconds.
            seen: is given the states of the flow and its tasks at each look.
        """

        def ended() -> bool:
            over = run.process.exit_code is not None
            seen(self.states(run))
            return over

        self._processes.wait_until(ended, timeout, f"the end of flow {run.tag}", [run.process])
        self._processes.stop([run.process])
        return run

    def states(self, run: FlowRun) -> dict[str, str]:
        """The states of the flow run and of its task runs, by name."""
        tagged = {"tags": {"all_": [run.tag]}}
        flows = self.rest.post("/flow_runs/filter", {"flow_runs": tagged})
        tasks = {"task_runs": tagged, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        states = {f"flow {one['name']}": one["state_name"] for one in flows}
        return states | {one["name"]: one["state_name"] for one in self.rest.post("/task_runs/filter", tasks)}

    # -------------------------------------------------------------- flow runs that a worker runs

    def start_worker(
        self, pool: str, *, at_once: int = 10, timeout: float = 120.0, host: Host | None = None
    ) -> Managed:
        """Starts a worker, which runs each flow run as a process, and waits until its work pool is there.

        Args:
            pool: the work pool.
            at_once: how many flow runs it has at the same time.
            timeout: seconds.
            host: where it runs, in a home of its own; this machine by default.
        """
        command = [str(self._python), "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
        command += ["--limit", str(at_once)]
        environment = self._environment | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
        name = "prefect-worker"
        if host is not None:
            name = f"prefect-{host.name}"
            command = host.command(command)
            home = self.home / host.name
            home.mkdir(parents=True, exist_ok=True)
            environment |= {"PREFECT_HOME": str(home), "HOME": str(home)}
            # Flow runs begin again on other hosts, so the results are where all have them, as in a bucket.
            environment |= {"PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(self.home / "results")}
        worker = self._processes.spawn(name, command, environment)

        def is_there() -> bool:
            pools = self.rest.post("/work_pools/filter", {})
            return any(known["name"] == pool for known in pools)

        self._processes.wait_until(is_there, timeout, f"the work pool {pool}", [worker])
        return worker

    def deploy(self, pool: str, file: Path, flows: Sequence[str], timeout: float = 120.0) -> dict[str, str]:
        """Deploys flows of a file to a work pool.

        Returns:
            the ids of the deployments, by the flows' names in the file.
        """
        command = [str(self._python), "-c", _DEPLOY, pool, str(file), *flows]
        managed = self._processes.run(
            f"prefect-deploy-{file.stem}", command, self._environment, timeout=timeout
        )
        line = next(line for line in managed.output().splitlines() if line.startswith("deployed "))
        return dict(json.loads(line.removeprefix("deployed ")))

    def deploy_folder(self, folder: Path, names: Sequence[str], timeout: float = 120.0) -> dict[str, str]:
        """Deploys what the `prefect.yaml` of a folder has under some names.

        Returns:
            the ids of the deployments, by their names.
        """
        command = [str(self._python), "-c", _DEPLOY_FOLDER, str(folder), *names]
        self._processes.run("prefect-deploy-folder", command, self._environment, timeout=timeout)
        found = self.rest.post("/deployments/filter", {"deployments": {"name": {"any_": list(names)}}})
        return {one["name"]: str(one["id"]) for one in found}

    def create_run(self, deployment_id: str, parameters: Mapping[str, Any]) -> str:
        """Has a worker run a deployment; the id of the flow run."""
        run = {
            "parameters": dict(parameters),
            "state": {"type": "SCHEDULED"},
            "idempotency_key": uuid.uuid4().hex,
        }
        return str(self._post(f"/deployments/{deployment_id}/create_flow_run", run)["id"])

    def runs_in_state(self, kind: str) -> list[str]:
        """The ids of the flow runs whose state is of a kind, such as `RUNNING`."""
        body = {"flow_runs": {"state": {"type": {"any_": [kind]}}}, "limit": 200}
        return [str(one["id"]) for one in self.rest.post("/flow_runs/filter", body)]

    def run_state(self, run_id: str) -> str:
        """The name of a flow run's state, such as `Running`."""
        return str(self.rest.get(f"/flow_runs/{run_id}")["state_name"])

    def run_process(self, run_id: str) -> int | None:
        """The id of the process of a flow run that a worker runs; `None` while it has none."""
        pid = self.rest.get(f"/flow_runs/{run_id}")["infrastructure_pid"]
        return int(str(pid).rpartition(":")[2]) if pid else None

    def set_run_state(self, run_id: str, kind: str, name: str) -> None:
        """Proposes a flow run's state, as a user does: by the rules of Prefect, which may refuse it.

        Args:
            run_id: the flow run.
            kind, name: of the state, such as `CANCELLING` and `Cancelling`.
        """
        state = {"type": kind, "name": name}
        self._post(f"/flow_runs/{run_id}/set_state", {"state": state})

    def _post(self, path: str, body: Any) -> Any:
        # Its database is locked now and then while many write.
        return self._processes.wait_until(
            lambda: self.rest.post(path, body), 60.0, f"the server to take {path}"
        )
