"""Runs one flow in this process, for `PrefectServer.start_flow`, which starts it in a Prefect environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from prefect import tags  # type: ignore[import-not-found, unused-ignore]
from prefect.flows import load_flow_from_entrypoint  # type: ignore[import-not-found, unused-ignore]


def main(entrypoint: str, parameters: str, tag: str, result: str) -> None:
    """Runs the flow under a tag and writes what it returns as JSON.

    Args:
        entrypoint: `<file>:<function>`.
        parameters: the flow's, as a JSON object.
        tag: given to the flow run and its task runs.
        result: the file for the result.
    """
    flow = load_flow_from_entrypoint(entrypoint)
    with tags(tag):
        value = flow(**json.loads(parameters))
    Path(result).write_text(json.dumps(value, default=_plain), encoding="utf-8")


def _plain(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else str(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
