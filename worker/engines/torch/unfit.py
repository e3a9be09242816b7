"""What the proofs at load say of a model that a fast way cannot run."""

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.errors import DeviceLost
from worker.engines.base import OutOfMemory


class Unfit(Exception):
    """Raised for a model that cannot be run this way; says why."""


@contextmanager
def explained() -> Iterator[None]:
    """Whatever such a model raises, as Unfit."""
    try:
        yield
    except (DeviceLost, OutOfMemory, Unfit):
        raise
    except Exception as error:
        raise Unfit(f"{type(error).__name__}: {error}"[:300]) from error
