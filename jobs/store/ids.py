"""Job ids: `job_` and 32 hex digits of a UUID version 7 outside, a UUID in the tables."""

import secrets
import time
from uuid import UUID

from jobs.errors import UnknownJob

PREFIX = "job_"
_DIGITS = 32


def new_id() -> UUID:
    """A UUID version 7 (RFC 9562, method 3): sorts by time to about a microsecond, the rest is random."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62))


def latest_of(age_s: float) -> UUID:
    """The largest id that could be made so many seconds ago, by this machine's clock."""
    milliseconds = max(0, int((time.time() - age_s) * 1000))
    return UUID(int=((milliseconds + 1) << 80) - 1)


def public(job_id: UUID) -> str:
    """The id as callers see it."""
    return PREFIX + job_id.hex


def parse(text: str) -> UUID:
    """The UUID of a whole id. Raises UnknownJob for anything else."""
    low, high = span(text)
    if low != high:
        raise UnknownJob(f"no job {text!r}; an id is {PREFIX!r} and {_DIGITS} hex digits")
    return low


def span(text: str) -> tuple[UUID, UUID]:
    """The smallest and the largest UUID that begin with this id or prefix. Raises UnknownJob if none can."""
    digits = text.removeprefix(PREFIX).lower()
    if not digits:
        raise UnknownJob(f"{text!r} fits every job; give at least one of the {_DIGITS} hex digits after {PREFIX!r}")
    if len(digits) > _DIGITS or not set(digits) <= set("0123456789abcdef"):
        raise UnknownJob(f"no job {text!r}; an id is {PREFIX!r} and {_DIGITS} hex digits, or their beginning")
    return UUID(digits.ljust(_DIGITS, "0")), UUID(digits.ljust(_DIGITS, "f"))
