"""Runs a module as this process (`python -m jobs.local.leash SECONDS MODULE ARGS...`) that ends when its starter dies.

The starter holds the other end of stdin; its death by any cause, kill -9 too, closes it. Works wherever pipes do.
"""

import os
import runpy
import signal
import sys
import threading
import time


def main() -> None:
    """Become the module, with a thread that waits for the starter's death; children in its group die with it."""
    grace_s, sys.argv = float(sys.argv[1]), sys.argv[2:]
    threading.Thread(target=_end_with_starter, args=(grace_s,), name="leash", daemon=True).start()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_starter(grace_s: float) -> None:
    while os.read(sys.__stdin__.fileno() if sys.__stdin__ else 0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
