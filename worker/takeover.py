"""Takes over from workers of this machine that died, without waiting for their leases to end."""

import logging
from collections.abc import Sequence
from pathlib import Path

from jobs.store import Store
from jobs.store.values import InFlight, Reaped
from worker.note import left, paths

log = logging.getLogger("textmill.worker")


def take_over(store: Store, notes: Path) -> None:
    """Tell the store what each dead worker's note says. Raises StoreUnavailable; the note then stays."""
    for path in paths(notes):
        with left(path) as found:
            if found is not None:
                blamed = store.chunks.blame(found.worker_id, found.in_flight)
                log.warning("worker %s has died; its chunks: %s", found.worker_id, _told(blamed, found.in_flight))


def _told(blamed: Reaped, in_flight: Sequence[InFlight]) -> str:
    counts = [f"{count} {name}" for name, count in blamed._asdict().items() if count]
    items = sum(1 if each.seqs is None else len({*each.seqs}) for each in in_flight)
    return f"{', '.join(counts) or 'none'}; {items} item(s) of {len(in_flight)} chunk(s) were in flight"
