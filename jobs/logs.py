"""What services write to their log: lines for people, or JSON for machines."""

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CONTEXT = ("job", "chunk", "attempt", "model", "worker", "webhook", "trace_id")
"""What a message may carry beside its text (`extra=`), for machines."""


class JsonLines(logging.Formatter):
    """A JSON object a line: `time` (UTC), `level`, `logger`, `message`, and of CONTEXT what is known."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": f"{self._moment(record)}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        told |= {name: getattr(record, name) for name in CONTEXT if hasattr(record, name)}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            told["stack"] = self.formatStack(record.stack_info)
        return json.dumps(told, default=str)  # not orjson, which refuses names of files that are no UTF-8

    def _moment(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def formatter(settings: "Settings") -> logging.Formatter:
    """As the settings want it."""
    return JsonLines() if settings.log_format == "json" else logging.Formatter(TEXT)


def log_to_stderr(settings: "Settings") -> None:
    """A line for each message, from the settings' level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
