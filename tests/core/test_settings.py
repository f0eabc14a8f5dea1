"""Where the settings come from, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from rigs import API_KEY

from smsverify import InvalidRequestError, SmsVerifyError, SmsVerifyHook
from smsverify.settings import Settings

GIVEN: dict[str, Any] = {
    "api_key": API_KEY,
    "base_url": "https://sms.example/",
    "store_url": "sqlite:////tmp/other.db",
    "rate_limit": 30,
    "rate_period": 6.0,
    "code_latency": 20.0,
    "account": "wallet",
    "namespace": "staging",
    "purchase_grace": 5.0,
    "exclusive_account": False,
    "daily_budget": Decimal("25.50"),
    "run_budget": Decimal(5),
    "allow_unshared_store": True,
    "connect_timeout": 1.0,
    "read_timeout": 2.0,
    "call_timeout": 3.0,
    "insecure": True,
    "message_retention_days": 2.0,
    "callback_secrets": ("the-first-secret", "the-second-secret"),
}


def load(**given: Any) -> Settings:
    return Settings.load({"api_key": API_KEY, **given}, {})


def refused(**given: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        load(**given)
    return caught.value


def test_arguments_and_environment_give_the_same_settings() -> None:
    texts = GIVEN | {
        "insecure": "true",
        "allow_unshared_store": "yes",
        "exclusive_account": "no",
        "callback_secrets": "the-first-secret, the-second-secret,",
    }
    environment = {f"SMSVERIFY_{name.upper()}": str(value) for name, value in texts.items()}
    assert Settings.load(GIVEN, {}) == Settings.load({}, environment)
    assert set(GIVEN) == set(Settings.model_fields)


def test_what_is_given_goes_before_the_environment_and_empty_counts_as_not_given() -> None:
    environment = {"SMSVERIFY_API_KEY": "other", "SMSVERIFY_RATE_LIMIT": "7", "SMSVERIFY_BASE_URL": ""}
    settings = Settings.load({"api_key": API_KEY, "rate_limit": None, "account": ""}, environment)
    assert settings.api_key.get_secret_value() == API_KEY
    assert (settings.rate_limit, settings.account) == (7, None)
    assert settings.base_url == "https://smsverificationservice.com"


def test_the_defaults_are_the_documented_service_and_one_file_for_all_processes(tmp_path: Path) -> None:
    settings = load()
    assert (settings.base_url, settings.rate_limit, settings.rate_period) == (
        "https://smsverificationservice.com",
        60,
        60.0,
    )
    url = settings.store_url.get_secret_value()
    assert url == f"sqlite:///{tmp_path / 'home' / '.smsverify' / 'store.db'}"
    assert load().store_url == settings.store_url


def test_the_hook_reads_the_environment_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = SmsVerifyHook()
    monkeypatch.setenv("SMSVERIFY_API_KEY", API_KEY)
    monkeypatch.setenv("SMSVERIFY_NAMESPACE", "blue")
    assert hook.settings.api_key.get_secret_value() == API_KEY
    assert hook.settings.namespace == "blue"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("api_key", "two words"),
        ("api_key", "line\nbreak"),
        ("api_key", "schlüssel"),
        ("api_key", " "),
        ("base_url", "ftp://sms.example"),
        ("base_url", "sms.example"),
        ("base_url", "https://"),
        ("base_url", "https://sms.example:port"),
        ("base_url", "https://user:word@sms.example"),
        ("base_url", "https://sms.example/?key=1"),
        ("base_url", "http://sms.example"),
        ("base_url", "http://192.168.1.7"),
        ("base_url", "http://localhost.example"),
        ("base_url", "http://127.0.0.1.example"),
        ("store_url", "mysql://h/db"),
        ("store_url", "postgresql://u:geheim@h/db"),
        ("store_url", "sqlite://"),
        ("store_url", "sqlite:///:memory:"),
        ("store_url", "sqlite:///:memory:?cache=shared"),
        ("store_url", "postgresql+psycopg://u:geheim@h:abc/db"),
        ("store_url", "postgresql+psycopg://u:geheim@rest@h/db"),
        ("store_url", "postgresql+psycopg://h/db?user=u&password=geheim"),
        ("rate_limit", 0),
        ("rate_limit", "sixty"),
        ("rate_limit", 1.5),
        ("rate_period", 0),
        ("rate_period", 0.0009),
        ("rate_period", "nan"),
        ("rate_period", float("inf")),
        ("code_latency", 0.5),
        ("purchase_grace", -1),
        ("purchase_grace", 5),
        ("connect_timeout", 0),
        ("read_timeout", float("nan")),
        ("call_timeout", -3),
        ("insecure", "perhaps"),
        ("message_retention_days", 0),
        ("namespace", "n" * 101),
        ("callback_secrets", "short"),
        ("callback_secrets", ["long-enough-to-be-one", "not"]),
        ("callback_secrets", "no/part-of-an-address"),
        ("callback_secrets", "with spaces in between"),
        ("callback_secrets", 1234567890123456),
        ("api_key", "'quoted'"),
        ("api_key", '"quoted"'),
        ("api_key", "Bearer geheim"),
        ("api_key", "Authorization: Bearer geheim"),
        ("api_key", "None"),
        ("api_key", "{{ var.value.key }}"),
        ("account", "None"),
        ("account", "null"),
        ("namespace", "{{ params.where }}"),
        ("namespace", "undefined"),
        ("namespace", "a\0b"),
        ("rate_limit", True),
        ("account", "a\nb"),
        ("daily_budget", "5,00"),
        ("daily_budget", "$5"),
        ("daily_budget", "None"),
        ("daily_budget", "1_000"),
        ("daily_budget", True),
        ("run_budget", "-1"),
        ("run_budget", " "),
        ("rate_limit", "60/min"),
        ("rate_limit", "6_0"),
        ("rate_limit", b"60"),
        pytest.param("rate_limit", 10**5000, id="of 5000 digits"),
        ("rate_period", True),
        ("rate_period", "1_0"),
        ("rate_period", "٦٠"),
        ("rate_period", b"60"),
        ("code_latency", True),
        ("purchase_grace", "12_0"),
        ("purchase_grace", 1e300),
        ("connect_timeout", True),
        ("connect_timeout", 1e300),
        ("read_timeout", "1e300"),
        ("call_timeout", 1e300),
        ("call_timeout", "9_00"),
        ("message_retention_days", True),
        ("message_retention_days", 1e300),
        ("daily_budget", "9" * 16),
        ("run_budget", Decimal("1e400")),
        ("run_budget", Decimal("1e-400")),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused_by_name(field: str, value: Any) -> None:
    error = refused(**{field: value})
    assert error.field == field
    assert str(error).startswith(field)
    assert "geheim" not in str(error)
    assert error.__cause__ is None  # pydantic's error quotes what it was given


def test_a_number_may_be_written_in_any_plain_way() -> None:
    for value in (6, 6.0, "6", " 6.0 ", "6.", "+6", "0.6e1", Decimal(6)):
        assert load(rate_period=value).rate_period == 6
    for value in (5, "5", " 5.00 ", Decimal("5.0")):
        assert load(run_budget=value).run_budget == 5


def test_an_enum_s_member_is_what_it_stands_for() -> None:
    class Wallet(str, Enum):
        MAIN = "main"

    class Odd:
        __hash__ = object.__hash__

        def __eq__(self, other: object) -> Any:
            raise ValueError("ambiguous")

    assert load(account=Wallet.MAIN).account_id == "main"
    assert refused(account=Odd()).field == "account"


def test_a_missing_key_says_where_to_put_it() -> None:
    with pytest.raises(InvalidRequestError, match="SMSVERIFY_API_KEY") as caught:
        SmsVerifyHook().get_balance()
    assert caught.value.field == "api_key"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"rate_limit": 10_001}, "rate_limit must be a whole number from 1 to 10000"),
        ({"rate_limit": 1.5}, "rate_limit must be a whole number from 1 to 10000"),
        ({"rate_period": 0}, "rate_period must be from 0.001 to 86400"),
        ({"purchase_grace": 1e9}, "purchase_grace must be at most 31536000"),
        ({"account": "a" * 101}, "account must be a text of at most 100 characters"),
        ({"exclusive_account": "maybe"}, "exclusive_account must be true or false"),
        ({"daily_budget": -1}, "daily_budget must be USD, zero or more, such as 5 or 0.50"),
        (
            {"callback_secrets": 5},
            "callback_secrets must be a text with commas between the secrets, or a list of them",
        ),
        ({"api_key": 5}, "api_key must be a text"),
    ],
)
def test_what_a_setting_may_be_is_said_in_plain_words(wrong: dict[str, Any], text: str) -> None:
    assert str(refused(**wrong)) == text


def test_an_unknown_setting_names_those_that_exist() -> None:
    error = refused(rate_limits=3)
    assert error.field == "rate_limits"
    assert "rate_limit," in str(error)


def test_what_is_wrong_with_a_key_is_named() -> None:
    assert "quotes" in str(refused(api_key='"k3y"'))
    assert "Bearer" in str(refused(api_key="Bearer k3y"))
    assert "whole number" in str(refused(rate_limit="60/min"))


def test_a_misspelt_setting_is_refused_with_the_one_that_was_meant() -> None:
    for name in ("daily_bugdet", "Daily_Budget", "dailybudget"):
        error = refused(**{name: "5"})
        assert error.field == name
        assert "did you mean daily_budget?" in str(error)


def test_a_misspelt_variable_is_logged_once_with_the_one_that_was_meant(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smsverify.settings._warned", set())
    environment = {
        "SMSVERIFY_API_KEY": API_KEY,
        "SMSVERIFY_DAILY_BUGDET": "5",
        "smsverify_run_budget": "5",
        "SMSVERIFY_PORT_8080_TCP_ADDR": "10.0.0.7",
    }
    for _ in range(2):
        assert Settings.load({}, environment).daily_budget is None
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 2
    assert "SMSVERIFY_DAILY_BUGDET" in logged[0]
    assert "did you mean SMSVERIFY_DAILY_BUDGET?" in logged[0]
    assert "did you mean SMSVERIFY_RUN_BUDGET?" in logged[1]


@pytest.mark.parametrize("home", [None, ""])
def test_without_a_home_the_store_has_to_be_named(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])  # a user that the machine does not know
    else:
        monkeypatch.setenv("HOME", home)
    error = refused()
    assert error.field == "store_url"
    assert "SMSVERIFY_STORE_URL" in str(error)
    assert load(store_url="sqlite:////tmp/other.db")


def test_where_only_some_addresses_are_allowed_no_other_is_and_no_strange_server(tmp_path: Path) -> None:
    allowed = {"SMSVERIFY_ONLY": "http://127.0.0.1:8900/ http://127.0.0.1:8901", "SMSVERIFY_API_KEY": API_KEY}

    def load(**given: Any) -> Settings:
        return Settings.load(given, allowed)

    assert load(base_url="http://127.0.0.1:8900").base_url == "http://127.0.0.1:8900"
    assert load(base_url="http://127.0.0.1:8901/", store_url=f"sqlite:///{tmp_path}/other.db")
    elsewhere = "postgresql+psycopg://u@h/db"
    for given, field in (
        ({}, "base_url"),
        ({"base_url": "https://sms.example"}, "base_url"),
        ({"base_url": "http://127.0.0.1:8900", "store_url": elsewhere}, "store_url"),
    ):
        with pytest.raises(InvalidRequestError, match="SMSVERIFY_ONLY") as caught:
            load(**given)
        assert caught.value.field == field
    allowed["SMSVERIFY_STORE_URL"] = elsewhere
    assert load(base_url="http://127.0.0.1:8900").store_url.get_secret_value() == elsewhere


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8900",
        "http://127.0.0.1",
        "http://127.8.9.1:1",
        "http://[::1]:81",
        "http://sim.localhost",
        "https://sms.example/proxy",
    ],
)
def test_plain_http_is_allowed_to_this_machine_only(url: str) -> None:
    assert load(base_url=url).base_url == url


def test_plain_http_elsewhere_has_to_be_asked_for_by_name() -> None:
    assert "insecure" in str(refused(base_url="http://sms.example"))
    assert load(base_url="http://sms.example", insecure=True).base_url == "http://sms.example"


def test_the_rate_limit_belongs_to_the_key_and_the_ledger_to_the_account() -> None:
    one, rotated = load(account="wallet"), load(account="wallet", api_key="another")
    elsewhere = load(base_url="https://other.example")
    assert one.key_id != rotated.key_id
    assert elsewhere.key_id == one.key_id
    assert one.account_id == rotated.account_id == "wallet"
    assert load().account_id == load().key_id
    assert API_KEY not in one.key_id


def test_every_pace_follows_from_the_period() -> None:
    assert load().time_scale == 1
    assert load(rate_period=6).time_scale == pytest.approx(0.1)


def test_settings_show_no_secret() -> None:
    settings = load(store_url="postgresql+psycopg://u:geheim@h/db", callback_secrets="ein-geheimes-wort")
    for shown in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert not any(secret in shown for secret in (API_KEY, "geheim", "wort"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:geheim@127.0.0.1:1/db",
        "postgresql+psycopg://u:ge%23heim@127.0.0.1:1/db",
        "sqlite:////proc/nowhere/store.db",
    ],
)
def test_a_store_that_cannot_be_reached_is_a_store_error(url: str) -> None:
    hook = SmsVerifyHook(API_KEY, store_url=url)
    with pytest.raises(SmsVerifyError) as caught:
        hook.upgrade_store()
    assert type(caught.value).__name__ == "StoreError"
    assert not any(part in str(caught.value) for part in ("geheim", "ge#heim", "ge%23heim"))


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("HTTPS://SMS.Example", "https://sms.example"),
        (" https://sms.example./ ", "https://sms.example"),
        ("https://sms.example:443//", "https://sms.example"),
        ("http://LOCALHOST:80", "http://localhost"),
        ("http://127.0.0.1:8900/", "http://127.0.0.1:8900"),
        ("http://[0:0:0:0:0:0:0:1]:8900", "http://[::1]:8900"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example"),
        ("https://MÜNCHEN.example", "https://xn--mnchen-3ya.example"),
        ("https://sms.example/api/v1", "https://sms.example"),
        ("https://sms.example/api/v1/", "https://sms.example"),
        ("https://sms.example/Sub/api/v1/", "https://sms.example/Sub"),
    ],
)
def test_an_address_has_one_spelling(given: str, canonical: str) -> None:
    assert load(base_url=given).base_url == canonical
    assert load(base_url=canonical).base_url == canonical


@pytest.mark.parametrize(
    "given",
    [
        "https://[abc",
        "https://[::1",
        "https://sms.example:99999",
        "https://sms.example:-1",
        "https://user@sms.example",
        "https://:@sms.example",
        "https://sms example",
        "https://sms.example/a b",
        "https://sms.example\n.evil.example",
        "https://sms.example\\@evil.example",
        "https://sms.example/../admin",
        "https://sms.example/%2e%2e/admin",
        "https://sms.example//x",
        "https://sms.example/päth",
        "https://..",
        "https://a..b",
        "https://xn--\u202e.example",
        "https://" + "a" * 70 + ".example",
    ],
)
def test_an_address_that_is_none_is_refused_in_words(given: str) -> None:
    error = refused(base_url=given)
    assert error.field == "base_url"
    assert str(error).startswith("base_url must")
    assert str(error).isprintable()


def test_a_key_is_one_however_its_address_is_written() -> None:
    urls = (
        "http://127.0.0.1:8900",
        "http://localhost:8900",
        "http://LOCALHOST:8900/api/v1",
        "https://x.example",
    )
    assert len({load(base_url=url).key_id for url in urls}) == 1
    assert len({load(base_url=url).account_id for url in urls}) == 1
    assert load(api_key="another").key_id != load().key_id
