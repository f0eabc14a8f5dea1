"""What a command writes to a terminal or to a pipe, also where its reader has gone."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from rigs import eventually
from rigs.commands import COMMAND, as_json, run

from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator


def test_rentals_are_listed_and_coloured_for_people_only(
    environment: Simulator,
    hook: SmsVerifyHook,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (as_json(capsys, "rentals"), run(capsys, "rentals")[0]) == ([], 0)
    day = hook.order("rent-1day", service="Tinder").order_id
    month = hook.order("rental", service="WhatsApp", duration=30).order_id
    environment.set_time_left(day, 3 * 3600 + 65)
    rows = as_json(capsys, "rentals")
    assert [row["order_id"] for row in rows] == [day, month]
    assert (rows[0]["price"], round(rows[0]["time_left_seconds"] / 100)) == ("1.2", 109)
    _, out, _ = run(capsys, "rentals", "--within", "14400")
    assert "\033" not in out
    assert "3 h 1 min" in out.splitlines()[1]
    assert "rental 30 days" in out.splitlines()[2]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    coloured = run(capsys, "rentals", "--within", "14400")[1].splitlines()
    assert coloured[1].startswith("\033[33m")
    assert not coloured[2].startswith("\033")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[33m" not in run(capsys, "rentals", "--within", "14400")[1]
    assert run(capsys, "rentals", "--within", "soon")[0] == 2


def test_a_reader_that_has_gone_is_no_traceback(environment: Simulator) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "balance"], stdout=writer, stderr=subprocess.PIPE, check=False, text=True
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == 141


HOSTILE = "Ev\n\x1b[31mil\u202e\x9b2J"


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_text_from_outside_acts_on_no_terminal(
    environment: Simulator, hook: SmsVerifyHook, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "order_id": 7,
        "service": HOSTILE,
        "status": HOSTILE,
        "phone": HOSTILE,
        "name": HOSTILE,
        "price": 1,
    }
    bodies = {
        "orders/": [row],
        "order/*/status/": row | {"message": f"{HOSTILE} your code: 482913{HOSTILE}", "otp": f"4{HOSTILE}"},
        "services/temporary/": [row | {"service_id": HOSTILE}],
        "services/rental/": [{"name": HOSTILE}],
    }
    for path, body in bodies.items():
        environment.add_fault(Fault("error_before", path=path, status=200, body=json.dumps(body), times=None))
    for arguments in (
        ["orders"],
        ["status", "7"],
        ["wait", "7"],
        ["wait", "7", "--message"],
        ["services", "temporary"],
        ["order", "temporary", "--service", "Evil"],
        ["cancel", "7"],
        ["rentals", "7"],
        ["reconcile"],
        ["resolve", HOSTILE, "--not-made"],
    ):
        code, out, err = run(capsys, *arguments)
        assert code in (0, 1, 2, 3, 4), arguments
        assert is_harmless(out + err), arguments
        # One line for each row and one above them: none is forged.
        assert len(out.splitlines()) <= 4, arguments


@pytest.mark.slow
def test_a_terminal_without_all_letters_is_written_to(environment: Simulator) -> None:
    body = '[{"service_id": 7, "name": "Wäts中", "price": 1}]'
    path = "services/temporary/"
    environment.add_fault(Fault("error_before", path=path, status=200, body=body, times=None))
    for encoding in ("ascii", "latin-1"):
        given = os.environ | {"PYTHONIOENCODING": encoding, "LANG": "C"}
        command = [*COMMAND, "services", "temporary"]
        done = subprocess.run(command, env=given, capture_output=True, encoding="latin-1", check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "ts?" in done.stdout


@pytest.mark.slow
def test_who_stops_reading_is_left_in_silence_and_a_full_disk_is_named(environment: Simulator) -> None:
    with subprocess.Popen(
        [*COMMAND, "services", "temporary"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as gone:
        assert gone.stdout is not None
        assert gone.stderr is not None
        gone.stdout.close()
        assert (gone.wait(30), gone.stderr.read()) == (141, b"")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "balance"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_table_is_complete_on_a_narrow_terminal(
    environment: Simulator,
    hook: SmsVerifyHook,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phone = hook.order("rental", service="WhatsApp", duration=3).phone or "-"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    assert phone in run(capsys, "rentals")[1]


@pytest.mark.slow
def test_a_terminal_shows_how_a_wait_goes_on(environment: Simulator, hook: SmsVerifyHook) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    master, slave = pty.openpty()
    process = subprocess.Popen([*COMMAND, "wait", str(order_id)], stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    shown = b""
    while b" left" not in shown or b"waiting: 1" not in shown:
        shown += os.read(master, 1000)
    environment.deliver_sms(order_id, otp="123456")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"123456\n")
    assert b"123456" not in shown
    os.close(master)


@pytest.mark.parametrize("seconds", ["nan", "inf"])
@pytest.mark.parametrize("command", [["top", "--every"], ["wait", "5", "--timeout"]], ids=["top", "wait"])
def test_a_time_that_is_none_is_refused_on_a_terminal_too(
    command: list[str], seconds: str, environment: Simulator
) -> None:
    master, slave = pty.openpty()
    done = subprocess.run([*COMMAND, *command, seconds], stdout=slave, stderr=slave, timeout=60, check=False)
    os.close(slave)
    shown = os.read(master, 100_000)
    os.close(master)
    assert done.returncode == 2
    assert b"Traceback" not in shown
    assert environment.requests() == []


def test_a_command_in_the_background_does_not_draw_on_the_terminal(
    environment: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    environment.deliver_sms(order_id, otp="123456")
    shell = (
        "import fcntl, os, subprocess, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "sys.exit(subprocess.call(sys.argv[1:], preexec_fn=os.setpgrp))"
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", shell, *COMMAND, "wait", str(order_id)],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        start_new_session=True,
    )
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"123456\n")
    os.write(slave, b"end")
    shown = b""
    while b"end" not in shown:
        shown += os.read(master, 1000)
    assert shown == b"end"
    os.close(slave)
    os.close(master)


def test_an_overview_is_printed_once_and_top_needs_a_terminal(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    order_id = as_json(capsys, "order", "temporary", "--service", "WhatsApp", "--key", "k")["order_id"]
    run(capsys, "balance")
    requests = environment.stats().requests
    code, out, err = run(capsys, "overview")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert any(line.split()[:3] == ["Wallet", "(seen", "0"] and "49.60 USD" in line for line in lines)
    assert any(line.startswith(f"{order_id}  +1") and "0.40" in line for line in lines)
    assert as_json(capsys, "overview")["orders"]["rows"][0]["order_id"] == order_id
    code, out, err = run(capsys, "top")
    assert (code, out) == (2, "")
    assert "smsverify overview" in err
    assert environment.stats().requests == requests


def test_top_shows_the_account_on_a_terminal_until_it_is_interrupted(environment: Simulator) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
    process = subprocess.Popen([*COMMAND, "top", "--every", "0.2"], stdout=slave, stderr=slave, env=variables)
    os.close(slave)
    shown = b""

    def has_shown() -> bool:
        nonlocal shown
        with contextlib.suppress(OSError):
            shown += os.read(master, 65_536)
        return b"Waiting for a code" in shown and shown.count(b"from the records") >= 2

    eventually(has_shown, "top shows the account twice")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    os.close(master)
    assert environment.stats().requests == 0
