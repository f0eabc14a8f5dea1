"""The settings that show the wings which service, key and store to use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Account:
    """An account of the service, and how to use it.

    Attributes:
        settings: settings of `smsverify.SmsVerifyHook` by name, as texts.
    """

    settings: Mapping[str, str] = field(repr=False)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Account:
        """The account that environment variables (`SMSVERIFY_API_KEY`, …) describe."""
        prefix = "SMSVERIFY_"
        return cls(
            {
                name.removeprefix(prefix).lower(): value
                for name, value in environment.items()
                if name.startswith(prefix)
            }
        )

    def environment(self) -> dict[str, str]:
        """The settings as environment variables of the core."""
        return {f"SMSVERIFY_{name.upper()}": value for name, value in self.settings.items()}

    def airflow_connection(self) -> dict[str, str]:
        """The environment variable that holds Airflow's connection `smsverify_default`."""
        extra = dict(self.settings)
        connection = {
            "conn_type": "smsverify",
            "password": extra.pop("api_key"),
            "host": extra.pop("base_url"),
            "extra": extra,
        }
        return {"AIRFLOW_CONN_SMSVERIFY_DEFAULT": json.dumps(connection)}
