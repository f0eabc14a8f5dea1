"""Each face shows the figures of one overview: the command line, `top`, and what `reconcile` reports.

Airflow's page and Prefect's artifact are held to the same figures where they run.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console
from rigs.filled import SETTINGS, SIMULATOR, filled

from smsverify.cli import main
from smsverify.cli.overview import screen
from smsverify.hook import SmsVerifyHook
from smsverify.simulator import Simulator


def test_top_says_how_to_begin_where_there_is_nothing(
    simulate: Callable[..., Simulator], make_hook: Callable[..., SmsVerifyHook], store_url: str
) -> None:
    terminal = Console(file=io.StringIO(), width=160, height=50)
    terminal.print(screen(make_hook(simulate(), store_url).overview(), 50))
    assert isinstance(terminal.file, io.StringIO)
    assert "To begin:" in terminal.file.getvalue()


def test_the_command_line_top_and_the_report_show_the_same_figures(
    simulate: Callable[..., Simulator],
    make_hook: Callable[..., SmsVerifyHook],
    store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    simulator = simulate(**SIMULATOR)
    hook = make_hook(simulator, store_url, **SETTINGS)
    environment = simulator.environment(store_url) | {
        "SMSVERIFY_DAILY_BUDGET": SETTINGS["daily_budget"],
        "SMSVERIFY_EXCLUSIVE_ACCOUNT": "false",
        "SMSVERIFY_CALLBACK_SECRETS": ",".join(SETTINGS["callback_secrets"]),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with filled(hook, simulator, monkeypatch) as account:
        capsys.readouterr()
        assert main(["overview"]) == 0
        printed = capsys.readouterr().out
        assert account.missing_in(printed.splitlines()) == []

        terminal = Console(file=io.StringIO(), width=1000, height=200)
        terminal.print(screen(hook.overview(), 200))
        assert isinstance(terminal.file, io.StringIO)
        live = terminal.file.getvalue()
        assert account.missing_in(live.splitlines()) == []

        report = account.report.as_text()
        for figure in ("wallet 46.40 USD; spent today 13.60 USD", "refunded 0.40 USD", "findings: 2"):
            assert figure in report
        seen = hook.overview()
        assert [call.key for call in account.report.unknown] == [
            need.key for need in seen.needs.rows if need.kind == "purchase_unknown"
        ]
        assert [held.order_id for held in account.report.to_cancel] == [
            need.order_id for need in seen.needs.rows if need.kind == "not_given_back"
        ]
        assert seen.delivery.rows == hook.delivery()
        for secret in account.secrets:
            assert secret not in printed + live + report
