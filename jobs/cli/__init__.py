"""The `textmill` command: its way in, and how errors leave it."""

import gc
import logging
import os
import sys

ERROR = 1
"""Exit code of everything that went wrong, but for a wrong command line (2)."""
ITEMS_FAILED = 3
"""The job is complete, and some of its items have an error instead of an output."""
WAITS = 4
"""The canary of the job is done, and the rest waits for approval."""
INTERRUPTED = 130

QUIET_GC = (100_000, 20, 50)
"""Lines and results are many small objects without cycles: usual thresholds cost a tenth of the time."""


def main() -> None:
    """Run one command line; ends the process with its exit code. Nothing heavy is loaded before a command needs it."""
    from jobs.cli.app import textmill
    from jobs.errors import TextmillError

    _open_closed_streams()
    gc.set_threshold(*QUIET_GC)
    # What the library logs is for services; commands say what matters themselves.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        textmill(prog_name="textmill")
    except TextmillError as error:
        _end(str(error))
    except BrokenPipeError:
        forget_stdout()
        sys.exit(0)
    except OSError as error:
        _end(str(error))


def _open_closed_streams() -> None:
    """Put the null device where a standard stream is closed: else the next file opened takes its number.

    `sys.stdin` and `sys.stdout` stay None, so that whoever needs them can say so.
    """
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives


def _end(message: str) -> None:
    print(f"textmill: {message}", file=sys.stderr)
    sys.exit(ERROR)


def forget_stdout() -> None:
    """Whoever read our output has left (`| head`); the interpreter's last flush must not complain about it."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
