"""What a package index shows of the README: no link may lead nowhere there."""

from __future__ import annotations

from pathlib import Path

from index_readme import RELATIVE_LINK, for_index

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_links_lead_to_the_home_of_the_project() -> None:
    text = "![Picture](docs/run.svg) and [the store](docs/store.md), [SemVer](https://semver.org), [up](#top)"
    assert for_index(text, "https://code.example/smsverify/") == (
        "![Picture](https://code.example/smsverify/raw/main/docs/run.svg) and "
        "[the store](https://code.example/smsverify/blob/main/docs/store.md), "
        "[SemVer](https://semver.org), [up](#top)"
    )


def test_without_a_home_links_are_text_and_pictures_are_left_out() -> None:
    assert RELATIVE_LINK.search(README)
    shown = for_index(README, None)
    assert not RELATIVE_LINK.search(shown)
    assert "Get started: install" in shown
