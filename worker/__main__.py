"""`python -m worker`: Celery workers with the flags Textmill needs, one process per GPU, started anew when one ends."""

import argparse
import faulthandler
import os
import sys
from collections.abc import Sequence

from jobs.endings import OK, UNFIT
from jobs.errors import InvalidSettings
from jobs.logs import log_to_stderr
from jobs.settings import Settings, load_settings
from worker.devices import visible_gpus
from worker.supervise import supervise

START_S = 300.0
"""A worker that takes longer to import what it needs hangs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; the exit code."""
    chosen = _parse(arguments)
    try:
        settings = load_settings()
    except InvalidSettings as error:
        print(error, file=sys.stderr)
        return UNFIT
    log_to_stderr(settings)
    if chosen.one:
        return _work(settings)
    gpus = [] if settings.device == "cpu" else [gpu.uuid for gpu in visible_gpus()]
    if chosen.restarted and len(gpus) <= 1:
        return _work(settings)
    return supervise(settings, gpus)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument(
        "--one", action="store_true", help="one process, whatever GPUs there are, that nobody starts again"
    )
    parser.add_argument(
        "--restarted", action="store_true", help="whoever started this does it again: only several GPUs are supervised"
    )
    return parser.parse_args(arguments)


def _work(settings: Settings) -> int:
    from worker.app import app
    from worker.bootsteps import refused, told_to_end

    faulthandler.enable()  # stacks of a crash, and of a hang that the supervisor ends
    faulthandler.dump_traceback_later(START_S, exit=True)  # until the watchdog takes over

    flags = ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"]
    flags += ["--queues", ",".join(settings.queues), "--hostname", f"textmill-{os.getpid()}@%h"]
    flags += ["--loglevel", settings.log_level] + ([] if settings.remote_control else ["--without-heartbeat"])
    try:
        app.worker_main(["worker", *flags])
    except SystemExit as ended:
        code = int(ended.code) if isinstance(ended.code, int) else int(ended.code is not None)
        # Celery 5.7 calls it a failure that a worker was told to end at once.
        return OK if code == 1 and told_to_end() else code
    return UNFIT if refused() else OK


if __name__ == "__main__":
    sys.exit(main())
