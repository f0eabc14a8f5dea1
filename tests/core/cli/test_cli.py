"""The command line: results on standard output, the rest on standard error, and exit codes."""

from __future__ import annotations

import json
import logging
import re
import shlex
import signal
import subprocess
import sys

import pytest
from rigs import eventually
from rigs.bulk import fill_history
from rigs.commands import COMMAND, as_json, run

from smsverify._version import __version__
from smsverify.hook import SmsVerifyHook
from smsverify.overview_tables import FIRST_STEPS
from smsverify.simulator import Fault, Simulator


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


def test_the_command_that_goes_on_with_a_renewal_pays_nothing_twice(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    order_id = as_json(capsys, "order", "rent-1day", "--service", "Tinder")["order_id"]
    environment.add_fault(Fault("lost_answer", "order/*/renew/"))
    environment.add_fault(Fault("error_before", "order/*/status/", after=1, times=None))
    code, _, err = run(capsys, "renew", str(order_id), "--max-price", "5")
    named = re.search("`smsverify (renew [^`]*)` goes on with it, and pays nothing twice", err)
    assert code == 1
    assert named is not None
    environment.clear_faults()
    for _ in range(2):
        assert run(capsys, *shlex.split(named[1]))[0] == 0
        assert environment.order(order_id).renewals == 1


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
        (["--keep"], "pending", "is not cancelled. Wait again, or cancel it: `smsverify wait"),
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


def test_a_person_says_what_became_of_a_purchase(
    environment: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.add_fault(Fault("reset", path="order/temporary/"))
    assert run(capsys, "order", "temporary", "--service", "WhatsApp", "--key", "k")[0] == 1
    assert run(capsys, "resolve", "k", "--order", "999")[0] == 2
    assert run(capsys, "resolve", "k", "--not-made")[0] == 0
    assert run(capsys, "resolve", "k", "--not-made")[0] == 2
    assert run(capsys, "order", "temporary", "--service", "WhatsApp", "--key", "k")[0] == 0


def test_a_person_says_that_a_refund_has_come(
    environment: Simulator, hook: SmsVerifyHook, capsys: pytest.CaptureFixture[str]
) -> None:
    hook.get_balance()
    order_id = hook.order("temporary", service="WhatsApp").order_id
    paid = environment.balance()
    hook.cancel(order_id)
    environment.set_balance(paid)
    hook.reconcile()
    assert run(capsys, "resolve", "k", "--refunded", str(order_id))[0] == 2
    assert run(capsys, "resolve", "--refunded", str(order_id)) == (0, f"order {order_id} is refunded\n", "")
    assert run(capsys, "resolve", "--refunded", str(order_id))[0] == 2


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_setting_of_the_environment_that_is_not_allowed_is_named_as_there(
    environment: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMSVERIFY_RATE_LIMIT", "many")
    code, _, err = run(capsys, "balance")
    assert code == 2
    assert "SMSVERIFY_RATE_LIMIT" in err


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


@pytest.mark.slow
def test_a_limit_of_renew_expiring_is_for_one_renewal_and_a_run_budget_for_one_command(
    environment: Simulator,
    hook: SmsVerifyHook,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    order_ids = [hook.order("rent-1day", service="Tinder", key=f"rental {n}").order_id for n in range(2)]
    for order_id in order_ids:
        environment.set_time_left(order_id, 3600)
    command = ["renew-expiring", "--within", "14400", "--max-price", "1.20"]
    monkeypatch.setenv("SMSVERIFY_RUN_BUDGET", "1.50")
    ends = [subprocess.run([*COMMAND, *command], capture_output=True, check=False) for _ in range(2)]
    assert [end.returncode for end in ends] == [4, 0]
    assert [environment.order(order_id).renewals for order_id in order_ids] == [1, 1]
    help = " ".join(run(capsys, "renew-expiring", "--help")[1].replace("│", " ").split())
    assert "The most that one renewal may cost, in USD. SMSVERIFY_RUN_BUDGET limits the whole run." in help


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


@pytest.mark.slow
def test_commands_load_what_they_use(environment: Simulator) -> None:
    assert not loaded_by("--version") & {"typer", "rich", "pydantic", "requests", "sqlalchemy"}
    assert not loaded_by("order", "--help") & {"requests", "sqlalchemy", "starlette"}
    assert not loaded_by("balance") & {"starlette", "uvicorn", "asyncpg", "anyio"}


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
