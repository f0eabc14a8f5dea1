"""What happens on an account arrives at OpenTelemetry, once, and without a secret."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rigs import API_KEY, eventually, in_a_day
from rigs.metrics import Reported, of_new_account
from rigs.purchases import buy_number
from rigs.receiver import SECRET, TEXT, payload, receiving

from smsverify import errors, metrics
from smsverify._purchases.run_context import RunContext
from smsverify._store.store import Store, open_store
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Fault, Simulator

MakeHook = Callable[..., SmsVerifyHook]
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


@pytest.fixture
def account() -> tuple[str, Reported]:
    return of_new_account()


@pytest.fixture
def reported(account: tuple[str, Reported]) -> Reported:
    return account[1]


@pytest.fixture
def hook(
    simulator: Simulator, make_hook: MakeHook, any_store_url: str, account: tuple[str, Reported]
) -> SmsVerifyHook:
    return make_hook(simulator, any_store_url, account=account[0], callback_secrets=[SECRET])


# ------------------------------------------------------------------ what is reported


def test_a_purchase_its_code_and_the_wallet(
    simulator: Simulator, hook: SmsVerifyHook, reported: Reported
) -> None:
    order_id = buy_number(hook)
    simulator.deliver_sms(order_id, otp="481516")
    assert hook.wait_for_otp(order_id, 60).otp == "481516"
    assert hook.wait_for_otp(order_id, 60).otp == "481516"
    hook.get_status(order_id)
    hook.get_balance()
    names = ("purchases.bought", "spent", "messages", "codes", "time_to_code", "timeouts", "balance")
    assert reported.values(*(f"smsverify.{name}" for name in names)) == [1, 0.4, 1, 1, 1, 0, 49.6]
    ((_, tags, _),) = reported.points("smsverify.purchases.bought")
    assert tags | {"account": ""} == {
        "account": "", "framework": "python", "product": "temporary", "service": "WhatsApp",
    }  # fmt: skip
    ((_, _, point),) = reported.points("smsverify.time_to_code")
    assert point.sum > 0


def test_a_purchase_that_is_asked_for_again_counts_once(hook: SmsVerifyHook, reported: Reported) -> None:
    assert buy_number(hook, key="k") == buy_number(hook, key="k")
    assert reported.values("smsverify.purchases.bought", "smsverify.spent") == [1, 0.4]


def test_a_deployment_is_a_tag_of_its_purchases(
    simulator: Simulator, make_hook: MakeHook, store_url: str, account: tuple[str, Reported]
) -> None:
    buy_number(make_hook(simulator, store_url, account=account[0], namespace="the test, of course"))
    for name in ("smsverify.purchases.bought", "smsverify.spent"):
        ((_, tags, _),) = account[1].points(name)
        assert tags["namespace"] == "the_test_of_course"


def test_a_time_out_and_the_refund_that_follows(hook: SmsVerifyHook, reported: Reported) -> None:
    order_id = buy_number(hook)
    with pytest.raises(errors.WaitTimeoutError) as caught:
        hook.wait_for_otp(order_id, 0)
    assert caught.value.cancelled
    assert reported.values("smsverify.timeouts", "smsverify.refunds") == [1, 0]
    for _ in range(2):
        hook.list_orders()
    assert reported.values("smsverify.refunds", "smsverify.refunded", "smsverify.codes") == [1, 0.4, 0]


def test_an_order_of_others_is_no_refund(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, tmp_path: Path, reported: Reported
) -> None:
    others = make_hook(simulator, f"sqlite:///{tmp_path / 'others.db'}")
    hook.list_orders()
    others.cancel(buy_number(others))
    hook.list_orders()
    assert reported.values("smsverify.refunds") == [0]


def test_a_refusal_and_a_lost_answer_that_is_found(
    simulator: Simulator, hook: SmsVerifyHook, reported: Reported
) -> None:
    names = [f"smsverify.purchases.{state}" for state in ("bought", "rejected", "unknown")]
    simulator.add_fault(Fault("out_of_stock", path="order/temporary/"))
    with pytest.raises(errors.SmsVerifyError):
        buy_number(hook, key="k")
    assert reported.values(*names) == [0, 1, 0]
    simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
    simulator.add_fault(Fault("error_before", path="orders/", times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        buy_number(hook, key="k")
    assert reported.values(*names, "smsverify.spent") == [0, 1, 1, 0]
    simulator.clear_faults()
    for _ in range(2):
        hook.reconcile()
        buy_number(hook, key="k")
    assert reported.values(*names, "smsverify.spent") == [1, 1, 1, 0.4]


def test_what_is_never_sent_is_no_refusal(hook: SmsVerifyHook, reported: Reported) -> None:
    with pytest.raises(errors.SpendingLimitError):
        in_a_day(hook, "0.10").order("temporary", service="WhatsApp")
    with pytest.raises(errors.PriceLimitError):
        buy_number(hook, max_price="0.10")
    assert reported.points("smsverify.purchases.rejected") == []


def test_a_renewal(simulator: Simulator, hook: SmsVerifyHook, reported: Reported) -> None:
    order = hook.order("rental", service="WhatsApp", duration=3)
    for _ in range(2):
        hook.renew(order.order_id, key="r")
    assert reported.values("smsverify.renewals.bought") == [1]
    assert reported.values("smsverify.spent") == [float(50 - simulator.balance())]
    ((_, tags, _),) = reported.points("smsverify.renewals.bought")
    assert (tags["product"], tags["service"]) == ("rental", "WhatsApp")


def test_a_renewal_that_is_refused_and_one_whose_answer_is_lost(
    simulator: Simulator, hook: SmsVerifyHook, reported: Reported
) -> None:
    order_id = hook.order("rental", service="WhatsApp", duration=3).order_id
    spent = float(50 - simulator.balance())
    names = [f"smsverify.renewals.{state}" for state in ("bought", "rejected", "unknown")]
    simulator.add_fault(Fault("out_of_stock", path="order/*/renew/"))
    with pytest.raises(errors.SmsVerifyError):
        hook.renew(order_id, key="r")
    assert reported.values(*names, "smsverify.spent") == [0, 1, 0, spent]
    simulator.add_fault(Fault("lost_answer", path="order/*/renew/"))
    simulator.add_fault(Fault("error_before", path="order/*/status/", after=1, times=None))
    with pytest.raises(errors.PurchaseUnknownError):
        hook.renew(order_id, key="r")
    assert reported.values(*names, "smsverify.spent") == [0, 1, 1, spent]


def test_every_429(simulator: Simulator, hook: SmsVerifyHook, reported: Reported) -> None:
    simulator.add_fault(Fault("rate_limited", path="balance/", times=2))
    hook.get_balance()
    assert reported.values("smsverify.rate_limit.refusals") == [2] == [hook.rate_limit().refusals]


@pytest.mark.slow
def test_the_queue_for_the_rate_limit(
    simulate: Callable[..., Simulator], make_hook: MakeHook, store_url: str, account: tuple[str, Reported]
) -> None:
    simulator = simulate(rate_limit=2)
    hook = make_hook(simulator, store_url, account=account[0], rate_limit=2)
    hook.upgrade_store()
    seen = []
    threads = [Thread(target=hook.get_balance) for _ in range(5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(account[1].values("smsverify.queue.length", "smsverify.queue.age"))
        threads[0].join(0.01)
    assert max(length for length, _ in seen) >= 1
    assert max(age for _, age in seen) > 0
    eventually(lambda: account[1].values("smsverify.queue.length") == [0], "an empty queue")


@pytest.mark.slow
@pytest.mark.usefixtures("patient_receiver")
def test_callbacks(simulator: Simulator, hook: SmsVerifyHook, reported: Reported) -> None:
    order = hook.order("temporary", service="WhatsApp")
    with receiving([hook]) as receiver:
        sms = payload(order.order_id, order.phone)
        for _ in range(2):
            assert receiver.post(sms) == 200
        assert receiver.post(payload(order.order_id, order.phone, "no code"), "/api/callback") == 200
        assert receiver.post(payload(order.order_id + 1, order.phone)) == 200
        assert receiver.post({"event": "wallet_deposit"}, f"/callback/{SECRET}/wallet") == 200
        everywhere = Reported(lambda tags: "account" not in tags)
        before = everywhere.values("smsverify.callbacks.refused")[0]
        assert receiver.post(sms, "/callback/another-secret-of-16") == 404
        assert receiver.post(b"{", f"/callback/{SECRET}") == 400
    kinds = ("verified", "unverified", "early", "other")
    assert reported.values(*(f"smsverify.callbacks.{kind}" for kind in kinds)) == [1, 1, 1, 1]
    assert reported.values("smsverify.messages", "smsverify.codes") == [1, 1]
    assert everywhere.values("smsverify.callbacks.refused")[0] == before + 2
    assert {tags["status"] for _, tags, _ in everywhere.points("smsverify.callbacks.refused")} >= {
        "404",
        "400",
    }


@pytest.mark.slow
def test_the_findings_of_a_reconciliation(
    simulator: Simulator, hook: SmsVerifyHook, make_hook: MakeHook, tmp_path: Path, reported: Reported
) -> None:
    buy_number(make_hook(simulator, f"sqlite:///{tmp_path / 'others.db'}"))
    simulator.add_fault(Fault("error_before", path="order/*/cancel/", times=None))
    for key in "ab":
        with pytest.raises(errors.SmsVerifyError):
            hook.cancel(buy_number(hook, key=key))
    hook.reconcile()
    found = {name: point.value for name, _, point in reported.points() if ".findings." in name}
    assert found == {
        "smsverify.findings.unknown": 0,
        "smsverify.findings.to_cancel": 2,
        "smsverify.findings.leaks": 0,
        "smsverify.findings.missing_refunds": 0,
        "smsverify.findings.foreign": 1,
        "smsverify.findings.overcharged": 0,
    }


@pytest.mark.usefixtures("patient_receiver")
def test_no_tag_holds_a_secret_or_names_an_order(
    simulator: Simulator, hook: SmsVerifyHook, reported: Reported
) -> None:
    order = hook.order("temporary", service="WhatsApp")
    with receiving([hook]) as receiver:
        assert receiver.post(payload(order.order_id, order.phone)) == 200
    hook.wait_for_otp(order.order_id, 60)
    hook.reconcile()
    digits = re.sub(r"\D", "", str(order.phone))
    everything = Reported(lambda tags: True).points()
    assert len(everything) > 10
    for name, tags, _ in everything:
        text = f"{name} {tags}"
        for secret in (API_KEY, hook.settings.key_id, SECRET, TEXT, "545123", digits):
            assert secret not in text
        assert set(tags) <= {"account", "framework", "namespace", "product", "service", "status"}


# ------------------------------------------------------------------ when it is reported


def test_what_a_transaction_leaves_for_later_is_done_when_it_is_committed(any_store_url: str) -> None:
    store, done = open_store(any_store_url), list[str]()
    with store.write() as connection:
        store.after_commit(connection, lambda: done.append("first"))
        store.after_commit(connection, lambda: done.append("second"))
        assert done == []
    assert done == ["first", "second"]

    def fail() -> None:
        with store.write() as connection:
            store.after_commit(connection, lambda: done.append("never"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.write():
        pass
    assert done == ["first", "second"]


def test_a_purchase_whose_commit_is_made_again_counts_once(
    hook: SmsVerifyHook, reported: Reported, monkeypatch: pytest.MonkeyPatch
) -> None:
    surely = Store.surely

    def twice(self: Store, record: Callable[[], Any], *, patience: float) -> Any:
        surely(self, record, patience=patience)
        return surely(self, record, patience=patience)

    monkeypatch.setattr(Store, "surely", twice)
    buy_number(hook)
    assert reported.values("smsverify.purchases.bought", "smsverify.spent") == [1, 0.4]


class Broken:
    """Metrics that cannot be reported."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, metric: metrics.Metric, value: float, tags: Mapping[str, str]) -> None:
        self.calls += 1
        raise OSError("no route to the collector")

    gauge = timing = count


class BrokenRun(RunContext):
    def __init__(self, broken: Broken) -> None:
        self._broken = broken

    def metrics(self) -> Broken:
        return self._broken


@pytest.mark.slow
def test_metrics_that_fail_break_nothing_and_are_named_once(
    simulator: Simulator,
    make_hook: MakeHook,
    store_url: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "_said", type(metrics._said)())
    broken = Broken()
    hook = make_hook(simulator, store_url, run_context=BrokenRun(broken))
    order_id = buy_number(hook)
    simulator.deliver_sms(order_id, otp="481516")
    assert hook.wait_for_otp(order_id, 60).otp == "481516"
    hook.reconcile()
    assert simulator.orders()[0].order_id == order_id
    assert broken.calls > 10
    said = [line for line in caplog.messages if "no route to the collector" in line]
    assert len(said) == 1
    assert said[0].startswith("The metric smsverify.")


@pytest.mark.slow
def test_without_opentelemetry_nothing_is_reported() -> None:
    code = (
        "import importlib.machinery, sys\n"
        "find = importlib.machinery.PathFinder.find_spec\n"
        "hide = lambda name, *rest: None if name == 'opentelemetry' else find(name, *rest)\n"
        "importlib.machinery.PathFinder.find_spec = hide\n"
        "from smsverify.wings import RunContext\n"
        "print(RunContext().meter().is_on, 'opentelemetry' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


# ------------------------------------------------------------------ their names


def test_the_page_names_every_metric() -> None:
    rows = re.findall(
        r"^\| `(smsverify\.[a-z0-9_.]+)` \| (\w+) \| ?([^|]*?) ?\|", PAGE.read_text(), re.MULTILINE
    )
    kinds = {metrics.Counter: "counter", metrics.Gauge: "gauge", metrics.Timing: "timing"}
    units = {"s": "seconds", "USD": "USD"}
    assert sorted(rows) == sorted(
        (metric.name, kinds[type(metric)], units.get(metric.unit, "")) for metric in metrics.METRICS
    )


def test_opentelemetry_has_units_and_descriptions(hook: SmsVerifyHook, reported: Reported) -> None:
    hook.get_balance()
    balance = reported.instrument("smsverify.balance")
    assert (balance.unit, balance.description) == ("USD", metrics.BALANCE.about)
