"""`python -m worker`: a Celery worker with the flags Textmill needs; with several GPUs, one process for each."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from jobs.errors import InvalidSettings
from jobs.settings import Settings, load_settings
from worker.devices import visible_gpus
from worker.supervise import command, environments, supervise
from worker.watchdog import UNFIT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; the exit code."""
    chosen = _parse(arguments)
    try:
        settings = load_settings()
    except InvalidSettings as error:
        print(error, file=sys.stderr)
        return UNFIT
    _log(settings)
    gpus = [] if chosen.one or settings.device == "cpu" else [gpu.uuid for gpu in visible_gpus()]
    if len(gpus) > 1 or chosen.supervise:
        return supervise(command(), environments(gpus))
    return _work(settings)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("--one", action="store_true", help="one process, whatever GPUs there are")
    parser.add_argument("--supervise", action="store_true", help="start the worker again when it ends")
    return parser.parse_args(arguments)


def _log(settings: Settings) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def _work(settings: Settings) -> int:
    from worker.app import app

    flags = ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"]
    flags += ["--queues", ",".join(settings.queues), "--hostname", f"textmill-{os.getpid()}@%h"]
    flags += ["--loglevel", settings.log_level] + ([] if settings.remote_control else ["--without-heartbeat"])
    try:
        app.worker_main(["worker", *flags])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
