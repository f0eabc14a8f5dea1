"""The settings, checked in one way, wherever they come from."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from smsverify._input import storeurl
from smsverify._input.amounts import as_limit, is_absurd
from smsverify._input.templates import is_left_over
from smsverify._input.values import number_text, own_type
from smsverify._runtime.clock import MINUTE
from smsverify.errors import InvalidRequestError
from smsverify.text import log_of

log = log_of(__name__)

DEFAULT_BASE_URL = "https://smsverificationservice.com"
ENVIRONMENT_PREFIX = "SMSVERIFY_"
# Where this is set, only these addresses are called, and only the store of the environment or a store in a
# file is used. So a test cannot reach a real wallet, wherever its settings come from.
ONLY = f"{ENVIRONMENT_PREFIX}ONLY"
API_PATH = "/api/v1"
SHORTEST_GRACE = 0.25  # of the service's minute
SHORTEST = 0.001  # of a time, in its unit; not "above 0", because Airflow's form knows no such bound
LONGEST = 31_536_000  # of a time, in its unit: no operating system waits for ever
NUMBERS = (
    *("rate_limit", "rate_period", "code_latency", "purchase_grace", "daily_budget", "run_budget"),
    *("connect_timeout", "read_timeout", "call_timeout", "message_retention_days"),
)
# How a text has to be written that is one of them, and what an error says.
_USD = (r"[0-9]*\.?[0-9]+(E\+[0-9]{1,2})?", "must be USD, zero or more, such as 5 or 0.50")
_WRITTEN = {
    "rate_limit": (
        "[0-9]+",
        "must be a whole number of requests, such as 60; rate_period is their time in seconds",
    ),
    "daily_budget": _USD,
    "run_budget": _USD,
}
_BOUNDS = ("ge", "le", "max_length")
_FITS = {
    "daily_budget": _USD[1].removeprefix("must be "),
    "run_budget": _USD[1].removeprefix("must be "),
    "callback_secrets": "a text with commas between the secrets, or a list of them",
}
_OTHERWISE = (r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", "must be a number, such as 60 or 0.5")
CALLBACK_SECRET = re.compile(r"[A-Za-z0-9_-]{16,200}")


def default_store_url() -> str:
    """The store if none is named: one fixed file, so that all processes of the user share it.

    Raises:
        InvalidRequestError: this process has no home directory.
    """
    try:
        home = Path.home() if os.environ.get("HOME") != "" else Path()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise InvalidRequestError(
            "store_url is missing. The default store is a file in the home directory, and this process has "
            f"none. Set store_url ({ENVIRONMENT_PREFIX}STORE_URL) or HOME",
            field="store_url",
        )
    return f"sqlite:///{home / '.smsverify' / 'store.db'}"


def plain_number(value: Any, info: ValidationInfo) -> Any:
    """A number that is a setting. Raises `ValueError` for what Python alone takes for one: 1_000, True."""
    text = number_text(value)
    form, why = _WRITTEN.get(info.field_name or "", _OTHERWISE)
    if value is not None and (not text or (isinstance(value, str) and not re.fullmatch(form, text))):
        raise ValueError(why)
    return value


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value == "")


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseModel):
    """All settings of a `SmsVerifyHook`, checked.

    `Settings.load` reads a setting that is not given from the environment, as `SMSVERIFY_<NAME>`.

    Attributes:
        api_key: the service's API key.
        base_url: the service's address, `https` unless it is this machine's or `insecure` is set; a
            `/api/v1` at its end is left out.
        store_url: SQLAlchemy URL of the store, `sqlite:////<absolute path>` or `postgresql+psycopg://…`.
            All who use the same account must use the same store.
        rate_limit: requests that the service allows in `rate_period`.
        rate_period: length of the service's minute in seconds. All pauses and intervals are relative to it.
        code_latency: seconds, if `rate_period` is 60, that a code may lie at the service while requests
            are scarce. The longer, the rarer are polls and the more codes come in a minute. From 30 on,
            numbers are also ordered ahead on idle requests.
        account: name of the wallet; keeps ledger and inbox when the key is rotated. Default: derived from the
            key.
        namespace: separates the purchases' keys of deployments that share a store.
        purchase_grace: seconds after which a purchase that the order list does not show counts as not made,
            unless the wallet shows otherwise; at least a quarter of `rate_period`.
        exclusive_account: whether only the users of this store buy on the account. Then an order that has no
            owner and fits is taken as the purchase whose answer was lost. Otherwise it is only reported.
        daily_budget: USD that the account may spend in a day (UTC), for all who share the store. A refund
            counts when the service's list shows it.
        run_budget: USD that one run may spend: a Dag run, a flow run with its subflows, otherwise a program.
        allow_unshared_store: allows paid calls with a SQLite store if tasks run on several machines.
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds to wait for the next bytes of an answer.
        call_timeout: seconds that one call may take in all, with retries and the wait for the rate limit.
        insecure: allows plain `http` to another machine.
        message_retention_days: days after which the text of a message is deleted from the store.
        callback_secrets: secrets of the callback URL, each of 16 to 200 letters, digits, `-` or `_`. Several
            are valid at the same time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: SecretStr
    base_url: str = DEFAULT_BASE_URL
    store_url: SecretStr
    rate_limit: int = Field(default=60, ge=1, le=10_000)
    rate_period: float = Field(default=MINUTE, ge=SHORTEST, le=86_400, allow_inf_nan=False)
    code_latency: float = Field(default=5, ge=1, le=3600, allow_inf_nan=False)
    account: str | None = Field(default=None, min_length=1, max_length=100)
    namespace: str = Field(default="", max_length=100)
    purchase_grace: float = Field(default=120, le=LONGEST, allow_inf_nan=False)
    exclusive_account: bool = True
    daily_budget: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False)
    run_budget: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False)
    allow_unshared_store: bool = False
    connect_timeout: float = Field(default=10, ge=SHORTEST, le=LONGEST, allow_inf_nan=False)
    read_timeout: float = Field(default=30, ge=SHORTEST, le=LONGEST, allow_inf_nan=False)
    call_timeout: float = Field(default=900, ge=SHORTEST, le=LONGEST, allow_inf_nan=False)
    insecure: bool = False
    message_retention_days: float = Field(default=7, ge=SHORTEST, le=36_500, allow_inf_nan=False)
    callback_secrets: Annotated[tuple[SecretStr, ...], BeforeValidator(_split)] = Field(default=())

    @classmethod
    def load(cls, given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
        """Each setting as given, otherwise from the environment, otherwise its default.

        Args:
            given: settings by name; `None` and an empty text mean "not given".
            environ: the environment, `os.environ` by default.

        Raises:
            InvalidRequestError: a setting is unknown, missing or not allowed; `field` names it.
        """
        environ = os.environ if environ is None else environ
        _warn_of_unknown(environ)
        plain = {name: own_type(value) for name, value in given.items()}
        values = {name: value for name, value in plain.items() if not _is_blank(value)}
        for name in cls.model_fields:
            from_environment = environ.get(f"{ENVIRONMENT_PREFIX}{name.upper()}", "")
            if name not in values and from_environment != "":
                values[name] = from_environment
        if "store_url" not in values:
            values["store_url"] = default_store_url()
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise invalid_setting(error) from None
        refuse_what_is_not_allowed(settings, environ)
        return settings

    @field_validator("api_key")
    @classmethod
    def _api_key_fits_a_header(cls, value: SecretStr) -> SecretStr:
        key = value.get_secret_value().strip()
        if key[:1] in _QUOTES or key[-1:] in _QUOTES:
            raise ValueError("must be given without quotes: they would be sent as part of the key")
        if re.match(r"(authorization\s*:\s*)?bearer\b", key, re.IGNORECASE):
            raise ValueError('must be the key alone, without "Bearer", which is added when the key is sent')
        if is_left_over(key):
            raise ValueError("is empty, or a template whose value is missing")
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("must be the key as the dashboard shows it: printable ASCII without spaces")
        return SecretStr(key)

    @field_validator("account", "namespace")
    @classmethod
    def _names_are_meant(cls, value: str | None) -> str | None:
        if value and is_left_over(value):
            raise ValueError("is a template whose value is missing: give it a value, or leave it out")
        if value and not value.isprintable():
            raise ValueError("must be a text without line breaks and control characters")
        return value

    @field_validator(*NUMBERS, mode="before")
    @classmethod
    def _numbers_are_plain(cls, value: Any, info: ValidationInfo) -> Any:
        return plain_number(value, info)

    @field_validator("daily_budget", "run_budget")
    @classmethod
    def _budgets_are_amounts(cls, value: Decimal | None) -> Decimal | None:
        if value is None:
            return None
        value = as_limit(value)
        if is_absurd(value):
            raise ValueError(_USD[1])
        return value

    @field_validator("callback_secrets")
    @classmethod
    def _callback_secrets_fit_a_url(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(CALLBACK_SECRET.fullmatch(secret.get_secret_value()) for secret in value):
            raise ValueError(
                "must each have 16 to 200 letters, digits, - or _, because they are part of an address and "
                "must be hard to guess; `python -c 'import secrets; print(secrets.token_urlsafe(32))'` "
                "prints one"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _base_url_is_an_address(cls, value: str) -> str:
        return _canonical(value.strip())

    @field_validator("store_url")
    @classmethod
    def _store_url_is_supported(cls, value: SecretStr) -> SecretStr:
        return SecretStr(storeurl.checked(value.get_secret_value()))

    @model_validator(mode="after")
    def _the_grace_is_long_enough_to_know(self) -> Settings:
        shortest = self.rate_period * SHORTEST_GRACE
        if self.purchase_grace < shortest:
            raise ValueError(
                f"purchase_grace: must be at least {shortest:g} s, a quarter of rate_period: before "
                "that, the list of orders may not show what was bought"
            )
        return self

    @model_validator(mode="after")
    def _the_key_travels_encrypted(self) -> Settings:
        parts = urlsplit(self.base_url)
        if parts.scheme == "http" and not self.insecure and not is_loopback(parts.hostname or ""):
            raise ValueError(
                "base_url: must be https, because plain http shows the API key to the network (insecure "
                "allows it)"
            )
        return self

    @property
    def key_id(self) -> str:
        """A name of the API key that does not show it. The rate limit belongs to it.

        The address is not part of it: one key has one limit and one wallet, however its address is written.
        """
        return "key-" + hashlib.sha256(self.api_key.get_secret_value().encode()).hexdigest()[:16]

    @property
    def account_id(self) -> str:
        """The name of the wallet. Ledger, inbox and orders belong to it."""
        return self.account or self.key_id

    @property
    def store_is_a_file(self) -> bool:
        """Whether the store is SQLite, which serves one machine."""
        return self.store_url.get_secret_value().startswith("sqlite:")

    @property
    def is_local(self) -> bool:
        """Whether the service is on this machine."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def longest_exchange(self) -> float:
        """Seconds that one request may take: connecting, the headers, the body and its last piece.

        The time-outs follow a clock of the system that NTP may slow down by a twelfth.
        """
        return self.longest_start + 3.3 * self.read_timeout

    @property
    def longest_start(self) -> float:
        """Seconds from a request's slot to its first byte. A later request could outlive its slot."""
        return 2 * self.connect_timeout

    @property
    def time_scale(self) -> float:
        """How long the service's minute is in real minutes. All pauses and intervals are multiplied by it."""
        return self.rate_period / MINUTE


_QUOTES = ("'", '"', "`", "\u2018", "\u2019", "\u201c", "\u201d")
_OF_KUBERNETES = re.compile(r"(_SERVICE_HOST|_SERVICE_PORT|_PORT)(_|$)")  # of a service that has our name
_warned: set[str] = set()


def _warn_of_unknown(environ: Mapping[str, str]) -> None:
    """Logs once in a process which variables are misspelt: nothing else shows that they have no effect."""
    known = {ONLY, *(f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields)}
    for name in environ:
        is_ours = name.upper().startswith(ENVIRONMENT_PREFIX) and not _OF_KUBERNETES.search(name)
        if is_ours and name not in known and name not in _warned:
            _warned.add(name)
            log.warning(
                "%s in the environment is not a setting, and has no effect%s", name, _closest(name, known)
            )


def _closest(name: str, known: Iterable[str]) -> str:
    """The name that was probably meant, in brackets."""
    meant = {one.upper(): one for one in known}
    found = difflib.get_close_matches(name.upper(), meant, n=1)
    return f" (did you mean {meant[found[0]]}?)" if found else ""


def refuse_what_is_not_allowed(settings: Settings, environ: Mapping[str, str]) -> None:
    """Refuses a service or a store that `SMSVERIFY_ONLY` does not allow.

    Raises:
        InvalidRequestError: it is set, and does not name them.
    """
    only = environ.get(ONLY, "").replace(",", " ").split()
    if not only:
        return
    if settings.base_url not in {url.rstrip("/") for url in only}:
        raise InvalidRequestError(
            f"base_url is not allowed here: {ONLY} allows only {', '.join(only)}",
            field="base_url",
        )
    url = settings.store_url.get_secret_value()
    if not settings.store_is_a_file and url != environ.get(f"{ENVIRONMENT_PREFIX}STORE_URL"):
        raise InvalidRequestError(
            f"store_url is not allowed here: if {ONLY} is set, a store on a server has to be the one in "
            f"{ENVIRONMENT_PREFIX}STORE_URL",
            field="store_url",
        )


def _canonical(address: str) -> str:
    """The one spelling of an address. Raises `ValueError` if the address cannot be used."""
    if any(char.isspace() or not char.isprintable() for char in address) or "\\" in address:
        raise ValueError("must be an address without spaces, backslashes and control characters")
    try:
        parts = urlsplit(address)
        port, host = parts.port, _host(parts.hostname or "")
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or port == 0:
        raise ValueError("must be an address such as https://smsverificationservice.com")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must not have a user, a password, a query or a fragment")
    path = parts.path.rstrip("/")
    if path.endswith(API_PATH):  # as the documentation writes addresses
        path = path.removesuffix(API_PATH).rstrip("/")
    if any(unquote(part) in ("", ".", "..") for part in path.split("/")[1:]) or not path.isascii():
        raise ValueError("must have a plain path or none: no part of the path may be empty, . or ..")
    is_default = port in (None, {"http": 80, "https": 443}[parts.scheme])
    return f"{parts.scheme}://{host}{'' if is_default else f':{port}'}{path}"


def _host(name: str) -> str:
    """The one spelling of a host, IPv6 in brackets. Raises `ValueError` if it is not a host."""
    try:
        number = ip_address(name)
    except ValueError:
        name = name.rstrip(".").encode("idna").decode().lower()
        if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
            raise ValueError("no host") from None
        return name
    return f"[{number}]" if number.version == 6 else str(number)


def is_loopback(host: str) -> bool:
    """Whether the name or number of a host always means this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def refuse_unknown(name: str) -> None:
    """Refuses a name that is not a setting. `InvalidRequestError` says which one was probably meant."""
    if name not in Settings.model_fields:
        raise InvalidRequestError(f"{name} {_why_unknown(name)}", field=name)


def _why_unknown(name: str) -> str:
    known = ", ".join(Settings.model_fields)
    return f"is not a setting{_closest(name, Settings.model_fields)}; the settings are {known}"


def invalid_setting(error: ValidationError) -> InvalidRequestError:
    """The first problem, as our own error: the text of pydantic could quote a secret."""
    problem = error.errors(include_url=False, include_input=False)[0]
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InvalidRequestError):
        return cause
    message = problem["msg"].removeprefix("Value error, ")
    if problem["loc"]:
        field = str(problem["loc"][0])
    else:
        field, _, message = message.partition(": ")
    if problem["type"] == "missing":
        message = f"is missing: give it, or set {ENVIRONMENT_PREFIX}{field.upper()}"
    elif problem["type"] == "extra_forbidden":
        message = _why_unknown(field)
    elif problem["type"] != "value_error":
        message = f"must be {_what_fits(field)}"
    return InvalidRequestError(f"{field} {message}", field=field)


def _what_fits(field: str) -> str:
    """What a setting may be, from its type and its bounds. The texts of pydantic are for programmers."""
    if field in _FITS:
        return _FITS[field]
    kind = Settings.model_fields[field]
    if kind.annotation is bool:
        return "true or false"
    bounds = {name: getattr(one, name) for one in kind.metadata for name in _BOUNDS if hasattr(one, name)}
    if "max_length" in bounds:
        return f"a text of at most {bounds['max_length']} characters"
    if {"ge", "le"} <= bounds.keys():
        whole = "a whole number " if kind.annotation is int else ""
        return f"{whole}from {bounds['ge']:.12g} to {bounds['le']:.12g}"
    return f"at most {bounds['le']:.12g}" if "le" in bounds else "a text"
