"""The simulator itself: the service, served on a port of this process."""

from __future__ import annotations

import json
import threading
from types import TracebackType
from typing import Any

from smsverify.simulator.control import SimulatorControl
from smsverify.simulator.gateway import Gateway
from smsverify.simulator.records import SimulatorError
from smsverify.simulator.server import Server
from smsverify.simulator.settings import Settings
from smsverify.simulator.verbs import perform


class Simulator(SimulatorControl):
    """A fake of the SMS verification service: stateful, over real HTTP, free of charge.

    Use it as a context manager, or with `start` and `stop`::

        with Simulator(speed=60, sms_delay=(5, 15)) as simulator:
            hook = SmsVerifyHook(api_key=simulator.api_key, base_url=simulator.url,
            rate_period=simulator.rate_period, …)

    It can be scripted by its own methods and, from any process, by `Control` with its URL.

    Args:
        settings: The settings to begin with; defaults if left out.
        host: The interface to listen on. There is no reason to open it to a network: the control API has no
            password.
        port: The port; 0 picks a free one.
        **changes: Single settings on top, e.g. ``balance="10"``; see `Settings`.

    Raises:
        SimulatorError: A setting is unknown or makes no sense.
    """

    def __init__(
        self, settings: Settings | None = None, *, host: str = "127.0.0.1", port: int = 0, **changes: Any
    ) -> None:
        self._gateway = Gateway((settings or Settings()).changed(changes))
        self._address = (host, port)
        self._url = ""
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        if not self._url:
            raise SimulatorError(
                "the simulator has no port yet: use it as a context manager, or call start()"
            )
        return self._url

    def start(self) -> Simulator:
        """Listen and serve, in threads of this process.

        After a `stop` it goes on where it was, with the same URL: the service had an outage.

        Raises:
            OSError: The port is taken.
            SimulatorError: It is running.
        """
        if self._server is not None:
            raise SimulatorError("the simulator is running")
        self._server = Server(self._address, self._gateway)
        host, port = self._address = (self._server.server_name, self._server.server_port)
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._gateway.stopping.clear()
        self._gateway.agenda.start()
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="smsverify-simulator", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and close every connection. The verbs still work on what has happened."""
        if self._server is None or self._thread is None:
            return
        self._gateway.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()
        self._thread.join()
        self._gateway.agenda.stop()
        self._server = self._thread = None

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _call(self, verb: str, **arguments: Any) -> Any:
        # Through JSON, like the control API: what works here works there.
        return json.loads(json.dumps(perform(self._gateway, verb, json.loads(json.dumps(arguments)))))
