"""The metadata that Airflow asks a provider for (entry point `apache_airflow_provider`)."""

from __future__ import annotations

from typing import Any

from smsverify import __version__
from smsverify_provider.connection_form import FIELDS, HIDDEN, PLACEHOLDERS, RELABELING

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
                "conn-fields": FIELDS,
                "ui-field-behaviour": {
                    "hidden-fields": HIDDEN,
                    "relabeling": RELABELING,
                    "placeholders": PLACEHOLDERS,
                },
            }
        ],
    }
