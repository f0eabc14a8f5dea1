"""An outage begins with new words, or two minutes after the last failure with the old ones."""

from __future__ import annotations

import pytest

from smsverify._runtime.outages import Outages


@pytest.mark.parametrize(
    ("failures", "begun"),
    [
        ([(0, "full"), (5, "full"), (10, "full")], [True, False, False]),
        # However long it lasts.
        ([(second, "full") for second in range(0, 600, 100)], [True] + 5 * [False]),
        ([(0, "full"), (121, "full"), (126, "full")], [True, True, False]),
        ([(0, "full"), (5, "away"), (10, "away"), (15, "full")], [True, True, False, True]),
        ([(0, ""), (5, "")], [True, False]),
    ],
)
def test_an_outage_begins_once(
    failures: list[tuple[float, str]], begun: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([at for at, _ in failures])
    monkeypatch.setattr("smsverify._runtime.outages.boottime", lambda: next(times))
    outages = Outages()
    assert [outages.begin_with(OSError(text)) for _, text in failures] == begun
