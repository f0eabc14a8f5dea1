"""The form of a connection of type `smsverify`.

Airflow reads it from the provider's metadata. Before 3.2, it asks the hook for the same fields, in WTForms.
"""

from __future__ import annotations

from typing import Any


def _text(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _number(label: str, description: str, kind: str = "number", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


def _switch(label: str, description: str, *, default: bool, **schema: Any) -> dict[str, Any]:
    schema = {"type": ["boolean", "null"], "default": default, **schema}
    return {"label": label, "description": description, "schema": schema}


# Below this heading, Airflow's form shows what most connections leave as it is.
ADVANCED = "Advanced"

# The extras: the settings by name, and the password of the store. Labels are what errors call the settings.
FIELDS: dict[str, dict[str, Any]] = {
    "store_url": _text(
        "Store URL",
        "SQLAlchemy URL of the store, the same for all who use the account. Its password goes into the next "
        "field: this one is shown. Blank: a file in the home directory, enough for one machine.",
        examples=["sqlite:////srv/smsverify/store.db", "postgresql+psycopg://airflow@db/smsverify"],
    ),
    "store_password": _text(
        "Store password", "The password of the user in the store URL.", format="password"
    ),
    "account": _text(
        "Account",
        "Names the wallet, so that its records outlive a rotated API key. Blank: derived from the key.",
        maxLength=100,
    ),
    "namespace": _text(
        "Namespace", "Keeps the purchases of deployments that share a store apart.", maxLength=100
    ),
    "exclusive_account": _switch(
        "Exclusive account",
        "Whether only the users of this store buy on the account. Then an order that has no owner and fits "
        "is taken as the purchase whose answer was lost. Otherwise it is only reported.",
        default=True,
    ),
    "daily_budget": _number(
        "Daily budget",
        "USD that the account may spend in a day (UTC), less refunds. Blank: any amount.",
        minimum=0,
    ),
    "run_budget": _number("Run budget", "USD that one Dag run may spend. Blank: any amount.", minimum=0),
    "callback_secrets": _text(
        "Callback secrets",
        "Secrets of the callback URL, separated by commas, each of 16 to 200 letters, digits, - or _. "
        "Several are valid at once. Blank: no callbacks.",
        format="password",
    ),
    "rate_limit": _number(
        "Rate limit",
        "Requests that the service allows in the rate period. Blank: 60.",
        "integer",
        minimum=1,
        maximum=10_000,
        section=ADVANCED,
    ),
    "rate_period": _number(
        "Rate period",
        "Seconds in which the service allows these requests. Blank: 60.",
        minimum=0.001,
        maximum=86_400,
        section=ADVANCED,
    ),
    "code_latency": _number(
        "Code latency",
        "Seconds that a code may lie at the service while requests are scarce: the longer, the rarer are "
        "polls, and from 30 on numbers are also ordered ahead. Blank: 5.",
        minimum=1,
        maximum=3600,
        section=ADVANCED,
    ),
    "purchase_grace": _number(
        "Purchase grace",
        "Seconds after which a purchase that the list of orders does not show counts as not made, unless the "
        "wallet shows otherwise; at least a quarter of the rate period. Blank: 120.",
        minimum=0.00025,  # a quarter of the shortest rate period
        maximum=31_536_000,
        section=ADVANCED,
    ),
    "connect_timeout": _number(
        "Connect timeout",
        "Seconds to wait for a connection. Blank: 10.",
        minimum=0.001,
        maximum=31_536_000,
        section=ADVANCED,
    ),
    "read_timeout": _number(
        "Read timeout",
        "Seconds to wait for the next bytes of an answer. Blank: 30.",
        minimum=0.001,
        maximum=31_536_000,
        section=ADVANCED,
    ),
    "call_timeout": _number(
        "Call timeout",
        "Seconds that one call may take in all, with its retries and its wait for the rate limit. "
        "Blank: 900.",
        minimum=0.001,
        maximum=31_536_000,
        section=ADVANCED,
    ),
    "message_retention_days": _number(
        "Message retention days",
        "Days after which the text of a message is deleted from the store. Blank: 7.",
        minimum=0.001,
        maximum=36_500,
        section=ADVANCED,
    ),
    "allow_unshared_store": _switch(
        "Allow unshared store",
        "Allows purchases with a SQLite store if the executor runs tasks on other machines. Set it only "
        "where all of them see that one file.",
        default=False,
        section=ADVANCED,
    ),
    "insecure": _switch(
        "Insecure",
        "Allows plain http to another machine: it sends the API key unencrypted.",
        default=False,
        section=ADVANCED,
    ),
}

HIDDEN = ["login", "schema", "port"]
RELABELING = {"password": "API key", "host": "Base URL"}
# Airflow 3 shows those of its own fields; of the extras, it shows the examples.
PLACEHOLDERS = {
    "host": "https://smsverificationservice.com",
    "password": "the key as the dashboard shows it",
    "store_url": "postgresql+psycopg://airflow@db/smsverify",
    "rate_limit": "60",
    "rate_period": "60",
    "code_latency": "5",
    "account": "sales",
    "namespace": "staging",
    "purchase_grace": "120",
    "daily_budget": "20",
    "run_budget": "5",
    "connect_timeout": "10",
    "read_timeout": "30",
    "call_timeout": "900",
    "message_retention_days": "7",
}


def widgets() -> dict[str, Any]:
    """The fields in WTForms, which has no number with a fraction: those are texts."""
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional

    made = {}
    for name, field in FIELDS.items():
        kind = field["schema"]["type"][0]
        is_secret = field["schema"].get("format") == "password"
        widget = {"boolean": BooleanField, "integer": IntegerField}.get(
            kind, PasswordField if is_secret else StringField
        )
        made[name] = widget(
            field["label"],
            validators=[Optional()],
            description=field["description"],
            default=field["schema"].get("default"),
        )
    return made
