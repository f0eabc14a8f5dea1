"""The command line: results on standard output, the rest on standard error, exit codes, and ways to leave."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest
from rigs import API_KEY, eventually
from rigs.bulk import fill_history

from smsverify._version import __version__
from smsverify.cli import main
from smsverify.hook import SmsVerifyHook
from smsverify.overview_tables import FIRST_STEPS
from smsverify.simulator import Fault, Simulator

COMMAND = [sys.executable, "-m", "smsverify"]


@pytest.fixture
def environment(simulator: Simulator, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    """The simulator, with the environment pointing at it."""
    for name, value in simulator.environment(store_url).items():
        monkeypatch.setenv(name, value)
    return simulator


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert API_KEY not in captured.out + captured.err
    return code, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_life_of_an_order(environment: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "balance")[:2] == (0, "50.00 USD\n")
    order = as_json(
        capsys, "order", "temporary", "--service", "WhatsApp", "--max-price", "0.40", "--key", "k"
    )
    order_id = str(order["order_id"])
    assert as_json(capsys, "order", "temporary", "--service", "WhatsApp", "--key", "k") == order
    assert run(capsys, "status", order_id)[1].split()[-1] == "pending"
    environment.deliver_sms(int(order_id), otp="123456")
    assert run(capsys, "wait", order_id)[:2] == (0, "123456\n")
    assert "123456" not in run(capsys, "status", order_id)[1]
    assert run(capsys, "cancel", order_id)[:2] == (0, f"order {order_id}  completed\n")
    assert [row["order_id"] for row in as_json(capsys, "orders")] == [int(order_id)]
    assert as_json(capsys, "rate-limit")["limit"] == 60
    assert as_json(capsys, "store", "check")["schema"] >= 1


def test_a_command_leaves_logging_as_it_was(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    run(capsys, "balance", "--verbose")
    run(capsys, "cancel", "1")
    assert (root.level, root.handlers) == before


@pytest.mark.parametrize("product", ["temporary", "rental", "esim", "global"])
def test_what_can_be_ordered(
    product: str, environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "services", product)
    assert (code, len(out.splitlines()) > 3) == (0, True)
    assert as_json(capsys, "services", product)
    if product == "global":
        assert "1.10" in run(capsys, "services", product, "--country", "Germany")[1].replace("1.1 ", "1.10 ")


def test_a_rental_is_renewed_and_a_secret_is_shown_on_request_only(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    order = as_json(capsys, "order", "rental", "--service", "WhatsApp", "--duration", "3")
    assert run(capsys, "renew", str(order["order_id"]), "--max-price", "4")[0] == 0
    _, out, _ = run(capsys, "order", "esim", "--plan", "USA 1GB / 7 days", "--key", "e", "--json")
    secret = environment.orders()[-1].activation_code or ""
    assert secret not in out
    assert secret in run(capsys, "order", "esim", "--plan", "USA 1GB / 7 days", "--key", "e", "--reveal")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["order", "rental", "--service", "WhatsApp", "--duration", "7"], 2, "duration"),
        (["order", "temporary", "--service", "WhatsApp", "--max-price", "0.1"], 1, "max_price"),
        (["order", "temporary", "--service", "WhatsAp"], 1, "WhatsApp"),
        (["order", "sms"], 2, "product"),
        (["status", "abc"], 2, "order_id"),
        (["status", "999"], 1, "Order not found"),
        (["wait", "999", "--timeout", "-1"], 2, "timeout"),
        (["balance", "--base-url", "http://sms.example"], 2, "base_url"),
        (["balance", "--store-url", "mysql://u:geheim@h/x"], 2, "store_url"),
        (["store", "check", "--store-url", "sqlite:////proc/x/y.db"], 1, "store"),
    ],
)
def test_what_goes_wrong_has_a_code_and_one_line(
    arguments: list[str],
    code: int,
    text: str,
    environment: Simulator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    got, out, err = run(capsys, *arguments)
    assert (got, out) == (code, "")
    assert text in err
    assert "geheim" not in err
    assert len(err.splitlines()) == 1


def test_no_code_in_time_is_a_code_of_its_own(
    environment: Simulator, hook: SmsVerifyHook, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, status, said in (
        (["--keep"], "pending", "is not cancelled. `smsverify wait"),
        ([], "cancelled", "cancelled for a refund of 0.40 USD"),
    ):
        order_id = hook.order("temporary", service="WhatsApp").order_id
        code, _, err = run(capsys, "wait", str(order_id), "--timeout", "0.1", *options)
        assert (code, environment.order(order_id).status) == (3, status)
        assert said in err


def test_a_reconciliation_says_what_it_finds_and_its_exit_code_is_for_schedulers(
    environment: Simulator, hook: SmsVerifyHook, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "reconcile")[0] == 0
    order_id = hook.order("temporary", service="WhatsApp").order_id
    environment.deliver_sms(order_id, otp="123456")
    code, out, _ = run(capsys, "reconcile", "--cancel-after", "0")
    assert code == 4
    assert str(order_id) in out
    assert "123456" not in out
    code, out, _ = run(capsys, "reconcile", "--cancel-after", "0", "--json")
    assert (code, json.loads(out)["leaks"][0]["order_id"]) == (4, order_id)


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


def test_a_person_says_what_became_of_a_purchase(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.add_fault(Fault("reset", path="order/temporary/"))
    assert run(capsys, "order", "temporary", "--service", "WhatsApp", "--key", "k")[0] == 1
    assert run(capsys, "resolve", "k", "--order", "999")[0] == 2
    assert run(capsys, "resolve", "k", "--not-made")[0] == 0
    assert run(capsys, "resolve", "k", "--not-made")[0] == 2
    assert run(capsys, "order", "temporary", "--service", "WhatsApp", "--key", "k")[0] == 0


def test_a_budget_is_kept_on_the_command_line_too(
    environment: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSVERIFY_DAILY_BUDGET", "0.50")
    order = ("order", "temporary", "--service", "WhatsApp")
    assert run(capsys, *order)[0] == 0
    assert run(capsys, *order)[0] == 1


@pytest.mark.parametrize("arguments", [[], ["dance"], ["resolve", "k"], ["order"], ["wait"], ["store"]])
def test_a_wrong_command_gets_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Usage: smsverify" in err


def test_without_a_key_it_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "balance")
    assert (code, "SMSVERIFY_API_KEY" in err) == (2, True)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"smsverify {__version__}\n", "")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_a_wait_that_is_interrupted_leaves_at_once_and_the_order_alone(
    sent: signal.Signals, code: int, environment: Simulator, hook: SmsVerifyHook
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    process = subprocess.Popen(
        [*COMMAND, "wait", str(order_id)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: environment.order(order_id).status_requests > 1, "polling")
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert environment.order(order_id).status == "pending"


def test_a_wait_for_a_certain_message(
    environment: Simulator, hook: SmsVerifyHook, capsys: pytest.CaptureFixture[str]
) -> None:
    order_id = hook.order("rental", service="WhatsApp", duration=3).order_id
    environment.deliver_sms(order_id, text="Foo: 11111")
    first = as_json(capsys, "wait", str(order_id))
    environment.deliver_sms(order_id, text="Foo: 22222")
    wanted = ["--after", first["received_at"], "--pattern", "Foo: ([0-9]+)"]
    assert run(capsys, "wait", str(order_id), *wanted)[:2] == (0, "22222\n")
    code, _, err = run(capsys, "wait", str(order_id), "--after", "yesterday")
    assert (code, "after" in err) == (2, True)


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


def test_an_sms_without_a_code_is_no_code_and_is_printed_on_request(
    environment: Simulator, hook: SmsVerifyHook, capsys: pytest.CaptureFixture[str]
) -> None:
    order_id = hook.order("temporary", service="WhatsApp").order_id
    body = {"order_id": order_id, "status": "completed", "message": "Hello\x1b[2J\nthere"}
    environment.add_fault(
        Fault("error_before", path="order/*/status/", status=200, body=json.dumps(body), times=None)
    )
    code, out, err = run(capsys, "wait", str(order_id), "--timeout", "10")
    assert (code, out) == (3, "")
    assert "--message" in err
    assert "Hello" not in err
    assert run(capsys, "wait", str(order_id), "--message")[:2] == (0, "Hello\\x1b[2J there\n")
    assert as_json(capsys, "wait", str(order_id))["otp"] is None


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


def test_a_setting_of_the_environment_that_is_not_allowed_is_named_as_there(
    environment: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSVERIFY_RATE_LIMIT", "many")
    code, _, err = run(capsys, "balance")
    assert code == 2
    assert "SMSVERIFY_RATE_LIMIT" in err


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


@pytest.mark.parametrize("command", [[], ["order"], ["wait"], ["store"], ["store", "check"], ["simulate"]])
def test_the_help_needs_no_settings_and_names_the_common_options_apart(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *command, "--help")
    assert (code, err) == (0, "")
    assert "sage: smsverify" in out
    assert ("Common options" in out) == (command not in ([], ["store"], ["simulate"]))
    assert "bool" not in out.lower()


def test_rentals_are_kept_from_cron(
    environment: Simulator, hook: SmsVerifyHook, capsys: pytest.CaptureFixture[str]
) -> None:
    order_id = hook.order("rent-1day", service="Tinder").order_id
    assert str(order_id) in run(capsys, "renew-expiring", "--within", "172800", "--dry-run")[1]
    assert environment.order(order_id).renewals == 0
    environment.set_time_left(order_id, 3600)
    assert run(capsys, "renew-expiring", "--within", "14400", "--max-price", "0.01")[0] == 4
    assert environment.order(order_id).renewals == 0
    code, out, _ = run(capsys, "renew-expiring", "--within", "14400")
    assert (code, environment.order(order_id).renewals) == (0, 1)
    assert str(order_id) in out


def loaded_by(*arguments: str) -> set[str]:
    """The top-level modules that a command has loaded."""
    code = (
        "import sys; from smsverify.cli import main; main(sys.argv[1:]); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_commands_load_what_they_use(environment: Simulator) -> None:
    assert not loaded_by("--version") & {"typer", "rich", "pydantic", "requests", "sqlalchemy"}
    assert not loaded_by("order", "--help") & {"requests", "sqlalchemy", "starlette"}
    assert not loaded_by("balance") & {"starlette", "uvicorn", "asyncpg", "anyio"}


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


def test_an_overview_of_nothing_says_how_to_begin(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "balance")
    _, out, _ = run(capsys, "overview")
    for command in ("simulate", "balance", "order temporary", "wait"):
        assert f"  smsverify {command} " in out
    assert "Orders" not in out
    as_json(capsys, "order", "temporary", "--service", "WhatsApp", "--key", "k")
    assert "smsverify simulate" not in run(capsys, "overview")[1]


def test_the_commands_to_begin_with_work(environment: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    (order,) = (line.split() for line in FIRST_STEPS if "smsverify order" in line)
    bought = as_json(capsys, *order[1:])
    environment.deliver_sms(bought["order_id"], otp="545123")
    assert "545123" in run(capsys, "wait", str(bought["order_id"]))[1]


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


def test_old_rows_are_counted_first_and_removed_with_yes(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = SmsVerifyHook()
    fill_history(hook, 50, days=200.0)
    counted = as_json(capsys, "store", "prune", "--older-than", "100")
    assert (counted["dry_run"], counted["rows"]["smsverify_messages"] > 10) == (True, True)
    code, out, _ = run(capsys, "store", "prune", "--older-than", "100", "--yes")
    assert (code, out.splitlines()[0].endswith("are removed")) == (0, True)
    left = as_json(capsys, "store", "prune", "--older-than", "100")
    assert not any(left["rows"].values())
    assert run(capsys, "store", "prune", "--older-than", "0")[0] == 2
