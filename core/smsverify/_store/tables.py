"""The tables. The rooms above know what the rows mean.

One schema for both databases. Times are seconds since 1970 by the store's clock, amounts are text, so that
both keep them exactly.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from smsverify.models import ENDED, TO_KEEP

# The first real migration will be made with Alembic.
SCHEMA_VERSION = 1

metadata = sa.MetaData()

# What some indexes are limited to: a query has to say the same to use them.
_READABLE = "(otp IS NOT NULL OR message IS NOT NULL)"
READABLE: sa.ColumnElement[bool] = sa.literal_column(_READABLE)
RENEWAL: sa.ColumnElement[str] = sa.literal_column("'renewal'")
_UNUSED = "key IS NOT NULL AND used_at IS NULL AND refunded_at IS NULL"


# Picks the orders that have not ended, as `smsverify.models.has_ended` says it: word for word the same in an
# index and in a query, or the index is not used. A known status is on record in small letters.
NOT_ENDED = f"status NOT IN ({', '.join(repr(status) for status in sorted(ENDED))})"
# The same for those that were not bought to be kept, as rentals and eSIMs are.
FOR_USE = f"(product IS NULL OR product NOT IN ({', '.join(repr(product) for product in TO_KEEP)}))"


def _index_where(which: str, name: str, *columns: str) -> sa.Index:
    """An index of some of an account's rows by these columns."""
    where = sa.text(which)
    return sa.Index(f"smsverify_{name}", "account", *columns, sqlite_where=where, postgresql_where=where)


schema = sa.Table(
    "smsverify_schema",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True),
    # Names this store: another one in its place knows nothing of its purchases.
    sa.Column("store_id", sa.Text, nullable=False),
)

# A machine's newest look at the time: what its uptime was then, and the store's time; and since when the two
# have gone on evenly.
clocks = sa.Table(
    "smsverify_clocks",
    metadata,
    sa.Column("boot", sa.Text, primary_key=True),
    sa.Column("boottime", sa.Double, nullable=False),
    sa.Column("steady", sa.Double, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)

# What the database's clock is corrected by where several machines share the store: one row, or none yet.
shifts = sa.Table(
    "smsverify_shifts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
)

# The order in which things became known of an account, and how far its list of orders was read.
accounts = sa.Table(
    "smsverify_accounts",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    # The last reading of the list that is on record: when it was, and when the service was asked for it.
    sa.Column("listed_number", sa.BigInteger),
    sa.Column("asked_number", sa.BigInteger),
    sa.Column("asked_at", sa.Double),
    # The last reading that may have missed orders since the one before.
    sa.Column("gap_number", sa.BigInteger, nullable=False, default=0),
    # The first readings are made until then.
    sa.Column("introducing_until", sa.Double),
)

# What the wallet held, as far as that may still be compared with anything.
balances = sa.Table(
    "smsverify_balances",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("asked_number", sa.BigInteger, nullable=False),
    sa.Column("asked_at", sa.Double, nullable=False),
    sa.Column("read_at", sa.Double, nullable=False),
    sa.Column("amount", sa.Text, nullable=False),
)

# What one transaction at a time works on, and how often that has been: the number only rises.
locks = sa.Table(
    "smsverify_locks",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

rate_limits = sa.Table(
    "smsverify_rate_limits",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("blocked_until", sa.Double, nullable=False, default=0),
    sa.Column("refusals", sa.Integer, nullable=False, default=0),
    # The pauses since the service has accepted a request last: it has refused the first request after each.
    sa.Column("pauses", sa.Integer, nullable=False, default=0),
    sa.Column("polled_until", sa.Double, nullable=False, default=0),
    # When the service has refused the key, and with which words; null once it has accepted it again.
    sa.Column("key_refused_at", sa.Double),
    sa.Column("key_refusal", sa.Text),
)

# Where each key was used: one at two addresses may be the service's and a simulator's.
addresses = sa.Table(
    "smsverify_addresses",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("address", sa.Text, primary_key=True),
)

# As which account each key has paid: it is one wallet, so two are two names of it.
payers = sa.Table(
    "smsverify_payers",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, primary_key=True),
)

slots = sa.Table(
    "smsverify_slots",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("slot", sa.Integer, primary_key=True),
    sa.Column("free_at", sa.Double, nullable=False),
    # Seconds for which the last holder could have it until its reply: processes may have other time-outs.
    sa.Column("lease", sa.Double, nullable=False, default=0.0),
    sa.Column("holder", sa.Text),
    sa.Column("priority", sa.Integer),
)

queue = sa.Table(
    "smsverify_queue",
    metadata,
    sa.Column("entry", sa.Text, primary_key=True),
    sa.Column("key_id", sa.Text, nullable=False, index=True),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("arrived_at", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
)

catalogues = sa.Table(
    "smsverify_catalogues",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("fetched_at", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("read_until", sa.Double),
    sa.Column("unreadable", sa.Integer),
)

purchases = sa.Table(
    "smsverify_purchases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("price", sa.Text),
    sa.Column("charge", sa.Text),
    sa.Column("run", sa.Text),
    # The Dag or flow that has made it, and its task as JSON: for people.
    sa.Column("workflow", sa.Text),
    sa.Column("task", sa.Text),
    # How much could be spent.
    sa.Column("max_price", sa.Text),
    sa.Column("daily_budget", sa.Text),
    sa.Column("run_budget", sa.Text),
    sa.Column("unclaimed", sa.Boolean, nullable=False, default=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Text, nullable=False),
    sa.Column("sent_at", sa.Double, nullable=False),
    # Seconds after that for which its answer may still come: processes may have other time-outs.
    sa.Column("lease", sa.Double),
    sa.Column("resolved_at", sa.Double),
    # The same by the account's sequence, which says what was first.
    sa.Column("sent_number", sa.BigInteger),
    sa.Column("resolved_number", sa.BigInteger),
    # Of the service, whose orders' ids these are.
    sa.Column("address", sa.Text),
    sa.Column("order_id", sa.BigInteger),
    sa.Column("candidates", sa.Text),
    sa.Column("note", sa.Text),
    sa.UniqueConstraint("account", "namespace", "key", "generation"),
    sa.Index("smsverify_purchases_state", "account", "state", "sent_at"),
    sa.Index("smsverify_purchases_order", "order_id", "kind", "state"),
    sa.Index("smsverify_purchases_number", "account", "sent_number"),
    sa.Index("smsverify_purchases_resolved", "account", "resolved_number"),
    _index_where("run IS NOT NULL", "purchases_run", "run"),
    _index_where("kind = 'renewal'", "purchases_renewals", "fingerprint"),
)

# What each day that is over has cost: the sums of its purchases, which are null once one of them has changed.
days = sa.Table(
    "smsverify_days",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("begins_at", sa.Double, primary_key=True, autoincrement=False),
    sa.Column("spent", sa.Text),
    sa.Column("unpriced", sa.Integer),
    sa.Column("refunded", sa.Text),
)

orders = sa.Table(
    "smsverify_orders",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("order_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("product", sa.Text),
    sa.Column("service", sa.Text),
    sa.Column("country", sa.Text),
    sa.Column("duration", sa.Integer),
    sa.Column("phone", sa.Text),
    sa.Column("price", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double),
    sa.Column("first_seen_at", sa.Double, nullable=False),
    # By the account's sequence: when the service first showed it, and that it had ended.
    sa.Column("seen_number", sa.BigInteger),
    sa.Column("ended_number", sa.BigInteger),
    # When it was made, by the store's clock, as the list said first.
    sa.Column("made_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("expires_estimated", sa.Boolean, nullable=False, default=False),
    sa.Column("activation_code", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("used_at", sa.Double),
    sa.Column("cancelled_from", sa.Text),
    sa.Column("refunded_at", sa.Double),
    sa.Column("waiter", sa.Text),
    sa.Column("waiter_since", sa.Double),
    # When its cancellation was asked for, and since when the wallet lacks its refund.
    sa.Column("cancelled_at", sa.Double),
    sa.Column("refund_missing_since", sa.Double),
    # When a reconciliation has last dealt with it.
    sa.Column("reconciled_at", sa.Double),
    # Since when it is bought and not handed over; null once it is.
    sa.Column("unclaimed_since", sa.Double),
    # The newest call that works with it, and when a process that holds it has last sent a heartbeat.
    sa.Column("holder", sa.Text),
    sa.Column("held_at", sa.Double),
    # The digests of its last message that was pruned: what its status shows of that is not new.
    sa.Column("pruned_sms", sa.Text),
    # When a rental was last put on record; null once it is over for good.
    sa.Column("rental_since", sa.Double),
    # The few that something may still have to be done about, among all that were ever bought.
    _index_where(f"{_UNUSED} AND {NOT_ENDED} AND {FOR_USE}", "orders_going_on", "first_seen_at"),
    sa.Index("smsverify_orders_seen", "account", "first_seen_at"),
    _index_where("rental_since IS NOT NULL", "orders_rentals", "rental_since"),
    _index_where("unclaimed_since IS NOT NULL", "orders_unclaimed", "unclaimed_since"),
    _index_where("key IS NULL", "orders_foreign", "first_seen_at"),
    _index_where("key IS NULL", "orders_unowned", "seen_number"),
    _index_where("refunded_at IS NOT NULL", "orders_refunded", "refunded_at"),
    _index_where("refund_missing_since IS NOT NULL", "orders_missing", "refund_missing_since"),
    sa.Index("smsverify_orders_ended", "account", "ended_number"),
)

# The wishes to cancel an order: a row exists only as long as the wish does.
releases = sa.Table(
    "smsverify_releases",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("order_id", sa.BigInteger, primary_key=True, autoincrement=False),
    # From when on the order may have been cancelled; by the account's sequence only where that is sure.
    sa.Column("asked_at", sa.Double, nullable=False),
    sa.Column("asked_number", sa.BigInteger),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("planned", sa.Boolean, nullable=False),
    # When it is to be tried again, and how often and when it was tried last.
    sa.Column("next_at", sa.Double, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("tried_at", sa.Double, nullable=False),
)

# The numbers that were tried for one purpose. What is decided here is never bought again. What an attempt has
# bought is in the row of its purchase, whose key is `key:series.number`.
attempts = sa.Table(
    "smsverify_attempts",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("series", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("product", sa.Text, nullable=False),
    sa.Column("service", sa.Text),
    # Null while the number is tried; then `code`, `no_code`, `unavailable` or `given_up`, and why.
    sa.Column("outcome", sa.Text),
    sa.Column("why", sa.Text),
)

waits = sa.Table(
    "smsverify_waits",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("order_id", sa.BigInteger, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    # When it gives up, whether it cancels the order then, and the task that waits, as JSON: for people.
    sa.Column("until", sa.Double),
    sa.Column("cancels", sa.Boolean, nullable=False, default=False),
    sa.Column("task", sa.Text),
    sa.Index("smsverify_waits_order", "account", "order_id", "seen_at"),
    # Those that are alive, among those that processes have left when they died.
    sa.Index("smsverify_waits_seen", "account", "seen_at"),
)

# What the newest run on a schedule has done for each rental.
kept = sa.Table(
    "smsverify_kept",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("order_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("price", sa.Text),
    sa.Column("task", sa.Text),
)

polls = sa.Table(
    "smsverify_polls",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("next_at", sa.Double, nullable=False),
    sa.Column("list_misses", sa.Integer, nullable=False, default=0),
    # When the secret URL was last called with an SMS of an order that is known.
    sa.Column("callback_at", sa.Double),
    # The secret that it came by, as `name_of_secret` says it.
    sa.Column("callback_secret", sa.Text),
    # Before these, no order is looked at for a callback without a secret, and none for a subscription.
    sa.Column("unsigned_next_at", sa.Double),
    sa.Column("subscription_next_at", sa.Double),
)

looks = sa.Table(
    "smsverify_looks",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("order_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("listed_status", sa.Text),
    sa.Column("status", sa.Text),
    sa.Column("status_at", sa.Double),
    sa.Column("empty_ends", sa.Integer, nullable=False, default=0),
    # When the order is looked at next by itself, and was last: for those who follow it, as of their last
    # heartbeat, or for an unverified callback. Which of these came, and the looks for it so far.
    sa.Column("next_at", sa.Double),
    sa.Column("asked_at", sa.Double),
    sa.Column("followed_at", sa.Double),
    sa.Column("by_secret", sa.Boolean),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Index(
        "smsverify_looks_next",
        "account",
        "next_at",
        sqlite_where=sa.text("next_at IS NOT NULL"),
        postgresql_where=sa.text("next_at IS NOT NULL"),
    ),
)

messages = sa.Table(
    "smsverify_messages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("order_id", sa.BigInteger, nullable=False),
    sa.Column("otp", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("sender", sa.Text),
    sa.Column("phone", sa.Text),
    sa.Column("received_at", sa.Double, nullable=False),
    # The same SMS is one row, from a status or a callback: the digests of what the order's status shows and
    # of what a callback brought, and when that was.
    sa.Column("shown_as", sa.Text),
    sa.Column("called_as", sa.Text),
    sa.Column("called_at", sa.Double),
    # `received_at` is of the calendar, for people; this is the store's time.
    sa.Column("came_at", sa.Double, nullable=False),
    sa.Index("smsverify_messages_order", "account", "order_id", "received_at"),
    sa.Index("smsverify_messages_shown", "account", "order_id", "shown_as"),
    sa.Index("smsverify_messages_called", "account", "order_id", "called_as"),
    # Those that can be read, which are few among all that have ever come.
    _index_where(_READABLE, "messages_readable", "order_id"),
    _index_where(_READABLE, "messages_came", "came_at"),
    sa.Index("smsverify_messages_arrived", "account", sa.text("coalesce(came_at, 0.0)")),
    # For what every look asks for, a few times a second.
    sa.Index("smsverify_messages_newest", "account", "id"),
)

# When a message came, for those who look for all of a time. By the bare column, SQLite would choose the index
# for the messages of one order, too, and read all of the account.
ARRIVED_AT: sa.ColumnElement[float] = sa.func.coalesce(
    messages.c.came_at, sa.literal_column("0.0", sa.Double), type_=sa.Double
)

callbacks = sa.Table(
    "smsverify_callbacks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("by_secret", sa.Boolean, nullable=False),
    sa.Column("secret", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("is_documented", sa.Boolean, nullable=False),
    sa.Column("order_id", sa.BigInteger),
    sa.Column("phone", sa.Text),
    sa.Column("sender", sa.Text),
    sa.Column("otp", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("body", sa.Text),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("number", sa.BigInteger),
    sa.UniqueConstraint("account", "digest"),
    sa.Index("smsverify_callbacks_state", "account", "state", "order_id"),
    sa.Index("smsverify_callbacks_received", "account", "received_at"),
)

# How many callbacks were refused, by the hour. Nothing else is kept of them.
refusals = sa.Table(
    "smsverify_refusals",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Column("last_at", sa.Double, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)

# Who reads all messages as they come, the cursor of each, and which process holds its place at the moment.
consumers = sa.Table(
    "smsverify_consumers",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("cursor", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("seen_at", sa.Double, nullable=False),
)

# Which run of those that handle messages each message belongs to.
handled = sa.Table(
    "smsverify_handled",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("handler", sa.Text, primary_key=True),
    sa.Column("message_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("since", sa.Double, nullable=False),
    sa.Index("smsverify_handled_since", "account", "since"),
)


def is_order(
    account: str | sa.ColumnElement[str], order_id: int | sa.ColumnElement[int]
) -> sa.ColumnElement[bool]:
    """Picks the row of an account's order."""
    return sa.and_(orders.c.account == account, orders.c.order_id == order_id)


def was_seen_lately(seen_at: sa.ColumnElement[Any], now: Any, patience: Any) -> sa.ColumnElement[bool]:
    """Picks the rows whose process is alive, by the time of its last heartbeat.

    A time that is farther ahead comes from an old copy of the store, or from a clock that was set.

    Args:
        seen_at: the column with that time.
        now: seconds by the store's clock, a number or an expression.
        patience: seconds for which one heartbeat counts, likewise.
    """
    return seen_at.between(now - patience, now + patience)
