"""Builds the wheel and the sdist and checks both as a user gets them: `make dist`.

Both hold what git does not ignore and nothing else, and an index can show their description. The wheel
installs into fresh environments for Airflow and for Prefect, the sdist into one of its own, and each
framework finds what it brings. `dist/` holds both afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "core/smsverify": "smsverify",
    "provider/smsverify_provider": "smsverify_provider",
    "prefect_tasks/prefect_smsverify": "prefect_smsverify",
}
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def main() -> int:
    """Checks everything; an `AssertionError` or a failed command ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--uv", required=True, help="the program uv, which makes the environments")
    uv = str(Path(parser.parse_args().uv).resolve())
    begin = time.monotonic()
    wheel, sdist = build()
    check_contents(wheel, sdist)
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        check_core(install(uv, base / "core", str(sdist), "core"), version_of(wheel))
        check_airflow(install(uv, base / "airflow", f"{wheel}[airflow]", "airflow"), base / "home")
        check_prefect(install(uv, base / "prefect", f"{wheel}[prefect]", "prefect"), base / "home")
    print(f"{wheel.name} and {sdist.name} are sound ({time.monotonic() - begin:.0f} s)")
    return 0


def build() -> tuple[Path, Path]:
    """The wheel and the sdist, built anew in `dist/`."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "hatchling", "build", "-d", str(dist))
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path) -> None:
    """Nothing is missing, nothing else is in them, and the description has no link that leads nowhere."""
    kept = files_of_the_project()
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata_name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(metadata_name).decode()
    modules = {
        target + path.removeprefix(source)
        for source, target in PACKAGES.items()
        for path in kept
        if path.startswith(f"{source}/")
    }
    info = metadata_name.removesuffix("METADATA")
    expect("the wheel", names, modules | {info + name for name in METADATA})
    with tarfile.open(sdist) as tar:
        members = {member.name.partition("/")[2] for member in tar if member.isfile()}
    expect("the sdist", members, kept | {"PKG-INFO"})
    description = Parser().parsestr(metadata).get_payload()
    broken = re.findall(r"]\((?![a-z]+:|#)[^)]*\)", str(description))
    assert not broken, f"the description has links that lead nowhere on an index: {broken}"


def files_of_the_project() -> set[str]:
    """What lies here and is not ignored, also where the checkout came without its history."""
    with tempfile.TemporaryDirectory() as empty:
        run("git", "init", "--quiet", "--bare", empty)
        git = ("git", f"--git-dir={empty}", f"--work-tree={ROOT}")
        return set(run(*git, "ls-files", "--others", "--exclude-standard").splitlines())


def expect(what: str, found: set[str], expected: set[str]) -> None:
    """Compares names of files."""
    assert found == expected, (
        f"{what} lacks {sorted(expected - found)} and has {sorted(found - expected)} besides"
    )


def install(uv: str, environment: Path, requirement: str, constraints: str) -> Path:
    """A fresh environment with the distribution, as our constraints pin it; its folder of programs."""
    run(uv, "venv", "--quiet", "--python", sys.executable, str(environment))
    pins = ROOT / "constraints" / f"{constraints}.txt"
    target = ("--python", str(environment))
    run(
        uv, "pip", "install", "--quiet", "--compile-bytecode", *target, "--constraint", str(pins), requirement
    )
    run(uv, "pip", "check", "--quiet", *target)
    return environment / "bin"


def check_core(programs: Path, version: str) -> None:
    """The core alone: the command, and the version that it says."""
    assert run(str(programs / "smsverify"), "--version").split()[-1] == version
    run(str(programs / "python"), "-c", "import smsverify; smsverify.SmsVerifyHook")


def check_airflow(programs: Path, home: Path) -> None:
    """Airflow lists the provider, the connection type and the plugin."""
    variables = {"AIRFLOW_HOME": str(home / "airflow"), "HOME": str(home)}
    airflow = str(programs / "airflow")
    for about, entry in {
        "providers list": {"package_name": "smsverify"},
        "providers hooks": {"connection_type": "smsverify"},
        "plugins": {"name": "smsverify"},
    }.items():
        listed: list[dict[str, Any]] = json.loads(
            last_line(run(airflow, *about.split(), "-o", "json", **variables))
        )
        assert any(entry.items() <= one.items() for one in listed), f"airflow {about}: {listed}"


def check_prefect(programs: Path, home: Path) -> None:
    """Prefect registers the block."""
    # Prefect starts a server of its own for the command: 20 s are too short where the disk is slow.
    variables = {
        "PREFECT_HOME": str(home / "prefect"),
        "HOME": str(home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    registered = run(str(programs / "prefect"), "block", "register", "-m", "prefect_smsverify", **variables)
    assert "SmsVerify Credentials" in registered, registered


def version_of(wheel: Path) -> str:
    """The version in a wheel's name."""
    return wheel.name.split("-")[1]


def last_line(text: str) -> str:
    """What a program has printed after its log."""
    return text.strip().splitlines()[-1]


def run(*command: str, **variables: str) -> str:
    """What a command prints. Ends with its output where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
