"""`smsverify` on the command line: the hook's verbs for people and for cron, and the simulator.

Results go to standard output, all other text to standard error. Exit codes: 0 done; 1 the service or the
store refused, or the output cannot be written; 2 bad input; 3 no code came; 4 a person should look at
something; 130 interrupted; 141 the reader of the output has gone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from smsverify._version import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        the exit code.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments == ["--version"]:
        print(f"smsverify {__version__}")
        return 0
    from smsverify.cli.app import run

    return run(arguments)
