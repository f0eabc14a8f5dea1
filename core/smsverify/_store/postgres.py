"""PostgreSQL: a server for several machines, and what every connection and transaction relies on.

Nothing depends on the defaults of the server, the database, the role or the environment: each transaction
sets what it needs, in the one message that begins it. So it also works behind a pooler that gives every
transaction another connection (PgBouncer), where nothing may be prepared or set for longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from smsverify._store.tables import schema, shifts
from smsverify.errors import StoreError

# Any number will do, if no other program uses it in the same database.
_UPGRADE_LOCK = 5_067_836
# What a connection is like, unless the URL says otherwise. The server's host may vanish without a word.
_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": "",  # not PGOPTIONS
    "port": 5432,  # not PGPORT
}
_ALWAYS: dict[str, Any] = {
    "autocommit": True,  # The driver must not begin transactions, `_begin` does.
    "prepare_threshold": None,  # Behind a pooler, the next transaction has another connection.
    "client_encoding": "utf8",
}
_SETTINGS = {
    "synchronous_commit": "on",  # An intent has to survive a power cut.
    "statement_timeout": "'60s'",
    "idle_in_transaction_session_timeout": "'60s'",  # A process that is stopped in one holds others up.
    "extra_float_digits": "1",  # All digits of a time.
    "standard_conforming_strings": "on",
    # The rows that a statement wants are few, an index finds them, and their pages are in memory. With the
    # default, the planner reads whole tables instead.
    "random_page_cost": "1",
}
_REPLICA = ". The store needs the primary server, which writes, and not a replica"
_HINTS = {
    "25006": _REPLICA,
    "0A000": _REPLICA,
    "55P03": ". Another session has held a lock for too long",
    "57014": ". It took too long",
    "25001": ". The store needs a pooler in transaction or session mode",
}
_MADE_AS: sa.ColumnClause[int] = sa.literal_column(
    "tableoid::bigint"
)  # another number for a table that was made anew
_ENCODINGS = ("UTF8", "SQL_ASCII")  # SQL_ASCII keeps the bytes as they come

# Takes the database's clock, the number of its last correction and the shift, which a query has read.
See: TypeAlias = Callable[[float, int, float], None]


class PostgresServer:
    """The database of a store, and connections to it.

    Args:
        url: where it is.
        timeout: seconds to wait for others who write.
    """

    def __init__(self, url: sa.URL, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._place: str | None = None
        self._known: tuple[str, int] | None = None

    def make_engine(self, *, watch: Callable[[], See] | None = None, **options: Any) -> sa.Engine:
        """An engine whose transactions all are alike.

        Args:
            watch: begins a look at the clock before each transaction.
            options: of SQLAlchemy.
        """
        given = {*self._url.query, *(["port"] if self._url.port is not None else [])}
        arguments = {name: value for name, value in _DEFAULTS.items() if name not in given}
        try:
            engine = sa.create_engine(
                self._url, connect_args=arguments | _ALWAYS, use_native_hstore=False, **options
            )
        except ModuleNotFoundError as error:
            raise StoreError(
                f"a PostgreSQL store needs the driver {error.name}. Install it: pip install "
                "'smsverify[postgres]'"
            ) from None

        def check_out(connection: Any, record: Any, proxy: Any) -> None:
            self._check_out(connection, watch)

        event.listen(engine, "checkout", check_out)
        event.listen(engine, "begin", self._begin)
        return engine

    def find(self, connection: sa.Connection) -> bool:
        """Whether the database has a store, in any schema; the transaction works there from now on.

        Raises:
            StoreError: it has several, or cannot hold every text.
        """
        encoding, current = connection.execute(
            sa.text("SELECT getdatabaseencoding(), quote_ident(current_schema())")
        ).one()
        if encoding not in _ENCODINGS:
            raise StoreError(
                f"the store's database has the encoding {encoding}, which cannot hold every SMS. Make one "
                "with ENCODING 'UTF8' (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
            )
        found = connection.execute(
            sa.text(
                "SELECT quote_ident(n.nspname) AS place, pg_table_is_visible(c.oid) AS is_visible "
                "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = :name "
                "AND c.relkind = 'r' AND c.relpersistence = 'p' AND has_schema_privilege(n.oid, 'USAGE') "
                "AND has_table_privilege(c.oid, 'SELECT')"
            ),
            {"name": schema.name},
        ).all()
        places = [row.place for row in found if row.is_visible] or [row.place for row in found]
        if len(places) > 1:
            raise StoreError(
                f"the database holds several stores, in the schemas {', '.join(sorted(places))}. Put the one "
                "to use into the role's search_path (ALTER ROLE … SET search_path = …)"
            )
        place = places[0] if places else current
        if place is None:
            raise StoreError(
                "the store's tables cannot be made: the role's search_path names no schema that it may use. "
                "Set one (ALTER ROLE … SET search_path = …)"
            )
        connection.exec_driver_sql(f"SET LOCAL search_path TO {place}, pg_temp")
        self._place = place
        return bool(places)

    def lock_for_upgrade(self, connection: sa.Connection) -> None:
        """Lets one process at a time make or change tables, however long that takes."""
        connection.exec_driver_sql(
            "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0; "
            f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"
        )

    def recognise(self, connection: sa.Connection, store_id: str) -> None:
        """From now on, every connection has to lead to this store and to its present tables."""
        made_as = connection.execute(sa.select(_MADE_AS).select_from(schema)).scalar_one()
        self._known = (store_id, made_as)

    # -------------------------------------------------------------- inside

    def _check_out(self, connection: Any, watch: Callable[[], See] | None) -> None:
        """Finds out whether a connection is alive, and leads to the same store as before. Lets the clock be
        looked at in the same query: who corrects the time needs another connection, and no transaction that
        holds one may wait for that.
        """
        look = "SELECT 1"
        if self._known:
            shift = f"FROM {self._place}.{shifts.name}), 0)"
            look = (  # numeric: all digits, whatever is set for floats
                f"SELECT store_id, {_MADE_AS}, extract(epoch FROM clock_timestamp())::numeric, "  # noqa: S608
                f"coalesce((SELECT version {shift}, coalesce((SELECT seconds::numeric {shift} "
                f"FROM {self._place}.{schema.name}"
            )
        see = watch() if watch and self._known else None
        try:
            with connection.cursor() as cursor:
                found = cursor.execute(look).fetchone()
        except Exception as error:
            if connection.closed or connection.broken:
                raise DisconnectionError from error
            if getattr(error, "sqlstate", None) in ("42P01", "3F000"):  # no such table, no such schema
                raise _another("they are gone") from error
            raise
        if self._known and (found is None or found[:2] != self._known):
            raise _another("they were dropped and made again" if found else "they are empty")
        if see is not None:
            see(*found[2:])

    def _begin(self, connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        settings = _SETTINGS | {
            "lock_timeout": f"{self._timeout * 1000:.0f}",
            "search_path": "DEFAULT" if self._place is None else f"{self._place}, pg_temp",
        }
        if (connection.dialect.server_version_info or (0,)) >= (17,):
            settings["transaction_timeout"] = "0"
        level = "REPEATABLE READ" if options.get("is_snapshot") else "READ COMMITTED"
        mode = "READ ONLY" if options.get("read_only") else "READ WRITE"
        begin = [f"BEGIN ISOLATION LEVEL {level} {mode} NOT DEFERRABLE"]
        begin += [f"SET LOCAL {name} TO {value}" for name, value in settings.items()]
        cursor = connection.connection.cursor()
        cursor.execute("; ".join(begin))
        cursor.close()


def hint_of(error: Any) -> str:
    """What to do about an error of the server, where its own text does not say that."""
    return _HINTS.get(getattr(error, "sqlstate", None) or "", "")


def _another(how: str) -> StoreError:
    return StoreError(
        f"the store's tables were deleted or restored while this process used them: {how}. Purchases since "
        "the backup may not be on record, so this process buys nothing more. Run `smsverify reconcile`, then "
        "restart this process"
    )
