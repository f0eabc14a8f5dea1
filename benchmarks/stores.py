"""Empty stores: SQLite files, and databases of a PostgreSQL of our own where one is installed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "core"))

from rigs.postgres import PrivatePostgres

from stacks.services import find_postgres

DATABASES = ("sqlite", "postgresql")


@contextmanager
def empty_stores(databases: Collection[str] = DATABASES, number: int = 1) -> Iterator[dict[str, list[str]]]:
    """The URLs of so many empty stores on each of these databases, by the database's name."""
    with tempfile.TemporaryDirectory(prefix="smsverify-bench-") as directory:
        found = {"sqlite": [f"sqlite:///{directory}/{place}.db" for place in range(number)]}
        server = _postgres() if "postgresql" in databases else None
        if server is not None:
            found["postgresql"] = [server.create_database() for _ in range(number)]
        try:
            yield {name: urls for name, urls in found.items() if name in databases}
        finally:
            if server is not None:
                server.stop()


@contextmanager
def given_or_empty(urls: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """The stores at these URLs, with the names of their databases; an empty one on each without any URL."""
    if urls:
        yield [(sa.engine.make_url(url).get_backend_name(), url) for url in urls]
        return
    with empty_stores() as found:
        yield [(name, url) for name, (url,) in found.items()]


def _postgres() -> PrivatePostgres | None:
    binaries = find_postgres()
    if binaries is None:
        print("PostgreSQL is not installed here: no initdb on the PATH or in /usr/lib/postgresql")
        return None
    return PrivatePostgres(binaries)
