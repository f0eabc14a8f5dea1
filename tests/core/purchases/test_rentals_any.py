"""Whatever the rentals, clocks, prices, budgets and failures: no period is paid twice, no cap is passed, and
every rental that is due is renewed or named with its reason. All counts are the service's own."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from requests_mock import Mocker
from rigs import API_KEY
from rigs.damages import Damage, check_that_it_is_noticed, each_of
from rigs.money import Clock, Died
from rigs.money_draws import FAULTS
from rigs.money_world import LEASE, Hook, World, two_services

from smsverify._purchases import due
from smsverify._purchases.ledger import Ledger
from smsverify._purchases.rentals import Rentals
from smsverify._store.store import open_store
from smsverify._store.tables import purchases
from smsverify.errors import SmsVerifyError
from smsverify.reports import KeptRental, RentalsReport
from smsverify.simulator import SimulatedOrder

SOAK = bool(os.environ.get("SMSVERIFY_SOAK"))
EXAMPLES = 400 if SOAK else 20

HOUR = 3600.0
DAY = 24 * HOUR
SLACK = 30.0  # seconds by which ends may be known wrong: rounded, and asked for a moment earlier
LATE = 150.0  # seconds that the looks and waits of one run may take
KINDS: dict[str, dict[str, Any]] = {
    "day": {"product": "rent-1day", "service": "Tinder"},
    "month": {"product": "rent-30days", "service": "Instagram"},
    "three": {"product": "rental", "service": "WhatsApp", "duration": 3},
    "thirty": {"product": "rental", "service": "Telegram", "duration": 30},
}
PERIODS = {"rent-1day": DAY, "rent-30days": 30 * DAY}
PATHS = ["order/*/renew/", "order/*/renew/", "order/*/status/", "balance/", "services/**", "**"]
FAILURES = sorted(set(FAULTS) - {"list_lag", "status_lag", "provider_failure"})  # which are of purchases
rarely = st.sampled_from([False] * 4 + [True])

RUNS = st.fixed_dictionaries(
    {
        "hours": st.sampled_from([20, 22, 22, 20, 0, 3, 0.02, 70]),
        "within": st.sampled_from([26, 26, 80, 80, 2000, 5]),
        "faults": st.lists(
            st.tuples(
                st.sampled_from(FAILURES),
                st.sampled_from(PATHS),
                st.integers(0, 3),
                st.sampled_from([1, 1, None]),
            ),
            max_size=2,
        ),
        "places": st.sampled_from([None, None, None, *range(0, 32, 3)]),
        "wallet": st.sampled_from(["60"] * 6 + ["0", "1.30", "6"]),
        "price": st.sampled_from([None, None, None, "0.90", "1.20", "2.10"]),
        "max_price": st.sampled_from([None] * 8 + ["1", "4", "11"]),
        "daily_budget": st.sampled_from([None] * 8 + ["5", "20", "60"]),
        "run_budget": st.sampled_from([None] * 8 + ["2", "5", "20"]),
        "run": st.sampled_from(["run-1", "run-2"]),
        "namespace": st.sampled_from(["", "", "other"]),
        "dry_run": rarely,
        "is_decided": rarely,
    }
)


@dataclass
class Books:
    """One example: an account, what was really paid on it, and by which run.

    Attributes:
        ends: of each rental, all the ends that it has had, by the service, in seconds since 1970.
        paid: USD by the names of the runs.
    """

    world: World
    account: str
    ends: dict[int, list[float]] = field(default_factory=dict)
    paid: Counter[str] = field(default_factory=Counter)
    seen: int = 0

    @property
    def service(self) -> Any:
        return self.world.services[0]

    def orders(self) -> dict[int, SimulatedOrder]:
        return {order.order_id: order for order in self.service._gateway.state.orders()}

    def hook(self, namespace: str = "", run: str = "run-1", **options: Any) -> Hook:
        return self.world.hook_at(
            self.service.url, run=run, account=self.account, namespace=namespace, **options
        )

    def rent(self, kind: str) -> None:
        self.world.clock.pass_by(60)
        hook = self.hook(run="renting", read_timeout=10.0)
        order_id = hook.order(**KINDS[kind], key=f"{kind}-{len(self.ends)}").order_id
        self.ends[order_id] = [self.orders()[order_id].expires_at.timestamp()]
        self.seen = len(self.movements())

    def movements(self) -> list[Any]:
        return list(self.service._gateway.state.movements())

    def run(self, run: dict[str, Any]) -> None:
        """A run as a process makes it, and what has to hold after it."""
        clock, world = self.world.clock, self.world
        clock.pass_by(run["hours"] * HOUR)
        self.service.set_balance(run["wallet"])
        if run["price"] is not None:
            self.service.set_offer("rent-1day", 4421, price=run["price"])
        clock.pass_by(1)  # and the catalogue is read anew
        for fault, path, after, times in run["faults"]:
            self.service.add_fault(replace(FAULTS[fault], path=path, after=after, times=times))
        if run["is_decided"]:
            self.decide()
        begun, self.seen = clock.now(), len(self.movements())
        limits = {name: run[name] for name in ("max_price", "run_budget")}
        world.deaths.arm(run["places"])
        report: RentalsReport | None = None
        try:
            report = self.hook(run["namespace"], run["run"], daily_budget=run["daily_budget"]).renew_expiring(
                run["within"] * HOUR, **limits, dry_run=run["dry_run"]
            )
        except (SmsVerifyError, Died) as error:
            world.outcomes[type(error).__name__] += 1
        finally:
            world.deaths.arm(None)
            world.wire.await_silence()
        self.service.clear_faults()
        debits = self.note_debits(run["run"], begun)
        self.check_caps(run, debits, begun)
        self.check_records()
        if report is not None:
            self.check_report(report, run, debits, begun)

    # -------------------------------------------------------------- what has to hold

    def note_debits(self, run: str, begun: float) -> Counter[int]:
        """How often each rental was renewed just now. No more than one period is ever paid ahead."""
        debits: Counter[int] = Counter()
        for move in self.movements()[self.seen :]:
            if move.kind != "renewal":
                continue
            debits[move.order_id] += 1
            self.paid[run] -= move.amount
            ends, order = self.ends[move.order_id], self.orders()[move.order_id]
            if len(ends) > 1:
                assert move.at.timestamp() > ends[-2] - SLACK, "a period was paid that is two ahead"
            period = PERIODS.get(order.product) or (order.duration or 0) * DAY
            ends.append(ends[-1] + period)
            assert abs(order.expires_at.timestamp() - ends[-1]) < 1, "a rental was renewed twice at once"
        assert max(debits.values(), default=0) <= 1
        return debits

    def check_caps(self, run: dict[str, Any], debits: Counter[int], begun: float) -> None:
        if not debits:
            return
        moves = self.movements()
        for move in moves[self.seen :]:
            if run["max_price"] is not None and move.kind == "renewal":
                assert -move.amount <= Decimal(run["max_price"])
        assert not run["dry_run"], "a dry run has paid"
        if run["run_budget"] is not None:
            assert self.paid[run["run"]] <= Decimal(run["run_budget"])
        if run["daily_budget"] is not None:
            today = [
                -move.amount
                for move in moves
                if move.kind in ("order", "renewal") and move.at.timestamp() >= begun // DAY * DAY
            ]
            assert sum(today) <= Decimal(run["daily_budget"])

    def check_records(self) -> None:
        """What the service has debited is on record, or open."""
        rows = self.rows()
        for order_id, order in self.orders().items():
            done = sum(row.state == "bought" for row in rows if row.fingerprint == f"renewal of {order_id}")
            still = sum(
                row.state in ("sent", "unknown")
                for row in rows
                if row.fingerprint == f"renewal of {order_id}"
            )
            assert still <= 1
            assert done <= order.renewals <= done + still

    def check_report(
        self, report: RentalsReport, run: dict[str, Any], debits: Counter[int], begun: float
    ) -> None:
        kept = {rental.order_id: rental for rental in report.rentals}
        assert len(kept) == len(report.rentals)
        for order_id, order in self.orders().items():
            if order_id in kept:
                self.world.outcomes[kept[order_id].outcome] += 1
                self.check_outcome(kept[order_id], order, debits[order_id], run, begun)
            else:
                assert order.status not in ("pending", "active"), "a rental is not in the report"
        sure = sum((one.cost or 0 for one in report.rentals if one.outcome == "renewed"), Decimal(0))
        assert report.cost == sure or run["dry_run"]
        paid = sum(-move.amount for move in self.movements()[self.seen :] if move.kind == "renewal")
        assert paid == sure or any(one.outcome == "unknown" for one in report.rentals)

    def check_outcome(
        self, kept: KeptRental, order: SimulatedOrder, debits: int, run: dict[str, Any], begun: float
    ) -> None:
        if debits:
            assert kept.outcome in ("renewed", "unknown"), kept
        assert kept.outcome != "renewed" or debits == 1, "what was not paid is said to be renewed"
        assert kept.outcome != "would_renew" or run["dry_run"]
        assert kept.outcome in ("renewed", "would_renew", "not_due", "excluded") or kept.reason, kept
        if kept.outcome == "not_due":
            ends = self.ends[order.order_id]
            is_ahead = len(ends) > 1 and begun < ends[-2] + SLACK
            assert ends[-1] - begun > run["within"] * HOUR - SLACK or is_ahead, (
                "a rental is due, and left alone"
            )
        if kept.outcome == "expired":
            assert order.status == "expired" or self.ends[order.order_id][-1] < self.world.clock.now() + SLACK
        assert kept.outcome != "unconfirmed", "the service shows all renewals"

    # -------------------------------------------------------------- helps

    def rows(self) -> list[Any]:
        return rows_of(self.world.store_url, self.account)

    def decide(self) -> None:
        """A person who knows everything decides what the ledger cannot."""
        self.world.clock.pass_by(LEASE + 1)
        rows = self.rows()
        for row in rows:
            if row.state not in ("sent", "unknown"):
                continue
            order_id = int(row.fingerprint.rpartition(" ")[2])
            done = sum(other.state == "bought" for other in rows if other.fingerprint == row.fingerprint)
            was_made = self.orders()[order_id].renewals > done
            self.hook(row.namespace).resolve(row.key, order_id=order_id if was_made else None)


def rows_of(store_url: str, account: str) -> list[Any]:
    """The renewals of an account."""
    with open_store(store_url).read() as connection:
        mine = sa.and_(purchases.c.account == account, purchases.c.kind == "renewal")
        return list(connection.execute(sa.select(purchases).where(mine).order_by(purchases.c.id)))


@pytest.fixture
def world(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with two_services() as services:
        yield World(store_url, monkeypatch, services)


def play(world: World, **options: Any) -> None:
    """Plays examples; `options` are of hypothesis' `settings`."""
    defaults = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

    @settings(**{**defaults, **options})
    @given(
        kinds=st.lists(st.sampled_from([*KINDS, "day", "three", "day"]), min_size=1, max_size=4),
        runs=st.lists(RUNS, min_size=3, max_size=7),
    )
    def example(kinds: list[str], runs: list[dict[str, Any]]) -> None:
        world.services[0].reset()
        world.services[0].set_balance("100")
        books = Books(world, next(world.accounts))
        for kind in kinds:
            books.rent(kind)
        for run in runs:
            books.run(run)
        world.steps["example"] += 1

    example()


@pytest.mark.slow
def test_no_period_is_paid_twice_and_every_rental_has_its_reason(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    play(world, max_examples=EXAMPLES, derandomize=not SOAK)
    assert world.outcomes["renewed"] > 0
    if SOAK:
        with capsys.disabled():
            print(f"  {world.steps['example']} examples: {dict(world.outcomes)}", flush=True)


# ------------------------------------------------------------------ whatever the status says

URL = "http://127.0.0.1:9/api/v1"
SHOWN = st.one_of(
    st.fixed_dictionaries(
        {"status": st.sampled_from(["active", "active", "pending", "completed", "odd"])},
        optional={
            "time_left_seconds": st.sampled_from([0, 1, 3000, 90_000, 2_600_000, -5, 1e30, "3000", "soon"]),
            "days_left": st.sampled_from([0, 1, 2, 29, 30, 0.04, -1]),
            "expiry_date": st.sampled_from(["2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "never", 0]),
        },
    ),
    st.sampled_from([None, {"status": "expired"}, {"status": "cancelled"}]),
)
ANSWERS: dict[str, dict[str, Any]] = {
    "day": {"order_id": 7, "phone": "+1 415 555 0126", "status": "pending"},
    "month": {"order_id": 7, "phone": "+1 415 555 0127", "status": "pending"},
    "three": {"order_id": 7, "phone": "+1 415 555 0124", "status": "active", "expiry_date": ""},
}


@pytest.mark.parametrize("kind", [*ANSWERS, "elsewhere"])
@pytest.mark.slow
def test_whatever_the_status_says_no_more_than_one_period_is_paid_ahead(
    kind: str, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    accounts = itertools.count()

    @settings(
        max_examples=EXAMPLES,
        derandomize=not SOAK,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        looks=st.lists(
            st.tuples(st.sampled_from([0.02, 1, 3, 3, 20, 25, 100, 700]), SHOWN, SHOWN),
            min_size=3,
            max_size=12,
        ),
        within=st.sampled_from([4, 26, 2000]),
    )
    def example(looks: list[tuple[float, Any, Any]], within: float) -> None:
        with Mocker() as service:
            shown: list[Any] = [None, None]  # now, and after a renewal

            def status(_: Any, context: Any) -> dict[str, Any]:
                context.status_code = 400 if shown[0] is None else 200
                return {"order_id": 7, **(shown[0] or {"error": "odd"})}

            def renew(*_: Any) -> dict[str, Any]:
                shown[0] = shown[1]
                return {"order_id": 7, "status": "active"}

            service.get(f"{URL}/balance/", json={"balance": 10_000})
            service.get(f"{URL}/order/7/status/", json=status)
            service.get(f"{URL}/orders/", json=[])
            for path, line in (
                ("rent-1day", {"service_id": 4421, "name": "Tinder", "price": 1.2}),
                ("rent-30days", {"service_id": 7821, "name": "Instagram", "price": 12.0}),
                ("rental", {"name": "WhatsApp", "sell_price_3days": 4.0, "sell_price_30days": 12.0}),
            ):
                service.get(f"{URL}/services/{path}/", json=[line])
            renewals = service.post(f"{URL}/order/7/renew/", json=renew)
            account = f"{kind}-{next(accounts)}"
            hook = Hook(
                API_KEY,
                base_url="http://127.0.0.1:9",
                store_url=store_url,
                account=account,
                rate_limit=1000,
                call_timeout=5.0,
            )
            days = {"day": 1, "month": 30, "three": 3, "elsewhere": 30}[kind]
            if kind != "elsewhere":
                until = datetime.fromtimestamp(clock.now() + days * DAY, timezone.utc).isoformat()
                answer = {**ANSWERS[kind], "expiry_date": until} if kind == "three" else ANSWERS[kind]
                service.post(f"{URL}/order/{KINDS[kind]['product']}/", json=answer)
                hook.order(**KINDS[kind])
            begun = clock.now()
            for hours, *shown[:] in looks:
                hook.renew_expiring(within * HOUR, order_ids=7)
                elapsed = (clock.now() - begun) / DAY
                if kind == "elsewhere":
                    # Perhaps one for a day; and just before its end when it was first seen.
                    days = 1 if any("grown" in row.request for row in rows_of(store_url, account)) else 30
                    elapsed += days / 10
                assert renewals.call_count <= 1 + int((elapsed + 0.001) / days)
                clock.pass_by(hours * HOUR)

    example()


# ------------------------------------------------------------------ what is broken is seen


def with_any_number_of_periods_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "paid_ahead", lambda *_: None)


def without_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "_refuse_beyond_caps", lambda *_: None)
    monkeypatch.setattr(Ledger, "refuse_beyond_caps", lambda *_, **__: None)


def with_what_fails_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    survey = Rentals._survey

    def survey_without(self: Rentals, *arguments: Any) -> Any:
        return [one for one in survey(self, *arguments) if not (one.trouble and one.trouble[0] == "failed")]

    monkeypatch.setattr(Rentals, "_survey", survey_without)


BREAKS: list[Damage] = [
    with_any_number_of_periods_ahead,
    without_caps,
    with_what_fails_left_out,
]


@each_of(BREAKS)
def test_each_damage_hits_something(damage: Damage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the soak looks for what they do; a name that has moved is noticed here."""
    damage(monkeypatch)


if SOAK:

    @each_of(BREAKS)
    def test_what_is_broken_is_noticed(
        damage: Damage, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        damage(monkeypatch)
        check_that_it_is_noticed(
            lambda: play(world, max_examples=400, phases=[Phase.generate]), world, capsys
        )
