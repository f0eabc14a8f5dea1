"""The hook, the Airflow wing and the Prefect wing take the same parameters with the same defaults.

The wings cannot be installed together, so their signatures are read from the source.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from smsverify import options

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "core/smsverify/hook.py"
NUMBERS = ROOT / "core/smsverify/numbers.py"
OPERATORS = ROOT / "provider/smsverify_provider/operators/smsverify.py"
VERIFY = ROOT / "provider/smsverify_provider/operators/verify.py"
SENSORS = ROOT / "provider/smsverify_provider/sensors/smsverify.py"
TASKS = ROOT / "prefect_tasks/prefect_smsverify/tasks.py"
RENTALS = ROOT / "prefect_tasks/prefect_smsverify/rentals.py"

# Arguments of the framework are not the service's.
OF_THE_FRAMEWORK = {
    "self", "stop", "waiter", "credentials", "smsverify_conn_id", "kwargs", "multiple_outputs",
    "deferrable", "poke_interval", "cancel_on_kill", "fail_on_findings", "action", "python_callable",
    "op_args", "op_kwargs",
}  # fmt: skip

DEFAULTS = {
    "cancel_on_timeout": "True", "alternatives": "()", "order_ids": "()", "exclude": "()", "dry_run": "False",
}  # fmt: skip

SAME = [
    ("order", "SmsVerifyOrderOperator", OPERATORS, "order_number", "aorder_number"),
    ("renew", "SmsVerifyRenewOperator", OPERATORS, "renew_rental", "arenew_rental"),
    ("cancel", "SmsVerifyCancelOrderOperator", OPERATORS, "cancel_order", "acancel_order"),
    ("wait_for_otp", "SmsVerifyOtpSensor", SENSORS, "wait_for_otp", "await_otp"),
    (
        "renew_expiring",
        "SmsVerifyRenewExpiringOperator",
        OPERATORS,
        "renew_expiring_rentals",
        "arenew_expiring_rentals",
    ),
    ("reconcile", "SmsVerifyReconcileOperator", OPERATORS, "reconcile", "areconcile"),
]


def parameters(path: Path, function: str, inside: str | None = None) -> dict[str, str | None]:
    """The parameters of a function with the source of their defaults, without those of the framework."""
    tree: ast.AST = ast.parse(path.read_text())
    if inside is not None:
        tree = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == inside)
    found = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == function
    )
    for decorator in found.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "twin_of":
            return parameters(path, ast.unparse(decorator.args[0]))
    args = found.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    pairs = [
        *zip(positional, defaults, strict=True),
        *zip(args.kwonlyargs, args.kw_defaults, strict=True),
    ]
    constants = {
        target.id: ast.unparse(node.value)
        for node in ast.parse(NUMBERS.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    unpacked = {} if args.kwarg is None else options_of(args.kwarg.annotation)
    return unpacked | {
        arg.arg: None
        if default is None
        else _number(constants.get(ast.unparse(default), ast.unparse(default)))
        for arg, default in pairs
        if arg.arg not in OF_THE_FRAMEWORK
    }


def options_of(annotation: ast.expr | None) -> dict[str, str | None]:
    """What `Unpack[…]` of a class of options stands for; most are `None` by default."""
    if not isinstance(annotation, ast.Subscript):
        return {}
    names = getattr(options, ast.unparse(annotation.slice)).__annotations__
    return {name: DEFAULTS.get(name, "None") for name in names if name not in OF_THE_FRAMEWORK}


def _number(source: str) -> str:
    return str(float(source)) if source.replace(".", "").isdigit() else source


@pytest.mark.parametrize(
    ("method", "operator", "module", "task", "coroutine"), SAME, ids=[row[0] for row in SAME]
)
def test_the_wings_take_what_the_hook_takes(
    method: str, operator: str, module: Path, task: str, coroutine: str
) -> None:
    expected = parameters(HOOK, method, inside="SmsVerifyHook")
    assert parameters(module, "__init__", inside=operator) == expected
    tasks = RENTALS if "rental" in task else TASKS
    assert parameters(tasks, task) == expected
    assert parameters(tasks, coroutine) == expected


@pytest.mark.parametrize(
    "path",
    [HOOK, *(TASKS.with_name(f"{name}.py") for name in ("tasks", "rented", "verify", "progress"))],
    ids=lambda path: path.stem,
)
def test_a_coroutine_is_named_after_its_function(path: Path) -> None:
    """`wait_for_x` becomes `await_x`; any other function has an `a` in front."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    named = {f"await_{name[9:]}" if name.startswith("wait_for_") else f"a{name}" for name in functions}
    coroutines = {node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)}
    assert coroutines
    assert coroutines <= named


def test_waiting_in_an_event_loop_takes_what_waiting_in_a_thread_takes() -> None:
    assert parameters(HOOK, "await_otp", inside="SmsVerifyHook") == parameters(
        HOOK, "wait_for_otp", inside="SmsVerifyHook"
    )


def test_verifying_takes_the_same_everywhere() -> None:
    expected = parameters(HOOK, "verify", inside="SmsVerifyHook")
    tasks = ROOT / "prefect_tasks/prefect_smsverify/verify.py"
    assert parameters(VERIFY, "__init__", inside="SmsVerifyOperator") == expected
    assert parameters(tasks, "verify_number") == parameters(tasks, "averify_number") == expected
    attempts = parameters(HOOK, "attempts", inside="SmsVerifyHook")
    assert attempts == {name: value for name, value in expected.items() if name not in ("sender", "pattern")}


def test_reading_a_message_takes_the_same_everywhere() -> None:
    expected = parameters(HOOK, "get_message", inside="SmsVerifyHook")
    airflow = ROOT / "provider/smsverify_provider/hooks/smsverify.py"
    assert parameters(airflow, "get_message", inside="SmsVerifyHook") == expected
    assert parameters(TASKS, "get_message") == parameters(TASKS, "aget_message") == expected


def test_renting_for_a_block_takes_what_ordering_takes() -> None:
    order = parameters(HOOK, "order", inside="SmsVerifyHook")
    assert parameters(HOOK, "rented_number", inside="SmsVerifyHook") == order
    rented = ROOT / "prefect_tasks/prefect_smsverify/rented.py"
    assert parameters(rented, "rented_number") == order
    assert parameters(rented, "arented_number") == order
