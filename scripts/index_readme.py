"""Makes the README fit for a package index: the build calls `ReadmeHook` (pyproject.toml names it)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^]]*)]\((?![a-z]+:|#)(?P<path>[^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Gives the distribution its description: the README, whose links lead to the project's home."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the metadata of pyproject.toml."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        home = metadata.get("urls", {}).get("Source")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_index(text, home)}


def for_index(readme: str, home: str | None) -> str:
    """The README with absolute links; without a home, it has their texts only, and no pictures.

    Args:
        readme: the README, whose links are paths in the repository.
        home: the repository's address; `None` where it has no public one.
    """

    def absolute(link: re.Match[str]) -> str:
        image, text, path = link["image"], link["text"], link["path"]
        if home is None:
            return "" if image else text
        return f"{image}[{text}]({home.rstrip('/')}/{'raw' if image else 'blob'}/main/{path})"

    return RELATIVE_LINK.sub(absolute, readme)
