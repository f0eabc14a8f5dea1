"""The block: the settings that arguments and environment give, checked the same way, its secrets kept."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import httpx
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect.exceptions import ParameterTypeError
from pydantic import SecretStr, ValidationError

from prefect_smsverify import SmsVerifyCredentials, aorder_number, cancel_order, get_balance, order_number
from smsverify import InvalidRequestError, SettingsUnavailableError, SmsVerifyHook
from smsverify.settings import Settings
from smsverify.simulator import Simulator

EVERYTHING: dict[str, Any] = {
    "api_key": "key-of-the-test",
    "base_url": "http://service.example",
    "store_url": "sqlite:////tmp/of-the-test.db",
    "rate_limit": 7,
    "rate_period": 2.5,
    "code_latency": 20.0,
    "account": "wallet",
    "namespace": "staging",
    "purchase_grace": 11.0,
    "exclusive_account": False,
    "daily_budget": Decimal("7.50"),
    "run_budget": Decimal("2.50"),
    "allow_unshared_store": True,
    "connect_timeout": 1.5,
    "read_timeout": 2.5,
    "call_timeout": 3.5,
    "insecure": True,
    "message_retention_days": 1.5,
    "callback_secrets": ["the-first-secret", "the-second-secret"],
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SMSVERIFY_{name.upper()}", raising=False)


def test_the_block_has_every_setting() -> None:
    assert set(SmsVerifyCredentials.model_fields) == set(Settings.model_fields) == set(EVERYTHING)


def test_block_environment_and_arguments_give_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = SmsVerifyHook(**EVERYTHING).settings
    assert SmsVerifyCredentials(**EVERYTHING).get_hook().settings == expected

    for name, value in EVERYTHING.items():
        text = ",".join(value) if isinstance(value, list) else str(value)
        monkeypatch.setenv(f"SMSVERIFY_{name.upper()}", text)
    assert SmsVerifyCredentials().get_hook().settings == expected


def test_what_the_block_gives_precedes_the_environment_and_what_it_leaves_empty_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SMSVERIFY_API_KEY", "from-the-environment")
    monkeypatch.setenv("SMSVERIFY_RATE_LIMIT", "7")
    settings = SmsVerifyCredentials(rate_limit=9, base_url="").get_hook().settings
    assert settings.api_key.get_secret_value() == "from-the-environment"
    assert settings.rate_limit == 9
    assert settings.base_url == Settings.model_fields["base_url"].default


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("api_key", {}),
        ("api_key", {"api_key": "with space"}),
        ("base_url", {"api_key": "k", "base_url": "http://service.example"}),
        ("base_url", {"api_key": "k", "base_url": "ftp://service.example"}),
        ("store_url", {"api_key": "k", "store_url": "mysql://u:hidden@h/db"}),
        ("rate_limit", {"api_key": "k", "rate_limit": 0}),
        ("read_timeout", {"api_key": "k", "read_timeout": -1}),
    ],
)
def test_a_bad_setting_is_refused_as_the_hook_refuses_it(field: str, given: dict[str, Any]) -> None:
    hook = SmsVerifyCredentials(**given).get_client()
    with pytest.raises(InvalidRequestError) as refused:
        hook.get_balance()
    with pytest.raises(InvalidRequestError) as expected:
        SmsVerifyHook(**given).get_balance()
    assert refused.value.field == expected.value.field == field
    assert str(refused.value) == str(expected.value)


def test_a_value_of_the_wrong_type_is_refused_without_being_shown() -> None:
    with pytest.raises(ValidationError, match="api_key") as refused:
        SmsVerifyCredentials(api_key=["hidden-key"])
    assert "hidden-key" not in str(refused.value)


def test_secrets_are_in_no_repr_of_block_or_hook() -> None:
    block = SmsVerifyCredentials(**EVERYTHING)
    shown = f"{block!r} {block} {block.get_hook()!r} {block.model_dump_json()}"
    for secret in ("key-of-the-test", "of-the-test.db", "first-secret", "second-secret"):
        assert secret not in shown


def test_a_saved_block_is_found_by_its_name_in_flows_of_both_kinds(simulator: Simulator) -> None:
    given = {"api_key": simulator.api_key, "base_url": simulator.url, "rate_period": simulator.rate_period}
    SmsVerifyCredentials(**given).save("by-name")
    assert SmsVerifyCredentials.load("by-name").api_key == SecretStr(simulator.api_key)

    @flow
    def plain() -> Any:
        return get_balance("by-name")

    @task
    def nested() -> Any:
        return get_balance("by-name")

    @flow
    async def coroutine() -> Any:
        # A task that is a function, in the event loop's own thread.
        return get_balance("by-name"), nested()

    assert plain().amount == 50
    assert [balance.amount for balance in asyncio.run(coroutine())] == [50, 50]


def test_a_misspelt_field_that_is_assigned_is_refused_before_anything_is_bought() -> None:
    block: Any = SmsVerifyCredentials(api_key=SecretStr("key"))
    block.daily_bugdet = 5
    with pytest.raises(InvalidRequestError, match="daily_budget") as caught:
        block.get_hook()
    assert caught.value.field == "daily_bugdet"


def test_a_misspelt_field_is_refused_with_the_one_that_was_meant(simulator: Simulator) -> None:
    with pytest.raises(ValueError, match=r"did you mean daily_budget\?"):
        SmsVerifyCredentials(daily_bugdet="5")
    for budget in ("5", Decimal("5E+2")):
        SmsVerifyCredentials(daily_budget=budget).save("spelt", overwrite=True)
        assert SmsVerifyCredentials.load("spelt").daily_budget == Decimal(budget)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate_period", True), ("rate_period", "1_0"), ("rate_limit", True), ("run_budget", "1_000")],
)
def test_what_only_python_takes_for_a_number_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match="must be"):
        SmsVerifyCredentials(**{field: value})


@pytest.mark.parametrize(
    ("value", "field", "why"),
    [
        ({"run_budget": "1_000"}, "run_budget", "must be USD"),
        ({"rate_limit": True}, "rate_limit", "must be a whole number"),
        ({"daily_bugdet": "5"}, "daily_bugdet", "did you mean daily_budget"),
        ({"api_key": ["hidden-key"]}, "api_key", "must be a text"),
    ],
)
def test_a_saved_value_that_is_refused_is_named(
    value: dict[str, Any], field: str, why: str, simulator: Simulator
) -> None:
    saved = SmsVerifyCredentials().save("refused", overwrite=True)

    async def edit() -> None:
        async with get_client() as client:
            await client.update_block_document(saved, BlockDocumentUpdate(data=value))

    asyncio.run(edit())
    with pytest.raises(InvalidRequestError, match="'refused' has a wrong value") as caught:
        get_balance.fn("refused")
    assert caught.value.field == field
    assert why in str(caught.value)
    assert "hidden-key" not in str(caught.value)
    assert simulator.requests() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("api_key", "**********"), ("store_url", "********"), ("callback_secrets", ["**********"])],
)
def test_a_secret_that_prefect_has_masked_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{field} is a mask.* Give the block by its name"):
        SmsVerifyCredentials(**{field: value})


def test_a_block_in_stored_parameters_is_refused(simulator: Simulator) -> None:
    @flow
    def whole(account: SmsVerifyCredentials) -> Any:
        return get_balance(account)

    stored = whole.serialize_parameters({"account": SmsVerifyCredentials(api_key="key-of-the-test")})
    with pytest.raises(ParameterTypeError, match="is a mask"):
        whole(**stored)
    assert simulator.requests() == []


@pytest.mark.parametrize("given", ["not-there", "None", "", None, 7, ("api_key", SecretStr("s3cret"))])
def test_credentials_that_are_no_block_never_mean_the_environments_wallet(
    simulator: Simulator, given: Any
) -> None:
    @flow
    def whole() -> None:
        order_number.fn(given, "temporary", service="WhatsApp")

    with pytest.raises(InvalidRequestError, match="credentials") as caught:
        whole()
    assert caught.value.field == "credentials"
    assert "s3cret" not in str(caught.value)
    assert simulator.requests() == []


def test_a_server_that_does_not_answer_leaves_open_which_wallet_is_meant(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(SmsVerifyCredentials, "load", fail)
    with pytest.raises(SettingsUnavailableError, match="'mine' cannot be read now"):
        order_number.fn("mine", "temporary", service="WhatsApp")
    assert simulator.requests() == []


def test_what_is_not_there_yet_is_called_by_its_name(
    simulator: Simulator, account: SmsVerifyCredentials
) -> None:
    @flow
    def whole() -> None:
        with pytest.raises(InvalidRequestError, match="await"):
            cancel_order.fn(account, aorder_number.fn(account, "temporary", service="WhatsApp"))
        future = order_number.submit(account, "temporary", service="WhatsApp")
        with pytest.raises(InvalidRequestError, match=r"result\(\)"):
            cancel_order.fn(account, future)
        with pytest.raises(InvalidRequestError, match=r"unmapped\(credentials\)"):
            order_number.map(account, "temporary", service=["WhatsApp"] * len(list(account))).result()

    whole()
