"""The documentation: its pages are short, its settings are complete, and its code runs."""

from __future__ import annotations

import io
import re
import runpy
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from smsverify.settings import Settings
from smsverify.simulator import Simulator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts and path.name != "cli.md")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(DOCS)) for page in PAGES])
def test_a_page_is_no_book(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 250


def test_every_setting_is_described_with_its_variable() -> None:
    text = (DOCS / "reference" / "settings.md").read_text()
    described = re.findall(r"^\| `(\w+)`<br>`(\w+)` \|", text, flags=re.M)
    assert described == [(name, f"SMSVERIFY_{name.upper()}") for name, _ in described]
    assert {name for name, _ in described} == set(Settings.model_fields)


def prose_of(path: Path) -> Iterator[str]:
    """What a file says to people: a page without its code, comments and texts of a module."""
    text = path.read_text()
    if path.suffix != ".py":
        yield re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            yield token.string


@pytest.mark.parametrize(
    "folder",
    ["core", "provider", "prefect_tasks", "example_dags", "docs", "scripts", "benchmarks", ".github", "."],
)
def test_a_dag_is_written_as_airflow_3_writes_it(folder: str) -> None:
    find = Path.glob if folder == "." else Path.rglob
    paths = [path for end in ("*.md", "*.py", "*.yml") for path in find(ROOT / folder, end)]
    assert paths
    for path in paths:
        for text in prose_of(path):
            # The class is DAG still, also in code that is a text.
            said = re.sub(r"^\W*(from \S+ )?import .*", "", text, flags=re.M)
            assert not re.search(r"\bDAGs?\b(?!\()", said), path


def test_the_reference_names_public_modules_only() -> None:
    pages = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    named = re.findall(r"^\.\. autoapi\w+:: (\S+)", pages, flags=re.M)
    assert named
    assert [name for name in named if any(part.startswith("_") for part in name.split("."))] == []


def test_a_benchmark_writes_between_its_comments_alone(tmp_path: Path) -> None:
    write_into = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))["write_into"]
    page, text = tmp_path / "page.md", "before\n<!-- figures -->\n{}\n<!-- /figures -->\nafter\n"
    page.write_text(text.format("old"))
    write_into(page, "figures", "new")
    assert page.read_text() == text.format("new")


@pytest.mark.parametrize("text", ["before\n", "before\n<!-- figures -->\nold\nafter\n"])
def test_a_benchmark_refuses_a_page_without_its_comments(text: str, tmp_path: Path) -> None:
    write_into = runpy.run_path(str(ROOT / "benchmarks" / "report.py"))["write_into"]
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="nothing was written"):
        write_into(page, "figures", "new")
    assert page.read_text() == text


@pytest.mark.slow
def test_the_tests_on_the_pages_pass() -> None:
    plugin = ["-p", "no:cacheprovider", "-p", "no:randomly", "--override-ini", "addopts="]
    command = [sys.executable, "-m", "pytest", "-q", *plugin, str(DOCS / "snippets")]
    done = subprocess.run(command, cwd=DOCS / "snippets", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_python_of_the_readme_runs(
    simulator: Simulator, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator.configure(sms_delay=0.1)
    for name, value in simulator.environment(store_url).items():
        monkeypatch.setenv(name, value)
    (source,) = re.findall(r"```python\n([^`]*hook\.attempts[^`]*)```", (ROOT / "README.md").read_text())
    given = re.search(r"SmsVerifyHook\((.*?)\)", source, flags=re.S)
    assert given is not None
    # The simulator of this test listens elsewhere.
    exec(compile(source.replace(given[1], ""), "README.md", "exec"), {})
    assert [order.status for order in simulator.orders()] == ["completed"] * 4
