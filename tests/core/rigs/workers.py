"""What worker processes do; see `rigs.processes`. As a script, it reads from standard input what to do."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import multiprocessing.process
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from smsverify.budget import Budget, Priority
from smsverify.errors import PurchaseUnknownError, ServiceError, SmsVerifyError
from smsverify.hook import SmsVerifyHook
from smsverify.store import open_store

_forks = multiprocessing.get_context("fork")


def upgrade(_index: int, *, url: str) -> int | str:
    """Opens a store that may not exist yet; returns its schema's version."""
    try:
        return open_store(url).upgrade()
    except SmsVerifyError as error:
        return f"{type(error).__name__}: {error}"


def outlive_forks(_index: int, *, url: str, children: int) -> list[int]:
    """Forks while this process has connections open and in use; returns how the children ended."""
    store = open_store(url)

    def count() -> None:
        with store.write() as connection:
            connection.exec_driver_sql("UPDATE counting SET number = number + 1")

    with store.write() as connection:
        connection.exec_driver_sql("CREATE TABLE counting (number INTEGER)")
        connection.exec_driver_sql("INSERT INTO counting VALUES (0)")
    ends = []
    with store.read() as connection:
        connection.exec_driver_sql("SELECT number FROM counting").one()
        for _ in range(children):
            pid = os.fork()
            if pid == 0:
                for _ in range(5):
                    count()
                os._exit(0)
            count_in_parent = threading.Thread(target=count)
            count_in_parent.start()
            count_in_parent.join()
            ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    with store.read() as connection:
        return [*ends, connection.exec_driver_sql("SELECT number FROM counting").scalar_one()]


def buy(_index: int, *, settings: dict[str, Any], order: dict[str, Any]) -> int | str:
    """Buys; returns the order's id, or the error's name."""
    try:
        return SmsVerifyHook(**settings).order(**order).order_id
    except SmsVerifyError as error:
        return type(error).__name__


def renew(_index: int, *, settings: dict[str, Any], order_id: int) -> str:
    """Renews; returns "renewed", or the error's name."""
    try:
        SmsVerifyHook(**settings).renew(order_id)
    except SmsVerifyError as error:
        return type(error).__name__
    return "renewed"


def use_up(_index: int, *, settings: dict[str, Any], threads: int, requests: int) -> int:
    """Sends `requests` reads in each of `threads` threads; returns how many were answered."""
    hook = SmsVerifyHook(**settings)
    answered: list[int] = []

    def send() -> None:
        for _ in range(requests):
            hook.get_balance()
            answered.append(1)

    senders = [threading.Thread(target=send) for _ in range(threads)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return len(answered)


def die_with_a_permit(_index: int, *, url: str, limit: int, period: float, lease: float) -> None:
    """Takes every permit there is and is killed."""
    budget = Budget(open_store(url), "key", limit=limit, period=period, lease=lease)
    held = [budget.permit(Priority.POLL, deadline=time.monotonic() + 30) for _ in range(limit)]
    for permit in held:
        permit.__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_queue(_index: int, *, url: str, limit: int, period: float, lease: float) -> None:
    """Stands in the queue for a permit, before everybody else, and is killed."""
    budget = Budget(open_store(url), "key", limit=limit, period=period, lease=lease)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    with budget.permit(Priority.RELEASE, deadline=time.monotonic() + 300):
        pass


def wait(_index: int, *, settings: dict[str, Any], order_ids: list[int], timeout: float) -> list[str | None]:
    """Waits for all these orders at once; returns their codes, or the errors' names."""
    hook = SmsVerifyHook(**settings)
    codes: list[str | None] = [None] * len(order_ids)

    def wait_for(place: int) -> None:
        try:
            codes[place] = hook.wait_for_otp(order_ids[place], timeout, cancel_on_timeout=False).otp
        except SmsVerifyError as error:
            codes[place] = type(error).__name__

    waiters = [threading.Thread(target=wait_for, args=(place,)) for place in range(len(order_ids))]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join()
    return codes


def wait_and_fork(index: int, *, settings: dict[str, Any], order_ids: list[int], timeout: float) -> list[Any]:
    """Waits in this process and, forked while that wait is on, in a child; returns both codes."""
    hook = SmsVerifyHook(**settings)
    codes: list[str | None] = []
    waiter = threading.Thread(
        target=lambda: codes.append(hook.wait_for_otp(order_ids[0], timeout, cancel_on_timeout=False).otp)
    )
    waiter.start()
    while not any(thread.name == "smsverify-watch" for thread in threading.enumerate()):
        time.sleep(0.01)
    receiver, sender = _forks.Pipe(duplex=False)
    child = _forks.Process(
        target=lambda: sender.send(wait(index, settings=settings, order_ids=order_ids[1:], timeout=timeout))
    )
    child.start()
    codes_of_child = receiver.recv()
    child.join()
    waiter.join()
    return [*codes, *codes_of_child]


def use_with_a_wrong_clock(
    _index: int, *, settings: dict[str, Any], seconds: float, requests: int, timeout: float
) -> list[str | None]:
    """Sets this process's clock by so much, sends requests, buys a number and waits for its code."""
    _set_clock(seconds)
    hook = SmsVerifyHook(**settings)
    for _ in range(requests):
        hook.get_balance()
    order = hook.order("temporary", service="WhatsApp")
    return [hook.wait_for_otp(order.order_id, timeout, cancel_on_timeout=False).otp]


def _set_clock(seconds: float) -> None:
    right = time.time

    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return cls.fromtimestamp(time.time(), tz)

    time.time = lambda: right() + seconds
    for name, module in list(sys.modules.items()):
        if name.startswith("smsverify") and getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = Wrong  # type: ignore[attr-defined]


# ------------------------------------------------------------------ buyers that are killed


def buy_until_done(
    _index: int,
    *,
    settings: dict[str, Any],
    order: dict[str, Any],
    keys: list[str],
    workers: int,
    kills: int,
    pause: float,
    seed: int,
    directory: str,
) -> dict[str, Any]:
    """Lets processes buy under all these keys, kills them at random moments, and starts them anew.

    Two processes share each key. Each notes in `directory` what it was handed out.

    Args:
        settings, order: of the hook and of each purchase.
        keys: of the purchases.
        workers: how many processes.
        kills: how many of them are killed in all, at the most.
        pause: seconds between two kills, on an average.
        seed: of the random moments.
        directory: an empty one.

    Returns:
        how many were killed, and how those ended that were not and did not get to their end.
    """
    chance = random.Random(seed)

    def start(number: int) -> multiprocessing.process.BaseProcess:
        mine = keys[number % (workers // 2) :: workers // 2]
        target = {"settings": settings, "order": order, "keys": mine, "seed": chance.random()}
        target["notes"] = f"{directory}/worker-{number}"
        process = _forks.Process(target=_buy_all, kwargs=target)
        process.start()
        return process

    flock = {number: start(number) for number in range(workers)}
    killed, failed = 0, []
    while flock:
        time.sleep(chance.uniform(0, 2 * pause))
        if killed < kills:
            os.kill(chance.choice(list(flock.values())).pid or 0, signal.SIGKILL)
            killed += 1
        for number, process in list(flock.items()):
            if process.is_alive():
                continue
            process.join()
            del flock[number]
            if process.exitcode == -signal.SIGKILL:
                flock[number] = start(number)
            elif process.exitcode:
                failed.append(process.exitcode)
    return {"killed": killed, "failed": failed}


def _buy_all(
    *, settings: dict[str, Any], order: dict[str, Any], keys: list[str], seed: float, notes: str
) -> None:
    """Buys under each of these keys. What is not known yet is come back to."""
    hook, path = SmsVerifyHook(**settings), Path(notes)
    chance = random.Random(seed)
    done = {line.split()[0] for line in path.read_text().splitlines()} if path.exists() else set()
    left = [key for key in keys if key not in done]
    while left:
        key = chance.choice(left)
        try:
            order_id = hook.order(**order, key=key).order_id
        except (PurchaseUnknownError, ServiceError):
            continue
        with path.open("a") as file:
            file.write(f"{key} {order_id}\n")
        left.remove(key)


# ------------------------------------------------------------------ the script


def _main() -> None:
    task = json.loads(sys.stdin.read())
    function: Callable[..., Any] = globals()[task["function"]]
    barrier = _forks.Barrier(task["count"])

    def run(index: int, sender: Connection) -> None:
        barrier.wait(60)
        sender.send(function(index, **task["arguments"]))

    receivers, processes = [], []
    for index in range(task["count"]):
        receiver, sender = _forks.Pipe(duplex=False)
        process = _forks.Process(target=run, args=(index, sender))
        process.start()
        sender.close()
        receivers.append(receiver)
        processes.append(process)
    print(json.dumps([_received(receiver) for receiver in receivers]))
    for process in processes:
        process.join()


def _received(receiver: Connection) -> Any:
    try:
        return receiver.recv()
    except EOFError:
        return None


if __name__ == "__main__":
    _main()
