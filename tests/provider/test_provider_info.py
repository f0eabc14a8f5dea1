"""The metadata that the provider gives Airflow."""

from __future__ import annotations

import importlib
import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from pytest_airflow_in_a_box.components import ComponentKind, check_component

from smsverify.errors import InvalidRequestError
from smsverify.settings import DEFAULT_BASE_URL, SHORTEST, Settings
from smsverify_provider.get_provider_info import get_provider_info
from smsverify_provider.plugin import SmsVerifyPlugin

PACKAGE = Path(importlib.import_module("smsverify_provider").__file__ or "").parent
AIRFLOW = Path(airflow.__file__).parent


@pytest.mark.parametrize("schema", ["provider_info.schema.json", "provider.yaml.schema.json"])
def test_it_follows_both_schemas_of_airflow(schema: str) -> None:
    # The stricter one is for the providers of Airflow itself: these two are about their releases.
    of_the_repository = {"state": "ready", "source-date-epoch": 0} if "yaml" in schema else {}
    rules = json.loads((AIRFLOW / schema).read_text())
    jsonschema.validate(get_provider_info() | of_the_repository, rules)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("component", "kind"),
    [(get_provider_info, ComponentKind.PROVIDER), (SmsVerifyPlugin, ComponentKind.PLUGIN)],
)
def test_it_has_the_shape_that_airflow_expects(component: object, kind: ComponentKind) -> None:
    check_component(component, kind=kind).raise_for_problems()


def test_it_names_every_module_and_every_class_that_there_is() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        named = {module for entry in info[kind] for module in entry["python-modules"]}
        there = {f"smsverify_provider.{kind}.{path.stem}" for path in (PACKAGE / kind).glob("[!_]*.py")}
        assert named == there
    for path in [info["connection-types"][0]["hook-class-name"], info["plugins"][0]["plugin-class"]]:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


def test_the_entry_points_lead_to_it() -> None:
    (provider,) = (
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.value.startswith("smsverify_provider")
    )
    assert provider.load() is get_provider_info
    (plugin,) = entry_points(group="airflow.plugins", name="smsverify")
    assert plugin.load() is SmsVerifyPlugin


def test_airflow_finds_hook_form_and_plugin() -> None:
    from airflow.plugins_manager import _get_plugins
    from airflow.providers_manager import ProvidersManager
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    manager = ProvidersManager()
    hook = ProvidersManagerTaskRuntime().hooks["smsverify"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("SmsVerify", "smsverify_conn_id")
    assert hook.connection_testable
    assert manager.field_behaviours["smsverify"]["relabeling"]["password"] == "API key"
    fields = {name for name in manager.connection_form_widgets if name.startswith("extra__smsverify__")}
    assert fields == {f"extra__smsverify__{name}" for name in form()}
    assert "smsverify" in {plugin.name for plugin in _get_plugins()[0]}


def form() -> dict[str, Any]:
    return dict(get_provider_info()["connection-types"][0]["conn-fields"])


def test_the_form_has_every_setting_and_each_may_be_left_blank() -> None:
    of_airflow = {"api_key", "base_url"}  # its password and its host
    assert set(form()) == {*Settings.model_fields, "store_password"} - of_airflow
    for field in form().values():
        assert "null" in field["schema"]["type"]
        assert field["label"]
        assert field["description"].endswith(".")


def test_the_form_shows_the_defaults_of_the_settings() -> None:
    behaviour = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
    for name, field in form().items():
        default = Settings.model_fields[name].default if name != "store_password" else None
        if "boolean" in field["schema"]["type"]:
            assert field["schema"]["default"] is default
        elif isinstance(default, (int, float)):
            assert f"Blank: {default:g}." in field["description"]
            assert behaviour["placeholders"][name] == f"{default:g}"
        elif field["schema"].get("format") != "password":
            assert behaviour["placeholders"][name]
    assert behaviour["placeholders"]["host"] == DEFAULT_BASE_URL


NUMBERS = [name for name, field in form().items() if {"number", "integer"} & {*field["schema"]["type"]}]
LIMITS = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}
RULES = ("ge", "gt", "le", "lt")
ROUND = [-1, 0, 0.5, 1, 1.5, 60, 1e9]
ABOUT = [-1, -1e-9, 0, 1e-9, 1]


@pytest.mark.parametrize("name", NUMBERS)
def test_the_form_takes_the_numbers_that_the_settings_take(name: str) -> None:
    schema, setting = form()[name]["schema"], Settings.model_fields[name]
    bounds = [value for key, value in schema.items() if key in LIMITS]
    bounds += [getattr(rule, key) for rule in setting.metadata for key in RULES if hasattr(rule, key)]
    values = {*ROUND, *(float(bound) + near for bound in bounds for near in ABOUT)}
    assert {value for value in values if is_taken_by_form(schema, value)} == {
        value for value in values if is_taken_by_settings(name, value)
    }


@pytest.mark.parametrize("name", ["account", "namespace"])
def test_the_form_takes_texts_as_long_as_the_settings_take(name: str) -> None:
    schema = form()[name]["schema"]
    for length in (1, 99, 100, 101):
        assert is_taken_by_form(schema, "n" * length) == is_taken_by_settings(name, "n" * length)


def is_taken_by_form(schema: dict[str, Any], value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def is_taken_by_settings(name: str, value: Any) -> bool:
    # The grace is bound to the rate period, of which the form knows the shortest alone.
    others = {"api_key": "k", "store_url": "sqlite:////srv/store.db", "rate_period": SHORTEST}
    try:
        Settings.load(others | {name: value}, {})
    except InvalidRequestError as error:
        return error.field != name  # a long period is refused for the grace, which has to go with it
    return True


def test_the_labels_of_the_form_are_what_errors_call_the_settings() -> None:
    assert {name: field["label"].lower() for name, field in form().items()} == {
        name: name.replace("_", " ") for name in form()
    }


def test_the_form_keeps_what_most_leave_as_it_is_below_a_heading_at_its_end() -> None:
    headings = [field["schema"].get("section") for field in form().values()]
    assert headings == [None] * 8 + ["Advanced"] * 10


def test_only_fields_that_hold_a_secret_are_masked() -> None:
    masked = {name for name, field in form().items() if field["schema"].get("format") == "password"}
    assert masked == {"store_password", "callback_secrets"}
    assert form()["store_url"]["schema"]["examples"]


def test_secrets_are_masked_wherever_airflow_shows_extras() -> None:
    """The REST API answers a connection's extras by their names, whatever the form says."""
    from airflow.api_fastapi.core_api.datamodels.connections import ConnectionResponse

    extra = {"store_url": "postgresql+psycopg://airflow@db/sms", "store_password": "geheim"}
    extra["callback_secrets"] = "ein-geheim-gehaltenes-wort"
    shown = ConnectionResponse.model_validate(
        {"conn_id": "x", "conn_type": "smsverify", "extra": json.dumps(extra), "password": "geheim"}
        | dict.fromkeys(["description", "host", "login", "schema", "port", "team_name"])
    )
    assert "geheim" not in shown.model_dump_json()
