"""The metadata that Airflow asks a provider for (entry point `apache_airflow_provider`)."""

from __future__ import annotations

from typing import Any

from smsverify import __version__

NAME = "SmsVerify"


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, in the format of Airflow's `provider_info.schema.json`."""
    return {
        "package-name": "smsverify",
        "name": NAME,
        "description": "Rent phone numbers and receive the one-time codes sent to them.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": NAME,
                "external-doc-url": "https://smsverificationservice.com",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": NAME, "python-modules": ["smsverify_provider.hooks.smsverify"]}],
        "operators": [
            {
                "integration-name": NAME,
                "python-modules": [
                    "smsverify_provider.operators.smsverify",
                    "smsverify_provider.operators.verify",
                ],
            }
        ],
        "sensors": [{"integration-name": NAME, "python-modules": ["smsverify_provider.sensors.smsverify"]}],
        "triggers": [{"integration-name": NAME, "python-modules": ["smsverify_provider.triggers.smsverify"]}],
        "task-decorators": [
            {
                "class-name": "smsverify_provider.decorators.smsverify.smsverify_task",
                "name": "smsverify",
            }
        ],
        "extra-links": ["smsverify_provider.links.SmsVerifyOrderLink"],
        "plugins": [{"name": "smsverify", "plugin-class": "smsverify_provider.plugin.SmsVerifyPlugin"}],
        "config": {
            "smsverify": {
                "description": "The provider for smsverify.",
                "options": {
                    "callback_conn_ids": {
                        "description": "The connections whose callbacks the API server takes, separated by "
                        "commas. A connection without callback_secrets takes none.",
                        "version_added": None,
                        "type": "string",
                        "example": "smsverify_default, smsverify_other",
                        "default": "smsverify_default",
                    }
                },
            }
        },
        "connection-types": [
            {
                "connection-type": "smsverify",
                "hook-name": NAME,
                "hook-class-name": "smsverify_provider.hooks.smsverify.SmsVerifyHook",
                "conn-fields": {
                    "store_url": {
                        "label": "Store URL",
                        "description": "SQLAlchemy URL of the store, the same for all who use the account: "
                        "sqlite:////<absolute path> or postgresql+psycopg://<user>@<host>/<database>. "
                        "Blank: a file in the home directory, enough for one machine.",
                        # It may hold a password, although that has a field of its own.
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "store_password": {
                        "label": "Store password",
                        "description": "The password of the user in the store URL.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "rate_limit": {
                        "label": "Rate limit",
                        "description": "Requests that the service allows in the rate period. Blank: 60.",
                        "schema": {"type": ["integer", "null"], "minimum": 1},
                    },
                    "rate_period": {
                        "label": "Rate period",
                        "description": "Seconds. Blank: 60.",
                        "schema": {"type": ["number", "null"], "minimum": 0},
                    },
                    "code_latency": {
                        "label": "Code latency",
                        "description": "Seconds that a code may lie at the service while requests are "
                        "scarce: the longer, the more numbers are ordered ahead. Blank: 5.",
                        "schema": {"type": ["number", "null"], "minimum": 1},
                    },
                    "account": {
                        "label": "Account",
                        "description": "Names the wallet, so that its ledger outlives a rotated API key. "
                        "Blank: derived from the key.",
                        "schema": {"type": ["string", "null"], "maxLength": 100},
                    },
                    "namespace": {
                        "label": "Namespace",
                        "description": "Keeps the purchases of deployments that share a store apart.",
                        "schema": {"type": ["string", "null"], "maxLength": 100},
                    },
                    "daily_budget": {
                        "label": "Daily budget",
                        "description": "USD that the account may spend in a day (UTC), less refunds. "
                        "Blank: any amount.",
                        "schema": {"type": ["number", "null"], "minimum": 0},
                    },
                    "run_budget": {
                        "label": "Run budget",
                        "description": "USD that one Dag run may spend. Blank: any amount.",
                        "schema": {"type": ["number", "null"], "minimum": 0},
                    },
                    "allow_unshared_store": {
                        "label": "Allow a store in a file",
                        "description": "Allows purchases with a SQLite store where the executor runs tasks "
                        "on other machines. Set it only where all of them see that one file.",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                    "callback_secrets": {
                        "label": "Callback secrets",
                        "description": "Secrets of the callback URL, separated by commas, each of 16 or more "
                        "letters, digits, - or _. Several are valid at once. Blank: no callbacks.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "insecure": {
                        "label": "Allow plain http",
                        "description": "Sends the API key unencrypted to another machine.",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "port"],
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {"host": "https://smsverificationservice.com"},
                },
            }
        ],
    }
