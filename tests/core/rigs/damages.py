"""What a test breaks, to see that random examples notice it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis.errors import Flaky

from rigs.money_world import World

Damage = Callable[[pytest.MonkeyPatch], None]


def each_of(damages: Sequence[Damage]) -> pytest.MarkDecorator:
    """Runs a test with each `damage`."""
    return pytest.mark.parametrize("damage", damages, ids=lambda damage: damage.__name__)


def check_that_it_is_noticed(
    play: Callable[[], None], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plays examples in a world that is damaged, and prints what has failed, and after how many."""
    # What has failed is played once more, and time may have gone another way then.
    with pytest.raises((AssertionError, Flaky)) as caught:
        play()
    with capsys.disabled():
        reason = str(caught.value).partition("\n")[0]
        print(f"  noticed after {world.steps['example'] + 1} examples: {reason}", flush=True)
