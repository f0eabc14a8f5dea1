"""How far many verifications are, published as a progress artifact of Prefect's UI."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from prefect.artifacts import (
    acreate_progress_artifact,
    aupdate_progress_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.futures import as_completed

from prefect_smsverify.artifacts import in_this_thread, publishing
from smsverify.errors import VerificationError
from smsverify.text import amount
from smsverify.verification import Verification

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

KEY = "smsverify-progress"

Outcome = Verification | BaseException


def publish_progress(verifications: Iterable[PrefectFuture[Verification]]) -> list[Outcome]:
    """Waits for mapped runs of `verify_number`, and shows meanwhile how far they are.

    The flow run has the progress artifact `smsverify-progress`: how many have ended, in percent; how many of
    them have a code, and what all cost. No code and no number is in it. Sends no request to the service.

    Args:
        verifications: what `verify_number.map` returned, or several that `verify_number.submit` returned.

    Returns:
        what has become of each, in their order: its `Verification`, or the error that it has raised, so that
        no code is lost when another fails. Of one that never ran, because a task before it has failed, a
        `PrefectException`.
    """
    futures = list(verifications)
    artifact_id: UUID | None = None
    for ended in _outcomes_as_they_come(futures):
        shown = _artifact(ended, len(futures))
        with publishing("The progress"):
            if artifact_id is None:
                artifact_id = cast("UUID", in_this_thread(create_progress_artifact, **shown, key=KEY))
            else:
                in_this_thread(update_progress_artifact, artifact_id, **shown)
    return [_outcome(future) for future in futures]


async def apublish_progress(verifications: Iterable[PrefectFuture[Verification]]) -> list[Outcome]:
    """`publish_progress` for coroutines."""
    futures = list(verifications)
    artifact_id: UUID | None = None
    coming = _outcomes_as_they_come(futures)
    while (ended := await asyncio.to_thread(next, coming, None)) is not None:
        shown = _artifact(ended, len(futures))
        with publishing("The progress"):
            if artifact_id is None:
                artifact_id = await acreate_progress_artifact(**shown, key=KEY)
            else:
                await aupdate_progress_artifact(artifact_id, **shown)
    return [_outcome(future) for future in futures]


def _outcomes_as_they_come(futures: list[PrefectFuture[Verification]]) -> Iterator[list[Outcome]]:
    """The outcomes so far: at first none, then each time that one more is there."""
    ended: list[Outcome] = []
    yield ended
    for future in as_completed(futures):
        ended.append(_outcome(future))
        yield ended


def _outcome(future: PrefectFuture[Verification]) -> Outcome:
    try:
        return future.result(raise_on_failure=False)
    except (PrefectException, CancelledError) as error:
        return error  # the task never ran, such as where a task before it has failed


def _artifact(ended: Sequence[Outcome], total: int) -> dict[str, Any]:
    verified = [one for one in ended if isinstance(one, Verification)]
    without = [one for one in ended if isinstance(one, VerificationError)]
    cost = sum((one.cost for one in verified), Decimal(0)) + sum((one.cost for one in without), Decimal(0))
    failed = len(ended) - len(verified) - len(without)
    return {
        "progress": 100 * len(ended) / total if total else 100.0,
        "description": f"{len(verified)} of {total} verified, {len(without)} without a code, {failed} failed "
        f"otherwise; {amount(cost)} USD, without refunds",
    }
