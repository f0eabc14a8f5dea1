"""Prefect keeps no result of our tasks and never repeats one. No setting and no runner changes that."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import Task, flow
from prefect.cache_policies import DEFAULT, NO_CACHE
from prefect.cli.task import _import_tasks_from_module
from prefect.task_worker import TaskWorker
from prefect.tasks import NotSet

import prefect_smsverify
from prefect_smsverify import SmsVerifyCredentials, aorder_number, averify_number, order_number
from smsverify import InvalidRequestError
from smsverify.simulator import Simulator

TASKS = [
    one for name in prefect_smsverify.__all__ if isinstance(one := getattr(prefect_smsverify, name), Task)
]
OPTIONS = """
import json, prefect, prefect_smsverify
from prefect.cache_policies import NO_CACHE
tasks = [one for one in vars(prefect_smsverify).values() if isinstance(one, prefect.Task)]
print(json.dumps([(one.retries, one.persist_result, one.cache_policy == NO_CACHE) for one in tasks]))
"""


def test_no_setting_of_prefect_makes_a_task_keep_its_result_or_run_again() -> None:
    settings = {
        "PREFECT_TASKS_DEFAULT_RETRIES": "3",
        "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "true",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", OPTIONS], env=os.environ | settings, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == [[0, False, True]] * len(TASKS)


@pytest.mark.parametrize(
    "form",
    [lambda one: one, lambda one: one.with_options(name="Other", retries=2)],
    ids=["as it is", "with options"],
)
def test_no_task_runs_in_the_background(form: Any) -> None:
    """There a second equal call would be given the first one's result, of another account even."""
    for one in map(form, TASKS):
        before = dict(vars(one))
        for call in (
            one.delay,
            one.apply_async,
            one.serve,
            lambda one=one: one.map(*_some(one), deferred=True),
        ):
            with pytest.raises(InvalidRequestError, match=r"(?i)write a task of your own") as error:
                call()
            assert error.value.field == "persist_result"
        assert vars(one) == before
        assert (one.persist_result, one.cache_policy) == (False, NO_CACHE)


def test_a_task_worker_serves_a_module_that_imports_our_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect takes each task that the module has, so ours too."""
    (tmp_path / "jobs_of_a_user.py").write_text(
        "from prefect import task\n"
        "from prefect_smsverify import order_number, averify_number\n"
        "@task\n"
        "def own(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    async def served() -> list[Task[..., Any]]:
        return TaskWorker(*_import_tasks_from_module("jobs_of_a_user")).tasks

    kept = {one.name: one for one in asyncio.run(served())}
    assert set(kept) == {"own", averify_number.name, order_number.name}
    assert kept["own"].persist_result


@pytest.mark.parametrize(
    "form", [lambda one: one, lambda one: one.with_options(name="Other")], ids=["as it is", "with options"]
)
def test_a_task_whose_result_shall_be_kept_refuses_when_it_runs(
    form: Any, silent: Simulator, account: SmsVerifyCredentials
) -> None:
    for one in (order_number, aorder_number):
        kept = form(one.with_options(persist_result=True, cache_policy=DEFAULT))
        assert (kept.persist_result, kept.cache_policy) == (False, NO_CACHE)
        with pytest.raises(InvalidRequestError, match="Nothing was sent") as error:
            _ordered(kept, account)
        assert error.value.field == "persist_result"
    assert silent.orders() == []


@pytest.mark.parametrize("not_kept", [False, None, NotSet])
def test_a_task_whose_result_shall_not_be_kept_runs(
    not_kept: Any, silent: Simulator, account: SmsVerifyCredentials
) -> None:
    changed = order_number.with_options(persist_result=not_kept)
    assert changed.persist_result is False
    assert _ordered(changed, account).order_id == silent.orders()[0].order_id


def _some(one: Task[..., Any]) -> list[list[str]]:
    parameters = inspect.signature(one.fn).parameters.values()
    return [["x"] for parameter in parameters if parameter.default is parameter.empty]


def _ordered(one: Task[..., Any], account: SmsVerifyCredentials) -> Any:
    @flow
    async def orders() -> Any:
        given = one(account, "temporary", service="WhatsApp")
        return await given if inspect.isawaitable(given) else given

    return asyncio.run(orders())
