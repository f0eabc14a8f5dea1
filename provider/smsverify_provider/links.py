"""The link from a task to its order on the page Browse → SmsVerify."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class SmsVerifyOrderLink(BaseOperatorLink):
    """Leads to the row of the order that a task has bought, waits for or changes."""

    name = "Order"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address of the row; empty if the task has no order."""
        order_id = getattr(operator, "_order_id", None) or getattr(operator, "order_id", None)
        if not str(order_id or "").isdecimal():
            return ""
        name = quote(str(getattr(operator, "smsverify_conn_id", "")), safe="")
        # Relative, so that it holds under a base path and behind a proxy, whatever a worker knows of that.
        return f"plugin/smsverify?connection={name}#order-{order_id}"
