"""The account as its records show it, published as an artifact of Prefect's UI."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prefect.artifacts import acreate_markdown_artifact, create_markdown_artifact

from prefect_smsverify.arguments import ahook_of, hook_of
from prefect_smsverify.artifacts import in_this_thread
from prefect_smsverify.defining import task
from smsverify.overview_tables import facts, tables

if TYPE_CHECKING:
    from prefect_smsverify.credentials import SmsVerifyCredentials
    from smsverify.overview import Overview

KEY = "smsverify-overview"
_MARKUP = frozenset("\\`*_[]<>|~#&")


@task("Publish overview")
def publish_overview(credentials: SmsVerifyCredentials | str) -> Overview:
    """Publishes what the records show as the markdown artifact `smsverify-overview`. Sends no request.

    `reconcile_flow` and `renew_rentals_flow` do it at their end, so that the artifact's newest version is as
    old as their last run. No code and no text of an SMS is in it.

    Args:
        credentials: the account, as a block or by its name.

    Returns:
        the same, as `SmsVerifyHook.overview` returns it.
    """
    seen = hook_of(credentials).overview()
    in_this_thread(create_markdown_artifact, **_artifact(seen))
    return seen


@task("Publish overview")
async def apublish_overview(credentials: SmsVerifyCredentials | str) -> Overview:
    """`publish_overview` for coroutines."""
    seen = await asyncio.to_thread((await ahook_of(credentials)).overview)
    await acreate_markdown_artifact(**_artifact(seen))
    return seen


def _artifact(seen: Overview) -> dict[str, str]:
    needs = f"{seen.needs.count} need a person" if seen.needs.rows else "nothing needs a person"
    return {
        "markdown": "\n".join(_lines(seen)),
        "key": KEY,
        "description": f"account {seen.account}: {needs}, {seen.at:%H:%M:%S} UTC",
    }


def _lines(seen: Overview) -> Iterator[str]:
    yield _plain(f"From the records of the account {seen.account}, {seen.at:%Y-%m-%d %H:%M:%S} UTC.")
    yield ""
    yield from _table(("", "", ""), [(fact.name, fact.text, fact.note) for fact in facts(seen)])
    for table in tables(seen):
        yield f"\n### {_plain(table.title)}\n"
        if table.note:
            yield f"{_plain(table.note)}\n"
        yield from _table(table.head, table.rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_plain, row))} |"


def _plain(text: str) -> str:
    """The text as markdown shows it, whatever is in it."""
    return "".join(f"&#{ord(char)};" if char in _MARKUP or not char.isprintable() else char for char in text)
