"""The block that says which account to use, and how to reach the service."""

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from prefect.blocks.abstract import CredentialsBlock
from pydantic import ConfigDict, Field, HttpUrl, SecretStr, ValidationInfo, field_validator, model_validator
from typing_extensions import Self

from smsverify.errors import InvalidRequestError
from smsverify.settings import NUMBERS, plain_number, refuse_unknown

if TYPE_CHECKING:
    from smsverify import SmsVerifyHook


class SmsVerifyCredentials(CredentialsBlock):
    """An account of the service, with the other settings of `smsverify.SmsVerifyHook`.

    An empty field comes from the environment of the process that uses the block (`SMSVERIFY_API_KEY`,
    `SMSVERIFY_BASE_URL`, …), otherwise it has its default. The settings are checked when they are first used.

    Example:
        Load the account and read its balance:

        ```python
        from prefect_smsverify import SmsVerifyCredentials

        credentials = SmsVerifyCredentials.load("BLOCK_NAME")
        print(credentials.get_hook().get_balance().amount)
        ```
    """

    _block_type_name: ClassVar[str | None] = "SmsVerify Credentials"
    _block_type_slug: ClassVar[str | None] = "smsverify-credentials"
    # Prefect takes nothing but http(s) addresses here. The service's own are the only ones that there are.
    _logo_url: ClassVar[HttpUrl | None] = HttpUrl("https://smsverificationservice.com/favicon.ico")
    _documentation_url: ClassVar[HttpUrl | None] = HttpUrl("https://smsverificationservice.com")

    # A rejected value could be a secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    api_key: SecretStr | None = Field(
        default=None, title="API key", description="The service's API key, from its dashboard."
    )
    base_url: str | None = Field(
        default=None, title="Base URL", description="The service's address; https unless it is this machine."
    )
    store_url: SecretStr | None = Field(
        default=None,
        title="Store URL",
        description=(
            "The store that all processes of the account share: sqlite:////<path> on one machine, "
            "postgresql+psycopg://<user>:<password>@<host>/<database> on several."
        ),
    )
    rate_limit: int | None = Field(
        default=None, description="Requests that the service allows in the rate period."
    )
    rate_period: float | None = Field(
        default=None, description="Length of the service's minute in seconds; every pace is relative to it."
    )
    code_latency: float | None = Field(
        default=None,
        description=(
            "Seconds that a code may lie at the service while requests are scarce: the longer, the rarer "
            "are polls, and from 30 on numbers are also ordered ahead. 5 by default."
        ),
    )
    account: str | None = Field(
        default=None, description="Name of the wallet; keeps its records when the API key is rotated."
    )
    namespace: str | None = Field(
        default=None, description="Keeps the purchases of deployments that share a store apart."
    )
    purchase_grace: float | None = Field(
        default=None,
        description="Seconds after which a purchase that the order list does not show counts as not made.",
    )
    exclusive_account: bool | None = Field(
        default=None,
        description=(
            "Whether only this store buys on the account, so that a fitting order without an owner counts as "
            "the purchase whose answer was lost."
        ),
    )
    daily_budget: Decimal | None = Field(
        default=None, description="USD that the account may spend in a day (UTC), refunds taken off."
    )
    run_budget: Decimal | None = Field(
        default=None, description="USD that one flow run with its subflows may spend, refunds taken off."
    )
    allow_unshared_store: bool | None = Field(
        default=None,
        description=(
            "Allows paid calls with a SQLite store if a work pool or a task runner may use other machines."
        ),
    )
    connect_timeout: float | None = Field(default=None, description="Seconds to wait for a connection.")
    read_timeout: float | None = Field(
        default=None, description="Seconds to wait for the next bytes of an answer."
    )
    call_timeout: float | None = Field(
        default=None, description="Seconds that one call may take in all, with retries and the rate limit."
    )
    insecure: bool | None = Field(default=None, description="Allows plain http to another machine.")
    message_retention_days: float | None = Field(
        default=None, description="Days after which the text of a message is purged from the store."
    )
    callback_secrets: list[SecretStr] | None = Field(
        default=None, description="Secrets of the callback URL; several are valid at once."
    )

    @field_validator(*NUMBERS, mode="before")
    @classmethod
    def _numbers_are_plain(cls, value: Any, info: ValidationInfo) -> Any:
        return plain_number(value, info)

    @field_validator("api_key", "store_url", "callback_secrets")
    @classmethod
    def _secrets_are_not_masked(cls, value: Any, info: ValidationInfo) -> Any:
        for secret in value if isinstance(value, list) else [value]:
            if secret is not None and re.fullmatch(r"\*+", secret.get_secret_value()):
                raise InvalidRequestError(
                    f"{info.field_name} is a mask: Prefect masks a block's secrets in the parameters that it "
                    "stores. Give the block by its name. Nothing was sent",
                    field=info.field_name,
                )
        return value

    @model_validator(mode="after")
    def _has_no_other_fields(self) -> Self:
        self._refuse_other_fields()
        return self

    def _refuse_other_fields(self) -> None:
        # Prefect's blocks accept unknown fields: a misspelt budget would be no budget.
        for name in self.model_extra or {}:
            if not name.startswith(("_", "block_type_slug")):
                refuse_unknown(name)

    def get_hook(self) -> "SmsVerifyHook":
        """The client of this account. Nothing is connected before its first call.

        Inside a flow run, a purchase without a key gets one from the run, so that a retry is handed the order
        that it has bought already, and what the client logs goes to the run's logs. Purchases, renewals,
        waits and reconciliations end when the run goes down or is suspended, in submitted and mapped tasks
        too, unless they are given a `stop`.
        """
        from prefect_smsverify.hook import PrefectHook
        from prefect_smsverify.logs import show_in_runs

        self._refuse_other_fields()  # which may have been assigned
        show_in_runs()
        return PrefectHook(**{name: getattr(self, name) for name in type(self).model_fields})

    def get_client(self, *args: Any, **kwargs: Any) -> "SmsVerifyHook":
        """The same as `get_hook`, under the name that Prefect gives it."""
        return self.get_hook()
