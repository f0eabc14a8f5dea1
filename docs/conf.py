"""How Sphinx builds these pages: `make docs`."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "smsverify"
author = "the smsverify authors"
release = metadata.version("smsverify")
extensions = ["myst_parser", "sphinx.ext.napoleon", "autoapi.extension"]
exclude_patterns = ["_build", "snippets"]
nitpicky = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = f"smsverify {release}"
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False

# Docstrings quote names with single backticks.
default_role = "code"
highlight_language = "none"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

# The source is read, not imported: the two frameworks cannot be installed together.
autoapi_dirs = [
    str(ROOT / "core" / "smsverify"),
    str(ROOT / "provider" / "smsverify_provider"),
    str(ROOT / "prefect_tasks" / "prefect_smsverify"),
]
autoapi_generate_api_docs = False
autoapi_add_toctree_entry = False
autoapi_python_class_content = "class"
autoapi_member_order = "bysource"
autoapi_options = ["members", "show-inheritance", "show-module-summary"]
suppress_warnings = ["autoapi.python_import_resolution"]
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False


def write_commands(_app: object) -> None:
    """The page of the command line is what its help says."""
    command = [sys.executable, "-m", "typer", "smsverify.cli.app", "utils", "docs", "--name", "smsverify"]
    page = ROOT / "docs" / "reference" / "cli.md"
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    _, _, commands = done.stdout.partition("\n")
    page.write_text(f"# Command line\n{commands}", encoding="utf-8")


def read_fences(
    _app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Code in docstrings stands in fences, which the Prefect UI reads too."""
    read: list[str] = []
    indent: int | None = None
    for line in lines:
        text = line.strip()
        if text.startswith("```") and indent is None:
            indent = len(line) - len(line.lstrip())
            read += ["", f"{' ' * indent}.. code-block:: {text[3:] or 'text'}", ""]
        elif text == "```":
            indent = None
            read.append("")
        else:
            read.append(line if indent is None or not text else f"   {line}")
    lines[:] = read


def leave_out(_app: object, _what: str, _name: str, member: object, skip: bool, _options: object) -> bool:
    """The docstring of a class describes what its `__init__` sets; a bare name would say nothing more."""
    return skip or not (getattr(member, "docstring", "") or getattr(member, "annotation", ""))


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_commands)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", read_fences, priority=400)  # type: ignore[attr-defined]
    app.connect("autodoc-skip-member", leave_out)  # type: ignore[attr-defined]
