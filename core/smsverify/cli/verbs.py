"""What all commands share: their common options, exit codes and last words."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from smsverify._runtime.commands import quoted_command
from smsverify.cli import output
from smsverify.cli.help import Command
from smsverify.cli.options import flag
from smsverify.errors import (
    InvalidRequestError,
    OrderEndedError,
    PurchaseUnknownError,
    SmsVerifyError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from smsverify.hook import SmsVerifyHook

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_NO_CODE = 3
EXIT_FINDINGS = 4
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_UNREAD = 128 + signal.SIGPIPE

_COMMON = "Common options"

Verb = Callable[..., int | None]


@dataclass(frozen=True)
class Common:
    """The options that every command has; each is one of its parameters."""

    json: Annotated[bool, flag("--json", "Print JSON.", panel=_COMMON)] = False
    verbose: Annotated[bool, flag("--verbose", "Log each change of state.", short="-v", panel=_COMMON)] = (
        False
    )
    base_url: Annotated[
        str | None, typer.Option(help="The service's address.", rich_help_panel=_COMMON, metavar="URL")
    ] = None
    store_url: Annotated[
        str | None, typer.Option(help="The store's SQLAlchemy URL.", rich_help_panel=_COMMON, metavar="URL")
    ] = None

    def again(self, *words: str, **options: Any) -> str:
        """The command that a person types to go on, on the same service and store."""
        from smsverify._input import storeurl

        store_url = None if self.store_url is None else storeurl.shown(self.store_url)
        return quoted_command(*words, **options, base_url=self.base_url, store_url=store_url)

    def hook(self) -> SmsVerifyHook:
        """The client, with the settings of the environment and of these options."""
        from smsverify.hook import SmsVerifyHook

        return SmsVerifyHook(base_url=self.base_url, store_url=self.store_url)


def add(app: typer.Typer, panel: str, verb: Verb, name: str | None = None) -> None:
    """Makes a function a command.

    Args:
        app: where it belongs.
        panel: the group in which the help shows it.
        verb: takes `Common` and its own parameters, and returns the exit code, 0 by default. Its docstring is
            the help.
        name: what people type; the function's name by default.
    """
    given = inspect.signature(verb)
    common = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
        for field in fields(Common)
    ]

    @functools.wraps(verb)
    def command(**arguments: Any) -> None:
        options = Common(**{parameter.name: arguments.pop(parameter.name) for parameter in common})
        raise typer.Exit(_run(options, lambda: verb(options, **arguments), set(arguments)))

    hints = get_type_hints(Common, include_extras=True) | get_type_hints(verb, include_extras=True)
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(given.parameters.values())[1:]
    ]
    parameters = [parameter.replace(annotation=hints[parameter.name]) for parameter in (*own, *common)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del command.__wrapped__
    app.command(name or verb.__name__.replace("_", "-"), cls=Command, rich_help_panel=panel)(command)


def _run(options: Common, run: Callable[[], int | None], own: set[str]) -> int:  # noqa: PLR0911 (an exit code each)
    try:
        with output.logs_shown(logging.INFO if options.verbose else logging.WARNING):
            return run() or 0
    except InvalidRequestError as error:
        return output.complain(f"{error}{_source_of(error, own)}", EXIT_USAGE)
    except (WaitTimeoutError, OrderEndedError) as error:
        return output.complain(error, EXIT_NO_CODE)
    except SmsVerifyError as error:
        return output.complain(error, EXIT_ERROR)
    except KeyboardInterrupt as error:
        return output.complain(str(error), EXIT_INTERRUPTED) if str(error) else EXIT_INTERRUPTED
    except output.UnwritableError as error:
        # Otherwise the interpreter fails when it flushes its output at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error.__cause__, BrokenPipeError):  # head or less has gone
            return EXIT_UNREAD
        text = f"the command is done and on record, but its output cannot be written: {error.__cause__}"
        return output.complain(text, EXIT_ERROR)


def _source_of(error: InvalidRequestError, own: set[str]) -> str:
    """The variable that a refused setting comes from, in brackets."""
    from smsverify.settings import ENVIRONMENT_PREFIX, Settings

    name = f"{ENVIRONMENT_PREFIX}{(error.field or '').upper()}"
    is_setting = error.field in Settings.model_fields and error.field not in own
    return (
        f" (it comes from {name})" if is_setting and os.environ.get(name) and name not in str(error) else ""
    )


@contextmanager
def going_on(again: Callable[..., str]) -> Iterator[None]:
    """Adds how to go on to the error of a paid call whose outcome is unknown.

    Args:
        again: gives the command that makes the call with a `key`.
    """
    try:
        yield
    except PurchaseUnknownError as error:
        if error.key is not None:
            error.args = (f"{error}. {goes_on(again(key=error.key))}",)
        raise


def goes_on(again: str) -> str:
    """That a command with the key of a call goes on with it."""
    return f"{again} goes on with it, and pays nothing twice"


@contextmanager
def paid(what: str) -> Iterator[None]:
    """Prints on standard error what was paid for, if standard output cannot be written."""
    try:
        yield
    except output.UnwritableError:
        with contextlib.suppress(OSError):  # the terminal may be gone
            output.complain(what, EXIT_ERROR)
        raise
