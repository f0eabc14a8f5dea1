"""What worker processes do; see `rigs.processes`. As a script, it reads from standard input what to do."""

from __future__ import annotations

import importlib
import itertools
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
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rigs.clocks import step_own_clock
from smsverify._service.rate_limit import Priority, RateLimit
from smsverify._store.store import open_store
from smsverify.errors import PurchaseUnknownError, ServiceError, SmsVerifyError
from smsverify.hook import SmsVerifyHook

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


def buy_many(index: int, *, settings: dict[str, Any], order: dict[str, Any], orders: int) -> list[int]:
    """Buys so many at once, each under a key of its own; returns the orders' ids."""
    hook = SmsVerifyHook(**settings)
    bought: list[int] = []

    def buy_one(number: int) -> None:
        bought.append(hook.order(**order, key=f"{index} {number}").order_id)

    threads = [threading.Thread(target=buy_one, args=(number,)) for number in range(orders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return bought


def renew(_index: int, *, settings: dict[str, Any], order_id: int) -> str:
    """Renews; returns "renewed", or the error's name."""
    try:
        SmsVerifyHook(**settings).renew(order_id)
    except SmsVerifyError as error:
        return type(error).__name__
    return "renewed"


def release(_index: int, *, settings: dict[str, Any], order_id: int) -> bool:
    """Gives an order back; returns whether it is cancelled."""
    return SmsVerifyHook(**settings).release(order_id, "not needed")


def with_a_stop(
    index: int,
    *,
    worker: str,
    place: str,
    calls: int,
    skip: int,
    note: str,
    arguments: dict[str, Any],
) -> Any:
    """Calls a worker whose process is stopped (SIGSTOP) when `calls` threads have just passed `place`.

    Args:
        worker, arguments: a function of this module.
        place: a method, such as `smsverify._service.exchange.Exchange.announce`.
        calls: how often it is called, at the same time, before the process stops.
        skip: how many calls before these do not count.
        note: a file for the process's id.
    """
    module, owner, name = place.rsplit(".", 2)
    where = getattr(importlib.import_module(module), owner)
    right = getattr(where, name)
    together = threading.Barrier(calls, action=lambda: os.kill(os.getpid(), signal.SIGSTOP))
    early, left = threading.Semaphore(skip), threading.Semaphore(calls)

    def stopping(*given: Any, **options: Any) -> Any:
        result = right(*given, **options)
        if not early.acquire(blocking=False) and left.acquire(blocking=False):
            Path(note).write_text(str(os.getpid()))
            together.wait()
        return result

    setattr(where, name, stopping)
    return globals()[worker](index, **arguments)


def use_up(
    _index: int,
    *,
    settings: dict[str, Any],
    threads: int,
    requests: int,
    order_ids: list[int] | None = None,
) -> int:
    """Sends `requests` reads in each of `threads` threads, or cancels these orders instead, one in each.

    Returns:
        how many requests were answered.
    """
    hook = SmsVerifyHook(**settings)
    answered: list[int] = []

    def send(place: int) -> None:
        for _ in range(requests):
            hook.cancel(order_ids[place]) if order_ids else hook.get_balance()
            answered.append(1)

    senders = [threading.Thread(target=send, args=(place,)) for place in range(threads)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return len(answered)


def die_with_a_slot(_index: int, *, url: str, limit: int, period: float, lease: float) -> None:
    """Takes every slot there is and is killed."""
    rate_limit = RateLimit(open_store(url), "key", limit=limit, period=period, lease=lease)
    held = [rate_limit.acquire(Priority.POLL, deadline=time.monotonic() + 30) for _ in range(limit)]
    for slot in held:
        slot.__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_the_queue(_index: int, *, url: str, limit: int, period: float, lease: float) -> None:
    """Stands in the queue for a slot, before everybody else, and is killed."""
    rate_limit = RateLimit(open_store(url), "key", limit=limit, period=period, lease=lease)
    die = partial(os.kill, os.getpid(), signal.SIGKILL)
    with rate_limit.acquire(Priority.RELEASE, deadline=time.monotonic() + 300, while_waiting=die):
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
    while not any(thread.name == "smsverify-waiter" for thread in threading.enumerate()):
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


def tell_time(_index: int, *, url: str, seconds: float) -> float:
    """Sets this process's clock by so much; returns what the store's time is."""
    step_own_clock(seconds)
    store = open_store(url)
    with store.read() as connection:
        return store.now(connection)


def use_up_with_a_jumping_clock(
    _index: int, *, settings: dict[str, Any], threads: int, requests: int, steps: list[float]
) -> int:
    """Like `use_up`, while this process's clock is set by one of these steps after the other."""
    is_over = threading.Event()

    def jump() -> None:
        for seconds in itertools.cycle(steps):
            step_own_clock(seconds)
            if is_over.wait(0.05):
                return

    jumping = threading.Thread(target=jump)
    jumping.start()
    try:
        return use_up(_index, settings=settings, threads=threads, requests=requests)
    finally:
        is_over.set()
        jumping.join()


def use_with_a_wrong_clock(
    _index: int, *, settings: dict[str, Any], seconds: float, requests: int, timeout: float
) -> list[str | None]:
    """Sets this process's clock by so much, sends requests, buys a number and waits for its code."""
    step_own_clock(seconds)
    hook = SmsVerifyHook(**settings)
    for _ in range(requests):
        hook.get_balance()
    order = hook.order("temporary", service="WhatsApp")
    return [hook.wait_for_otp(order.order_id, timeout, cancel_on_timeout=False).otp]


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
            chance.choice(list(flock.values())).kill()  # does nothing to one that has just ended
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
