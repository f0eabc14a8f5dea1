"""The flow of the README runs as it stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from prefect_smsverify import SmsVerifyCredentials
from smsverify.simulator import Simulator

README = Path(__file__).parents[2] / "README.md"


def test_the_flow_of_the_readme_runs(simulate: Callable[..., Simulator]) -> None:
    simulator = simulate()
    SmsVerifyCredentials(api_key=simulator.api_key).save("default", overwrite=True, _sync=True)
    (source,) = re.findall(r"```python\n([^`]*prefect_smsverify[^`]*)```", README.read_text())
    names: dict[str, object] = {}
    exec(compile(source, "README.md", "exec"), names)
    flow = names["sign_up"]
    assert callable(flow)
    flow()
    (order,) = simulator.orders()
    assert order.status == "completed"
