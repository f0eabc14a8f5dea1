"""Ways to order many numbers at once and to read their codes, each as short as one would write it.

Each takes the service, how many numbers are wanted and its own options, and returns when which order's code
was in hand. Time is real time; `speed` says how many seconds of the service one real second is.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from orders import SERVICE_ID

from stacks import Account, Processes
from stacks.receiver import start_receiver

SECRET = "the-secret-of-the-benchmarks-url"
WAIT = 900.0  # seconds of the service that a code may take


@dataclass(frozen=True)
class Service:
    """A simulated service.

    Attributes:
        url, api_key: where it is.
        speed: seconds of the service in one real second.
        callback_port: where it sends callbacks, if it does.
    """

    url: str
    api_key: str
    speed: float
    callback_port: int | None = None

    @property
    def period(self) -> float:
        """The service's minute in real seconds."""
        return 60 / self.speed


InHand = list[tuple[int, float]]


def in_threads(count: int, one: Callable[[], int]) -> InHand:
    """Runs `one`, which returns an order's id when its code is there, in so many threads at once."""
    done: InHand = []

    def run() -> None:
        try:
            order_id = one()
        except Exception as error:  # what fails is lost, and counted as that
            print(f"lost: {error!r}", file=sys.stderr)
        else:
            done.append((order_id, time.time()))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 2 * WAIT  # longer than any of them may take
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))
    return done


# ------------------------------------------------------------------ without smsverify


def by_hand(service: Service, count: int) -> InHand:
    """A thread for each order, its status every 5 s, and all that a 429 says is done."""
    import requests
    import tenacity

    class Refused(Exception):
        def __init__(self, seconds: float) -> None:
            super().__init__(seconds)
            self.seconds = seconds

    def retry_after(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return error.seconds if isinstance(error, Refused) else 1.0

    @tenacity.retry(wait=retry_after, retry=tenacity.retry_if_exception_type(Refused))
    def call(session: requests.Session, method: str, path: str, body: Any = None) -> Any:
        reply = session.request(method, f"{service.url}/api/v1/{path}", json=body, timeout=30)
        if reply.status_code == 429:
            raise Refused(float(reply.headers.get("Retry-After", 1)))
        reply.raise_for_status()
        return reply.json()["data"]

    def one() -> int:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {service.api_key}"
            order_id = int(call(session, "POST", "order/temporary/", {"service_id": SERVICE_ID})["order_id"])
            while not call(session, "GET", f"order/{order_id}/status/")["otp"]:
                time.sleep(5 / service.speed)
            return order_id

    return in_threads(count, one)


def coordinated(service: Service, count: int, *, list_every: float, evenly: bool) -> InHand:
    """One loop that knows all orders and the limit: which is possible inside of one process only.

    It reads codes that are known to be there first, then the list of orders when that is due, then it orders;
    either as soon as the window allows, or never two requests within a sixtieth of it.
    """
    import requests

    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {service.api_key}"
    sent: deque[float] = deque()  # when the requests in the window were answered
    waiting: list[int] = []
    ready: deque[int] = deque()
    in_hand: InHand = []
    last, list_at = 0.0, 0.0

    def call(method: str, path: str, body: Any = None) -> Any:
        nonlocal last
        last = time.monotonic()
        reply = session.request(method, f"{service.url}/api/v1/{path}", json=body, timeout=30)
        sent.append(time.monotonic())
        reply.raise_for_status()
        return reply.json()

    def pause() -> float:
        now = time.monotonic()
        while sent and sent[0] <= now - service.period:
            sent.popleft()
        full = sent[0] + service.period - now if len(sent) >= 60 else 0.0
        return max(full, last + service.period / 60 - now if evenly else 0.0)

    ordered = 0
    while len(in_hand) < count:
        if (seconds := pause()) > 0:
            time.sleep(seconds)
        elif ready:
            order_id = ready.popleft()
            if call("GET", f"order/{order_id}/status/")["data"]["otp"]:
                in_hand.append((order_id, time.time()))
                waiting.remove(order_id)
        elif waiting and time.monotonic() >= list_at:
            list_at = time.monotonic() + list_every / service.speed
            listed = {row["order_id"]: row["status"] for row in call("GET", "orders/")}
            # What is not among the 50 newest any more has to be asked for.
            ready.extend(order_id for order_id in waiting if listed.get(order_id) != "pending")
        elif ordered < count:
            ordered += 1
            answer = call("POST", "order/temporary/", {"service_id": SERVICE_ID})
            waiting.append(answer["data"]["order_id"])
        else:
            time.sleep(max(0.0, min(list_at - time.monotonic(), 0.05)))
    return in_hand


# ------------------------------------------------------------------ with smsverify


@contextlib.contextmanager
def _store() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="smsverify-bench-") as directory:
        yield f"sqlite:///{Path(directory) / 'store.db'}"


def ours(service: Service, count: int, *, code_latency: float) -> InHand:
    """A thread for each order with `hook.order` and `hook.wait_for_otp`, as Prefect's `.map` does it."""
    with _store() as store_url:
        return _order_and_wait(service, count, store_url=store_url, code_latency=code_latency)


def ours_called(service: Service, count: int) -> InHand:
    """The same, with callbacks received by `smsverify callbacks serve` beside it."""
    assert service.callback_port is not None
    with _store() as store_url, tempfile.TemporaryDirectory(prefix="smsverify-bench-") as logs:
        account = Account(
            {
                "api_key": service.api_key,
                "base_url": service.url,
                "store_url": store_url,
                "rate_period": str(service.period),
                "callback_secrets": SECRET,
            }
        )
        with Processes(Path(logs)) as processes:
            start_receiver(processes, Path(sys.prefix), account, port=service.callback_port)
            return _order_and_wait(service, count, store_url=store_url, callback_secrets=[SECRET])


def _order_and_wait(service: Service, count: int, **settings: Any) -> InHand:
    from smsverify import SmsVerifyHook

    hook = SmsVerifyHook(service.api_key, base_url=service.url, rate_period=service.period, **settings)
    hook.upgrade_store()

    def one() -> int:
        order_id = hook.order("temporary", service=SERVICE_ID).order_id
        hook.wait_for_otp(order_id, WAIT / service.speed)
        return order_id

    return in_threads(count, one)
