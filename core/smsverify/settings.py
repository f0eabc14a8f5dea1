"""The settings, checked in one way wherever they come from."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from smsverify.errors import InvalidRequestError

DEFAULT_BASE_URL = "https://smsverificationservice.com"
ENVIRONMENT_PREFIX = "SMSVERIFY_"
MINUTE = 60.0
CALLBACK_SECRET = re.compile(r"[A-Za-z0-9_-]{16,200}")


def default_store_url() -> str:
    """The store of a user who names none: one fixed file, so that all processes of the machine meet in it."""
    return f"sqlite:///{Path.home() / '.smsverify' / 'store.db'}"


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseModel):
    """All settings of a `SmsVerifyHook`, checked.

    `Settings.load` fills what is not given from the environment, `SMSVERIFY_<NAME>`.

    Attributes:
        api_key: the service's API key.
        base_url: the service's address, `https` unless it is this machine's or `insecure` is set.
        store_url: SQLAlchemy URL of the store, `sqlite:///<file>` or `postgresql+psycopg://…`. Everybody who
            uses the same account must use the same store.
        rate_limit: requests that the service allows in `rate_period`.
        rate_period: length of the service's minute in seconds. Every pace of ours is relative to it.
        account: name of the wallet; keeps ledger and inbox when the key is rotated. Default: derived from the
            key.
        namespace: keeps the purchases' keys of deployments that share a store apart.
        purchase_grace: seconds after which a purchase that the order list does not show counts as not made.
        exclusive_account: whether nobody else buys on this account, so that an order that nobody owns and
            that fits is taken for the purchase whose answer was lost. Else it is only told.
        daily_budget: USD that the account may spend in a day (UTC), by all who share the store; refunds count
            back when the service's list shows them.
        run_budget: USD that one run may spend: a DAG run, a flow run with its subflows, else a program.
        allow_unshared_store: allows paid calls with a SQLite store where tasks run on several machines.
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds to wait for the next bytes of an answer.
        call_timeout: seconds that one call may take in all, with retries and the wait for the rate budget.
        insecure: allows plain `http` to another machine.
        message_retention_days: days after which the text of a message is purged from the store.
        callback_secrets: secrets of the callback URL, of 16 letters, digits, `-` or `_` and more; several are
            valid at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: SecretStr
    base_url: str = DEFAULT_BASE_URL
    store_url: SecretStr = Field(default_factory=lambda: SecretStr(default_store_url()))
    rate_limit: int = Field(default=60, ge=1, le=10_000)
    rate_period: float = Field(default=MINUTE, gt=0, le=86_400, allow_inf_nan=False)
    account: str | None = Field(default=None, min_length=1, max_length=100)
    namespace: str = Field(default="", max_length=100)
    purchase_grace: float = Field(default=120, ge=0, allow_inf_nan=False)
    exclusive_account: bool = True
    daily_budget: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False)
    run_budget: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False)
    allow_unshared_store: bool = False
    connect_timeout: float = Field(default=10, gt=0, allow_inf_nan=False)
    read_timeout: float = Field(default=30, gt=0, allow_inf_nan=False)
    call_timeout: float = Field(default=900, gt=0, allow_inf_nan=False)
    insecure: bool = False
    message_retention_days: float = Field(default=7, gt=0, allow_inf_nan=False)
    callback_secrets: Annotated[tuple[SecretStr, ...], BeforeValidator(_split)] = Field(default=())

    @classmethod
    def load(cls, given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from what is given, else from the environment, else the defaults.

        Args:
            given: settings by name; `None` and empty text mean not given.
            environ: the environment, `os.environ` by default.

        Raises:
            InvalidRequestError: a setting is unknown, missing or not allowed; `field` names it.
        """
        environ = os.environ if environ is None else environ
        values = {name: value for name, value in given.items() if value is not None and value != ""}
        for name in cls.model_fields:
            from_environment = environ.get(f"{ENVIRONMENT_PREFIX}{name.upper()}", "")
            if name not in values and from_environment != "":
                values[name] = from_environment
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _as_invalid(error) from None

    @field_validator("api_key")
    @classmethod
    def _api_key_fits_a_header(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("must be the key as the dashboard shows it: printable ASCII without spaces")
        return SecretStr(key)

    @field_validator("callback_secrets")
    @classmethod
    def _callback_secrets_fit_a_url(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(CALLBACK_SECRET.fullmatch(secret.get_secret_value()) for secret in value):
            raise ValueError(
                "must each have 16 to 200 letters, digits, - or _, so that they can be a part of an address "
                "and nobody guesses them; `python -c 'import secrets; print(secrets.token_urlsafe(32))'` "
                "prints one"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _base_url_is_an_address(cls, value: str) -> str:
        value = value.strip().rstrip("/")
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("must be an address such as https://smsverificationservice.com")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must hold neither a user, a password, a query nor a fragment")
        return value

    @field_validator("store_url")
    @classmethod
    def _store_url_is_supported(cls, value: SecretStr) -> SecretStr:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        known = "sqlite:///<path of a file> or postgresql+psycopg://<user>:<password>@<host>/<database>"
        try:
            url = make_url(value.get_secret_value())
        except (ArgumentError, ValueError):
            raise ValueError(f"must be {known}") from None
        is_file = url.drivername == "sqlite" and url.database not in (None, "", ":memory:") and not url.query
        is_server = url.drivername == "postgresql+psycopg" and bool(url.database)
        if not (is_file or is_server):
            raise ValueError(f"must be {known}")
        if "@" in (url.host or "") or "password" in url.query:
            raise ValueError(
                f"must be {known}, with the password in its place and @ : / in it written %40 %3A %2F"
            )
        return value

    @model_validator(mode="after")
    def _the_key_travels_encrypted(self) -> Settings:
        parts = urlsplit(self.base_url)
        if parts.scheme == "http" and not self.insecure and not _is_loopback(parts.hostname or ""):
            raise ValueError(
                "base_url: must be https: plain http shows the API key to the network (insecure allows it)"
            )
        return self

    @property
    def key_id(self) -> str:
        """A name of the API key at this address that does not give it away; the rate budget belongs to it."""
        text = f"{self.base_url} {self.api_key.get_secret_value()}"
        return "key-" + hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def account_id(self) -> str:
        """The wallet's name; ledger, inbox and claims belong to it."""
        return self.account or self.key_id

    @property
    def store_is_a_file(self) -> bool:
        """Whether the store is SQLite, which serves one machine."""
        return self.store_url.get_secret_value().startswith("sqlite:")

    @property
    def longest_exchange(self) -> float:
        """Seconds that one request may be under way: connecting, the headers, the body and its last piece."""
        return 2 * self.connect_timeout + 3 * self.read_timeout

    @property
    def tempo(self) -> float:
        """How long the service's minute is in real minutes: every pace of ours is multiplied by it."""
        return self.rate_period / MINUTE


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _as_invalid(error: ValidationError) -> InvalidRequestError:
    """The first problem as our own error. pydantic's own text could quote a secret."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["loc"]:
        field = str(problem["loc"][0])
    else:
        field, _, message = message.partition(": ")
    if problem["type"] == "missing":
        message = f"is missing: give it, or set {ENVIRONMENT_PREFIX}{field.upper()}"
    elif problem["type"] == "extra_forbidden":
        known = ", ".join(Settings.model_fields)
        message = f"is not a setting; the settings are {known}"
    return InvalidRequestError(f"{field} {message}", field=field)
