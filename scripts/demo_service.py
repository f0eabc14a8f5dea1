"""What the demo sees of the service: all of the simulator, of another service what the CLI shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stacks import Account, Processes
from stacks.processes import inherited_environment, python_of

if TYPE_CHECKING:
    from smsverify.simulator import Control

PATIENCE = 120.0  # seconds that one command may take


@dataclass(frozen=True)
class Seen:
    """An order at the service.

    Attributes:
        order_id: its id.
        phone: the number as the service writes it.
        price: USD.
        status: the service's word, and whether the price came back where that can be seen.
        sent: the code that was sent, where that can be seen.
    """

    order_id: int
    phone: str
    price: Decimal
    status: str
    sent: str | None = None


class Service:
    """A service of which only the address is known: the command line asks it, within the shared budget.

    Args:
        processes: runs the commands.
        environment: a virtual environment with smsverify.
        account: whom to ask.
    """

    watchable = False
    """Whether `orders` may be asked for all the time."""

    def __init__(self, processes: Processes, environment: Path, account: Account) -> None:
        self.account = account
        self._processes = processes
        self._python = python_of(environment)
        self._environment = inherited_environment() | account.environment()
        self._commands = 0

    def balance(self) -> Decimal:
        """The wallet in USD."""
        return Decimal(str(self._ask("balance")["amount"]))

    def orders(self) -> dict[int, Seen]:
        """The orders by id."""
        return {
            order["order_id"]: Seen(
                order["order_id"], order["phone"] or "", Decimal(str(order["price"] or 0)), order["status"]
            )
            for order in self._ask("orders")
        }

    def requests(self) -> int | None:
        """How many requests were made so far; `None` where that cannot be known."""
        return None

    def code(self, order_id: int) -> str:
        """The code that came for an order, from the store that the runs have put it into."""
        return str(self._ask("wait", str(order_id), "--keep", "--timeout", "30")["otp"])

    def _ask(self, *command: str) -> Any:
        self._commands += 1
        line = [str(self._python), "-m", "smsverify", *command, "--json"]
        name = f"smsverify-{self._commands}"
        return json.loads(self._processes.run(name, line, self._environment, timeout=PATIENCE).output())


class SimulatedService(Service):
    """The simulator, whose control interface costs no requests.

    Args:
        processes, environment, account: as above.
        control: of the simulator.
    """

    watchable = True

    def __init__(self, processes: Processes, environment: Path, account: Account, control: Control) -> None:
        super().__init__(processes, environment, account)
        self._control = control

    def balance(self) -> Decimal:
        return self._control.balance()

    def orders(self) -> dict[int, Seen]:
        return {
            order.order_id: Seen(
                order.order_id,
                order.phone or "",
                order.price,
                f"{order.status}, refunded" if order.refunded else order.status,
                order.otp,
            )
            for order in self._control.orders()
        }

    def requests(self) -> int:
        return self._control.stats().requests
