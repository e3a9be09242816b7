"""Every exception Textmill raises on purpose, and the closed list of item error codes.

TextmillError
├── UsageError                  the caller can mend it by changing the call
│   ├── UnknownTask             no task or alias of that name
│   ├── UnknownModel            no model of that name in the registry
│   ├── ModelMismatch           the model exists and does not serve the task
│   ├── InvalidParams           a parameter is unknown, of the wrong type or out of range
│   ├── InvalidInput            the input as a whole cannot be read (missing file, format, empty)
│   │   ├── InvalidItems        some of its lines cannot be items; `.problems` lists them
│   │   └── MissingGold         no result has a gold value to be judged by
│   ├── UnknownJob              no job has that id, or several have that prefix
│   ├── UnknownKey              no API key has that id
│   ├── UnknownFile             no uploaded file has that id
│   ├── UnknownBatch            no batch has that id
│   ├── UnknownWebhook          no webhook, or no delivery of it, has that id
│   ├── UnknownConnection       the operator has named no such source or sink for the tenant
│   ├── UnknownWorker           no worker that reported lately has that id
│   ├── QuotaExceeded           the tenant has as much in line as it may; later there is room again
│   ├── UnknownSchedule         no schedule of the tenant has that id or name
│   ├── UnknownUpload           no upload has that id
│   ├── InvalidState            the job is in a state that does not allow the move
│   ├── WrongOffset             the next byte of an upload is another one
│   ├── IdempotencyConflict     the key was used before for another request
│   ├── InvalidModel            a model folder that cannot or must not be loaded
│   ├── NotInstalled            an optional part of Textmill is not installed here
│   └── InvalidSettings         a setting is wrong, or two of them do not fit
├── NothingNew                  no item of an incremental job is new: there is no job, and nothing is wrong
├── OutputError                 results could not be written where the caller asked
├── SchemaOutdated              the database is at another revision than this code
├── StoreUnavailable            the database did not answer; safe to try again
├── QueueUnavailable            Redis did not answer; jobs are not affected
├── ApiError                a server refused what it was asked over HTTP
│   └── ApiUnavailable      it did not answer, or said that it cannot now; safe to try again
├── HomeBusy                    another `textmill up` owns this home
├── BrokerFailed                the embedded broker could not be started or adopted
├── WorkerFailed                the embedded worker dies whenever it is started
├── FetchFailed                 a model's files could not be fetched: no network, wrong hash, disk full
├── ModelFailed                 a model does not load or cannot run here; fails its jobs
└── DeviceLost                  the device or its process is beyond repair; the process must end
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class TextmillError(Exception):
    """The base of every error raised on purpose; its text is meant for the caller."""


class UsageError(TextmillError):
    """The call was wrong; the same call will fail again."""


class UnknownTask(UsageError):
    """Raised when a task name is neither a task nor an alias."""


class UnknownModel(UsageError):
    """Raised when a model name is not a key of the registry."""


class ModelMismatch(UsageError):
    """Raised when a model does not serve the task asked of it."""


class InvalidParams(UsageError):
    """Raised when a job's or an item's params do not fit the task's schema."""


class InvalidInput(UsageError):
    """Raised when an input cannot be read at all: missing, unknown format, not UTF-8, empty."""


class EmptyInput(InvalidInput):
    """Raised when an input can be read and has no items."""


class NothingNew(TextmillError):
    """Raised in place of making an incremental job of no items: all were seen before. Nothing went wrong."""

    def __init__(self, name: str, unchanged: int, vanished: int) -> None:
        self.unchanged, self.vanished = unchanged, vanished
        gone = f", {vanished:,} have vanished" if vanished else ""
        super().__init__(f"nothing new under {name!r}: {unchanged:,} items are as they were{gone}; no job was made")


@dataclass(frozen=True, slots=True)
class Problem:
    """One refused line of an input."""

    line: int
    """1-based line of the file, or 1-based position of the item."""
    code: str
    message: str
    file: str | None = None
    """The file `line` is counted in; None: items from a program."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file else f"line {self.line}"
        return f"{where}: {self.code}: {self.message}"


class InvalidItems(InvalidInput):
    """Raised at submit when lines cannot be items; nothing of the input is run.

    `problems` holds the first 1,000, `total` counts all, `report` is the path of a file with all.
    """

    def __init__(self, problems: list[Problem], total: int, report: str | None = None) -> None:
        self.problems, self.total, self.report = problems, total, report
        lines = "\n".join(f"  {problem}" for problem in problems[:1000])
        rest = f"\n  ... and {total - len(problems)} more" if total > len(problems) else ""
        where = f"\nall of them: {report}" if report else ""
        super().__init__(f"{total} line(s) cannot be items:\n{lines}{rest}{where}")


class MissingGold(InvalidInput):
    """Raised when results are to be judged and not one of them was kept with a gold value."""


class UnknownJob(UsageError):
    """Raised when no job has the given id, or when a prefix fits several."""


class UnknownKey(UsageError):
    """Raised when no API key of the caller's tenant has the given id."""


class UnknownFile(UsageError):
    """Raised when no uploaded file of the caller's tenant has the given id."""


class UnknownBatch(UsageError):
    """Raised when no batch of the caller's tenant has the given id."""


class UnknownWebhook(UsageError):
    """Raised when no webhook of the caller's tenant, or no delivery of it, has the given id."""


class UnknownConnection(UsageError):
    """Raised when the operator has named no such source or sink for the caller's tenant."""


class UnknownWorker(UsageError):
    """Raised when no worker that reported lately has the given id."""


class QuotaExceeded(UsageError):
    """Raised at submit when the tenant has, or would have, more items or tokens in line than its quota."""


class UnknownSchedule(UsageError):
    """Raised when no schedule of the caller's tenant has the given id or name."""


class UnknownUpload(UsageError):
    """Raised when no upload of the caller's tenant has the given id."""


class InvalidState(UsageError):
    """Raised when a move is not allowed from the present state of the job, the batch or the upload."""


class WrongOffset(UsageError):
    """Raised when bytes of an upload do not follow those that are there; the text says where to go on."""


class IdempotencyConflict(UsageError):
    """Raised when an idempotency key comes back with a different request."""


class InvalidModel(UsageError):
    """Raised when a model folder is refused: no safetensors, remote code, a path that leads outside."""


class NotInstalled(UsageError):
    """Raised when something needs packages that only an extra installs; the text says which."""


class InvalidSettings(UsageError):
    """Raised when the settings are wrong; the text names the setting and what is allowed."""


class OutputError(TextmillError):
    """Raised when results cannot be written: not writable, disk full. The job and its results are kept."""


class SchemaOutdated(TextmillError):
    """Raised when the database's revision is not this code's; `textmill db upgrade` mends it."""


class StoreUnavailable(TextmillError):
    """Raised when the database does not answer in time. Nothing was written, or the call is safe to repeat."""


class QueueUnavailable(TextmillError):
    """Raised when Redis does not answer in time. Hints are lost, jobs are not."""


class ApiError(TextmillError):
    """Raised by the clients over HTTP for what only a server refuses: no key, the wrong scope, a limit."""


class ApiUnavailable(ApiError):
    """Raised when a server does not answer, after several tries. A submit can be repeated with the same key."""


class HomeBusy(TextmillError):
    """Raised when a second `textmill up` is started in the same home."""


class BrokerFailed(TextmillError):
    """Raised when the embedded broker neither starts nor can be adopted."""


class FetchFailed(TextmillError):
    """Raised when a model's files cannot be fetched. Nothing half-made is left; the same call goes on from there."""


class WorkerFailed(TextmillError):
    """Raised when the embedded worker's process ends before it is ready, again and again. Jobs are kept."""


class ModelFailed(TextmillError):
    """Raised when a model cannot be loaded or run here at all; its jobs fail with this text."""


class DeviceLost(TextmillError):
    """Raised by an engine when the device is beyond repair (sticky CUDA error); the process ends."""


class ItemErrorCode(StrEnum):
    """Why one item has no output. A closed list: callers may match on it."""

    EMPTY_TEXT = "empty_text"
    INVALID_TEXT = "invalid_text"
    INVALID_ITEM = "invalid_item"
    TOO_LONG = "too_long"
    UNSUPPORTED_LANGUAGE = "unsupported_language"
    NO_MASK = "no_mask"
    SCHEMA_UNSATISFIED = "schema_unsatisfied"
    MODEL_ERROR = "model_error"
    POISON = "poison"
    CHUNK_ERROR = "chunk_error"


MEANINGS: Mapping[ItemErrorCode, str] = {
    ItemErrorCode.EMPTY_TEXT: "there is nothing in it to read",
    ItemErrorCode.INVALID_TEXT: "it holds what is no character (NUL, half of a surrogate pair)",
    ItemErrorCode.INVALID_ITEM: "its fields or params do not fit the task or the model",
    ItemErrorCode.TOO_LONG: "it is longer than the model reads, and was not to be cut or split",
    ItemErrorCode.UNSUPPORTED_LANGUAGE: "the model does not know one of its languages",
    ItemErrorCode.NO_MASK: "it has no gap to be filled",
    ItemErrorCode.SCHEMA_UNSATISFIED: "the answer does not keep to the form that was asked for",
    ItemErrorCode.MODEL_ERROR: "the model failed on this item alone, or gave no numbers (NaN)",
    ItemErrorCode.POISON: "it killed the process that ran it, again and again",
    ItemErrorCode.CHUNK_ERROR: "its chunk failed again and again, each time for a reason that might have passed",
}
"""What each of them means, for people."""


class ItemError(TextmillError):
    """Raised by a task's preprocess or postprocess: this item fails with `code`, its neighbours do not."""

    def __init__(self, code: ItemErrorCode, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")
