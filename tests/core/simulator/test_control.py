"""Scripting a simulator: from the same process, from another one, from the command line and from pytest."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from smsverify import simulator as package
from smsverify.simulator import (
    Catalogue,
    Control,
    Fault,
    ProductSettings,
    Settings,
    Simulator,
    SimulatorControl,
    SimulatorError,
)
from smsverify.simulator.command import add_arguments, run

CORE = Path(package.__file__).parents[2]


def buy(simulator: SimulatorControl, product: str = "temporary", **body: Any) -> int:
    answer = requests.post(
        f"{simulator.url}/api/v1/order/{product}/",
        json=body or {"service_id": 1012},
        headers={"Authorization": f"Bearer {simulator.api_key}"},
        timeout=30,
    ).json()
    return int(answer.get("data", answer)["order_id"])


@pytest.fixture(params=["in process", "over HTTP"])
def control(request: pytest.FixtureRequest) -> Iterator[SimulatorControl]:
    with Simulator(sms_delay="never", speed=10) as simulator:
        yield simulator if request.param == "in process" else Control(simulator.url + "/")


def test_every_verb_works_in_process_and_over_http(control: SimulatorControl) -> None:
    order_id = buy(control)
    control.deliver_sms(order_id, otp="012345", sender="me")
    order = control.order(order_id)
    assert (order.otp, order.message, order.sender) == ("012345", "Your WhatsApp code is 012345", "me")
    assert (order.price, order.service_id, order.status) == (Decimal("0.40"), "1012", "completed")
    assert control.orders() == [order]
    control.set_balance("7.10")
    control.deposit(Decimal("0.90"))
    assert control.balance() == Decimal("8.00")
    assert [m.kind for m in control.movements()] == ["start", "order", "adjustment", "deposit"]
    control.set_offer("temporary", "1012", price="0.55", stock=1)
    assert control.order(buy(control)).price == Decimal("0.55")
    control.set_offer("temporary", 1012, stock=None)
    control.set_time_left(458732, 0)
    assert control.order(458732).status == "cancelled"
    fault = Fault("slow_after", path="orders/", seconds=0.5, times=None)
    control.add_fault(fault)
    assert control.faults() == [fault]
    control.clear_faults()
    assert control.faults() == []
    assert control.stats().orders == len(control.requests()) == 2
    assert control.requests()[0].body == {"service_id": 1012}
    assert control.callbacks() == []
    assert (control.api_key, control.rate_period) == ("sim-key", 6.0)
    assert control.environment("sqlite:///x.db") == {
        "SMSVERIFY_API_KEY": "sim-key",
        "SMSVERIFY_BASE_URL": control.url,
        "SMSVERIFY_STORE_URL": "sqlite:///x.db",
        "SMSVERIFY_RATE_LIMIT": "60",
        "SMSVERIFY_RATE_PERIOD": "6",
    }


def test_settings_can_be_changed_while_it_runs_and_reset(control: SimulatorControl) -> None:
    before = control.settings()
    catalogue = Catalogue(temporary=[])
    control.configure(
        api_key="rotated",
        balance=Decimal("3.5"),
        sms_delay=(1, 2),
        catalogue=catalogue,
        products={"temporary": {"validity": 60}, "global": ProductSettings(30)},
        services={"PayPal": {"sender": "1"}},
    )
    changed = control.settings()
    assert (changed.api_key, changed.sms_delay, changed.catalogue) == ("rotated", (1.0, 2.0), catalogue)
    assert changed.products["temporary"] == ProductSettings(60)
    assert changed.products["global"] == ProductSettings(30)
    assert (changed.services["paypal"].sender, changed.services["paypal"].text) == (
        "1",
        "Your PayPal OTP is {otp}",
    )
    assert changed.services["uber"] == before.services["uber"]
    assert control.balance() == Decimal("3.5")
    with pytest.raises(SimulatorError, match="does not offer"):
        control.set_offer("temporary", 1012, stock=1)
    control.reset()
    assert control.settings() == before
    assert (control.balance(), control.orders(), control.requests()) == (Decimal(50), [], [])


def test_nonsense_is_refused_by_name_and_changes_nothing(control: SimulatorControl) -> None:
    before = control.settings()
    nonsense: list[tuple[str, Any]] = [
        ("sped", {"sped": 1}),
        ("speed", {"speed": 0}),
        ("balance", {"balance": "much"}),
        ("sms_delay", {"sms_delay": (5, 1)}),
        ("retry_after", {"retry_after": "soon"}),
        ("rate_limit", {"rate_limit": 0}),
        ("list_lag", {"list_lag": -1}),
        ("list_length", {"list_length": 0}),
        ("list_defects", {"list_defects": ["no_phones"]}),
        ("callback_url", {"callback_url": "example.org"}),
        ("products: unknown pager", {"products": {"pager": {"validity": 1}}}),
        ("products: temporary", {"products": {"temporary": {"valid": 1}}}),
        ("validity", {"products": {"temporary": {"validity": -1}}}),
        ("services: .*whatsap", {"services": {"whatsap": {"digits": 4}}}),
        ("text", {"services": {"whatsapp": {"text": "{code}"}}}),
        ("catalogue: unknown section", {"catalogue": {"pagers": []}}),
        ("catalogue: temporary", {"catalogue": {"temporary": [{"name": "X"}]}}),
    ]
    for field, changes in nonsense:
        with pytest.raises(SimulatorError, match=field):
            control.configure(**changes)
    for verb in (
        lambda: control.order(1),
        lambda: control.deliver_sms(1),
        lambda: control.set_time_left(1, 5),
        lambda: control.set_balance("much"),
        lambda: control.set_offer("temporary", "Nothing", price=1),
        lambda: control.set_offer("temporary", 1012, price_3days=1),
        lambda: control.set_offer("pager", 1012, price=1),
    ):
        with pytest.raises(SimulatorError):
            verb()
    assert control.settings() == before


def test_the_control_api_is_plain_http() -> None:
    with Simulator() as simulator:
        buy(simulator)
        state = requests.get(f"{simulator.url}/_sim/state", timeout=30).json()
        assert (state["balance"], state["stats"]["orders"]) == ("49.60", 1)
        fault = {"kind": "reset", "path": "orders/"}
        assert requests.post(f"{simulator.url}/_sim/add_fault", json=fault, timeout=30).status_code == 200
        assert [known.kind for known in simulator.faults()] == ["reset"]
        answer = requests.post(f"{simulator.url}/_sim/explode", timeout=30)
        assert answer.status_code == 400
        assert "unknown verb 'explode'" in answer.json()["error"]


def test_without_a_start_there_is_no_url() -> None:
    with pytest.raises(SimulatorError, match="context manager"):
        _ = Simulator().url


def test_what_is_public_is_documented() -> None:
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing):
            assert inspect.getdoc(thing), name
            for method, function in inspect.getmembers(thing, inspect.isfunction):
                assert method.startswith("_") or inspect.getdoc(function), f"{name}.{method}"


# The command


def command_line(*options: str) -> list[str]:
    code = (
        "import argparse, sys; from smsverify.simulator.command import add_arguments, run;"
        "parser = argparse.ArgumentParser(); add_arguments(parser); sys.exit(run(parser.parse_args()))"
    )
    return [sys.executable, "-c", code, *options]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_when_it_is_ready_and_ends_cleanly(number: int, tmp_path: Path) -> None:
    config = tmp_path / "settings.json"
    config.write_text(json.dumps({"balance": 1.5, "speed": 30, "products": {"temporary": {"sms_delay": 0}}}))
    options = ["--port", "0", "--json", "--speed", "60", "--config", str(config), "--api-key", "k"]
    process = subprocess.Popen(
        command_line(*options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CORE)},
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        control = Control(ready["url"])
        assert (ready["api_key"], ready["rate_period"], control.settings().speed) == ("k", 1.0, 60.0)
        order_id = buy(control)
        while not control.order(order_id).sms_count:
            time.sleep(0.01)
        code = control.order(order_id).otp
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, "")
    assert f"order {order_id}: SMS from WhatsApp arrived" in err
    assert code
    assert code not in err
    assert "Traceback" not in err


def test_the_command_is_quiet_when_asked_and_refuses_nonsense(tmp_path: Path) -> None:
    def outcome(*options: str) -> tuple[int, str]:
        done = subprocess.run(
            command_line(*options),
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(CORE)},
            check=False,
        )
        return done.returncode, done.stderr

    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert outcome("--sms-delay", "soon") == (
        2,
        "smsverify simulate: sms_delay: seconds, a (low, high) range, or \"never\", not 'soon'\n",
    )
    for options in (["--config", str(broken)], ["--config", str(tmp_path / "missing.json")]):
        code, err = outcome(*options)
        assert (code, err.count("\n")) == (2, 1)
    with Simulator() as simulator:
        code, err = outcome("--port", simulator.url.rpartition(":")[2])
        assert (code, "cannot listen" in err) == (1, True)


def test_the_options_reach_the_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = "--port 0 --quiet --balance 9 --sms-delay 5-7 --rate-limit 5 --rate-period 30 --seed 3"
    args = parser.parse_args([*options.split(), "--callback-url", "http://127.0.0.1:1/x"])
    seen: list[Settings] = []
    for blocking in ("signal", "pthread_sigmask", "sigwait"):
        monkeypatch.setattr(signal, blocking, lambda *_: None)
    real_stop = Simulator.stop

    def stop(simulator: Simulator) -> None:
        seen.append(simulator.settings())
        real_stop(simulator)

    monkeypatch.setattr(Simulator, "stop", stop)
    assert run(args) == 0
    settings = seen[0]
    assert (settings.balance, settings.sms_delay, settings.seed) == (Decimal(9), (5.0, 7.0), 3)
    assert (settings.rate_limit, settings.rate_period) == (5, 30.0)
    assert settings.callback_url == "http://127.0.0.1:1/x"
    assert capsys.readouterr().out.startswith("smsverify simulator ready: url=http://127.0.0.1:")


# The pytest plugin


@pytest.mark.slow
def test_the_fixtures_serve_a_test_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(
        """
import os, sys
import pytest

def test_nothing_is_loaded_before_a_fixture_is_used():
    ours = {name for name in sys.modules if name.startswith("smsverify.simulator")}
    assert ours == {"smsverify.simulator", "smsverify.simulator.pytest_plugin"}
    assert not {"http.server", "requests", "sqlalchemy", "pydantic"} & set(sys.modules)

def test_simulator(smsverify_simulator):
    assert smsverify_simulator.rate_period == 1.0
    assert "SMSVERIFY_API_KEY" not in os.environ

@pytest.mark.smsverify_simulator(balance="1.00", sms_delay="never")
class TestMarked:
    @pytest.mark.smsverify_simulator(balance="2.00")
    def test_environment(self, smsverify_env, smsverify_simulator, tmp_path):
        assert smsverify_env is smsverify_simulator
        assert (str(smsverify_env.balance()), smsverify_env.settings().sms_delay) == ("2.00", "never")
        assert os.environ["SMSVERIFY_BASE_URL"] == smsverify_env.url
        assert os.environ["SMSVERIFY_API_KEY"] == smsverify_env.api_key
        assert os.environ["SMSVERIFY_STORE_URL"].startswith(f"sqlite:///{tmp_path}")
        assert (os.environ["SMSVERIFY_RATE_LIMIT"], os.environ["SMSVERIFY_RATE_PERIOD"]) == ("60", "1")

def test_factory(smsverify_simulator_factory):
    one, two = smsverify_simulator_factory(), smsverify_simulator_factory(speed=10)
    assert one.url != two.url
    assert two.rate_period == 6.0
"""
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SMSVERIFY_")}
    plugin = ["-p", "smsverify.simulator.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-W", "error", *plugin, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(CORE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_test_of_the_users_reaches_no_real_wallet(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(
        """
import os, subprocess, sys
import pytest
from smsverify import InvalidRequestError, SmsVerifyHook

early = SmsVerifyHook("real-key", base_url="http://127.0.0.1:9", store_url=f"sqlite:///{os.getcwd()}/s.db")
assert early.settings.daily_budget == 0

def test_closed(smsverify_env, smsverify_simulator_factory):
    with pytest.raises(InvalidRequestError, match="SMSVERIFY_ONLY"):
        early.get_balance()
    assert SmsVerifyHook().get_balance().amount == 50
    assert SmsVerifyHook().settings.daily_budget is None
    assert os.environ["AIRFLOW_CONN_SMSVERIFY_DEFAULT"] == '{"conn_type": "smsverify"}'
    assert "AIRFLOW_CONN_PROD" not in os.environ
    for real in ("https://smsverificationservice.com", "http://127.0.0.1:9"):
        with pytest.raises(InvalidRequestError, match="SMSVERIFY_ONLY") as caught:
            SmsVerifyHook("real-key", base_url=real).order("temporary", service="WhatsApp")
        assert caught.value.field == "base_url"
    other = smsverify_simulator_factory(balance="7.00")
    assert SmsVerifyHook(other.api_key, base_url=other.url).get_balance().amount == 7
    code = "from smsverify import SmsVerifyHook; SmsVerifyHook(base_url='https://x.example').get_balance()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "SMSVERIFY_ONLY" in done.stderr

def test_open():
    assert os.environ["SMSVERIFY_DAILY_BUDGET"] == "0"
    assert "SMSVERIFY_ONLY" not in os.environ
"""
    )
    environment = {
        "PYTHONPATH": str(CORE),
        "HOME": str(tmp_path),
        "SMSVERIFY_DAILY_BUDGET": "0",
        "AIRFLOW_CONN_SMSVERIFY_DEFAULT": "smsverify://:real-key@smsverificationservice.com",
        "AIRFLOW_CONN_PROD": '{"conn_type": "smsverify", "password": "real-key"}',
        "http_proxy": "http://127.0.0.1:9",
    }
    plugin = ["-p", "smsverify.simulator.pytest_plugin", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, **environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_package_stands_alone_on_the_standard_library() -> None:
    code = """
import importlib, pkgutil, sys
import smsverify
before = set(sys.modules)
import smsverify.simulator as package
print([name for name in set(sys.modules) - before if name.startswith("smsverify.simulator.")])
for module in pkgutil.iter_modules(package.__path__):
    if module.name != "pytest_plugin":
        importlib.import_module(f"smsverify.simulator.{module.name}")
new = set(sys.modules) - before
print([name for name in new if name.partition(".")[0] not in {*sys.stdlib_module_names, "smsverify"}])
print([name for name in new if name.startswith("smsverify.") and not name.startswith("smsverify.simulator")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(CORE)},
        check=False,
    )
    assert done.stdout == "[]\n[]\n[]\n", done.stderr
