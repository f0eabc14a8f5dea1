"""Prefect keeps nothing of our tasks and repeats none, whatever its settings are and whoever runs them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.task_worker import TaskWorker

import prefect_smsverify
from smsverify import InvalidRequestError

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

    async def served(one: Task[..., Any]) -> None:
        TaskWorker(one)

    for one in map(form, TASKS):
        before = dict(vars(one))
        for call in (lambda one=one: asyncio.run(served(one)), one.delay, one.apply_async):
            with pytest.raises(InvalidRequestError, match=r"(?i)write a task of your own") as error:
                call()
            assert error.value.field == "persist_result"
        assert vars(one) == before
        assert (one.persist_result, one.cache_policy) == (False, NO_CACHE)
