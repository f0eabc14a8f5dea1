"""Ways to leave a command: what was sent is finished, and it is said how to go on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rigs import eventually
from rigs.commands import COMMAND, run
from rigs.rooms import hold_up

from smsverify._store.store import open_store
from smsverify.cli import main
from smsverify.cli.verbs import Common
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

ORDER = ["order", "temporary", "--service", "WhatsApp"]


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*COMMAND, *arguments], text=True, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, out or "", err


def posts(environment: Simulator) -> int:
    return len([request for request in environment.requests() if request.method == "POST"])


def key_in(text: str) -> str:
    match = re.search(r"--key (\S+?)`", text)
    assert match is not None, text
    return match[1].strip("'")


def test_the_command_that_goes_on_is_on_the_same_store(
    environment: Simulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    environment.add_fault(Fault("lost_answer", "order/temporary/"))
    environment.add_fault(Fault("error_before", "orders/", times=None))
    code, _, err = run(capsys, *ORDER, "--store-url", f"sqlite:///{tmp_path / 'other.db'}")
    again = re.search(r"`smsverify (.+?)` goes on", err)
    assert (code, again is not None) == (1, True)
    environment.clear_faults()
    assert run(capsys, *shlex.split(again[1]))[0] == 0
    assert len(environment.orders()) == 1


def test_no_password_of_a_store_is_in_the_command_that_goes_on() -> None:
    again = Common(store_url="postgresql+psycopg://u:secret@db/x").again("wait", "5")
    assert again == "`smsverify wait 5 --store-url 'postgresql+psycopg://u:***@db/x'`"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_purchase_under_way_is_finished_when_a_signal_comes(
    sent: signal.Signals, environment: Simulator
) -> None:
    environment.add_fault(Fault("slow_before", path="order/temporary/", seconds=2.0))
    process = start(*ORDER)
    eventually(lambda: posts(environment), "sending")
    process.send_signal(sent)
    code, out, err = ended(process)
    (order,) = environment.orders()
    assert code == 0
    assert f"order {order.order_id} " in out
    assert "after the current request" in err


@pytest.mark.slow
@pytest.mark.parametrize("key", [["--key", "mine"], []])
def test_a_second_signal_leaves_at_once_and_says_how_the_purchase_is_found(
    key: list[str], environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.add_fault(Fault("slow_before", path="order/temporary/", seconds=4.0))
    process = start(*ORDER, *key)
    eventually(lambda: posts(environment), "sending")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "again to stop now" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert (code, out) == (130, "")
    assert "pays nothing twice" in err
    found = key_in(err)
    assert key == [] or found == "mine"
    # As it says, once the call is over for all.
    (order,) = eventually(environment.orders, "the purchase")
    with open_store(os.environ["SMSVERIFY_STORE_URL"]).write() as connection:
        connection.exec_driver_sql("UPDATE smsverify_purchases SET sent_at = sent_at - 1000")
    assert main([*ORDER, "--key", found]) == 0
    assert f"order {order.order_id} " in capsys.readouterr().out
    assert posts(environment) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 1), (signal.SIGTERM, 1)])
@pytest.mark.parametrize("verb", ["order", "renew"])
def test_a_paid_call_that_waits_for_its_turn_is_not_made_when_a_signal_comes(
    verb: str, sent: signal.Signals, code: int, environment: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("rent-1day", service="Tinder").order_id

    def is_waiting() -> bool:
        hold_up(hook, 60)  # a refusal holds for five of the simulator's short minutes at the most
        return bool(hook.rate_limit().waiting)

    is_waiting()
    process = start(*ORDER) if verb == "order" else start("renew", str(order_id))
    eventually(is_waiting, "waiting")
    process.send_signal(sent)
    got, out, err = ended(process)
    assert (got, out) == (code, "")
    assert "Nothing was sent" in err
    assert posts(environment) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "said"), [("renew", "until"), ("cancel", "cancelled")])
def test_a_call_about_an_order_is_finished_when_a_signal_comes(
    verb: str, said: str, environment: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("rent-1day", service="Tinder").order_id
    environment.add_fault(Fault("slow_before", path=f"order/*/{verb}/", seconds=2.0))
    process = start(verb, str(order_id))
    eventually(lambda: posts(environment) == 2, "sending")
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    assert code == 0
    assert said in out
    assert environment.order(order_id).renewals == (verb == "renew")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1), (signal.SIGHUP, 1)])
def test_a_wait_that_is_interrupted_says_what_becomes_of_the_number(
    sent: signal.Signals, code: int, environment: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    process = start("wait", str(order_id))
    eventually(lambda: environment.order(order_id).status_requests > 1, "polling")
    process.send_signal(sent)
    got, out, err = ended(process)
    assert (got, out) == (code, "")
    assert f"order {order_id} was stopped. The wait did not cancel the order" in err
    assert f"`smsverify cancel {order_id}` gives it back" in err
    assert environment.order(order_id).status == "pending"


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_so(environment: Simulator) -> None:
    """As nohup does it for the end of a terminal."""
    environment.add_fault(Fault("slow_before", path="order/temporary/", seconds=1.0))
    process = start(*ORDER, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    eventually(lambda: posts(environment), "sending")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    code, _, err = ended(process)
    assert (code, err) == (0, "")


def test_a_purchase_whose_outcome_is_unknown_says_how_to_go_on(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.add_fault(Fault("lost_answer", path="order/temporary/"))
    environment.add_fault(Fault("error_before", path="orders/", times=None))
    assert main([*ORDER, "--max-price", "0.50"]) == 1
    err = capsys.readouterr().err
    assert "--service WhatsApp --max-price 0.50 --key" in err
    environment.clear_faults()
    (order,) = environment.orders()
    assert main([*ORDER, "--key", key_in(err)]) == 0
    assert f"order {order.order_id} " in capsys.readouterr().out


@pytest.mark.slow
def test_a_purchase_that_cannot_be_printed_is_named_on_standard_error(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    process = start(*ORDER, stdout=writer)
    os.close(writer)
    os.close(reader)
    code, _, err = ended(process)
    (order,) = environment.orders()
    assert code == 141
    assert f"order {order.order_id} is bought" in err
    assert main([*ORDER, "--key", key_in(err)]) == 0
    assert f"order {order.order_id} " in capsys.readouterr().out
