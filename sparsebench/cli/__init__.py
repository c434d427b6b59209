"""The command line: each command reads, does, says; nothing else lives here. What needs both wings is composed here.

Exit codes: 0 done; 1 the answer is "no" (a wrong or crashed kernel); 2 bad input, nothing written.
"""

from __future__ import annotations

import sys

from sparsebench.cli import advise, measure, read, trace, verify
from sparsebench.cli.app import app
from sparsebench.errors import BadInput, SparsebenchError

__all__ = ["advise", "app", "main", "measure", "read", "trace", "verify"]

INTERRUPTED = 130  # the exit code of a process that Ctrl-C ended; typer turns KeyboardInterrupt into it without a word


def main() -> None:
    """Run the command line; a mistake of the user's is one message and exit code 2, with nothing written."""
    try:
        app()
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except SparsebenchError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print("stopped; every finished trial is stored, and the same command goes on from there", file=sys.stderr)
        sys.exit(INTERRUPTED)
