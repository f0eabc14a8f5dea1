"""A stateful fake of the SMS verification service, served over real HTTP, free of charge.

Inside a test::

    from smsverify.simulator import Fault, Simulator

    with Simulator(speed=60, sms_delay=10) as simulator:
        ...  # point a client at simulator.url with simulator.api_key
        simulator.add_fault(Fault("lost_answer", path="order/temporary/"))
        assert simulator.balance() == Decimal("49.60")

As a process of its own: ``smsverify simulate --port 8900``, scripted from anywhere with
``Control("http://127.0.0.1:8900")``, which has the same verbs. With pytest: the fixtures of
:mod:`smsverify.simulator.pytest_plugin`.

The package stands alone: standard library only, and nothing of the client's code, so that a misreading of the
service's documentation on one side is not confirmed by the other. Importing it loads nothing until a name is
used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smsverify.simulator.catalogue import Catalogue, Country, Plan, Rental, Service
    from smsverify.simulator.control import Control, SimulatorControl
    from smsverify.simulator.faults import FAULT_KINDS, Fault
    from smsverify.simulator.lives import ProductSettings, ServiceSettings
    from smsverify.simulator.records import (
        CallbackRecord,
        Movement,
        RequestRecord,
        SimulatedOrder,
        SimulatorError,
        Stats,
    )
    from smsverify.simulator.settings import Settings
    from smsverify.simulator.simulator import Simulator

__all__ = [
    "FAULT_KINDS",
    "CallbackRecord",
    "Catalogue",
    "Control",
    "Country",
    "Fault",
    "Movement",
    "Plan",
    "ProductSettings",
    "Rental",
    "RequestRecord",
    "Service",
    "ServiceSettings",
    "Settings",
    "SimulatedOrder",
    "Simulator",
    "SimulatorControl",
    "SimulatorError",
    "Stats",
]

_HOME = {
    "catalogue": ("Catalogue", "Country", "Plan", "Rental", "Service"),
    "control": ("Control", "SimulatorControl"),
    "faults": ("FAULT_KINDS", "Fault"),
    "lives": ("ProductSettings", "ServiceSettings"),
    "records": ("CallbackRecord", "Movement", "RequestRecord", "SimulatedOrder", "SimulatorError", "Stats"),
    "settings": ("Settings",),
    "simulator": ("Simulator",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
