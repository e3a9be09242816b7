"""Bytes of an upload on their way to the disk: what has arrived counts, however the request ends."""

import threading

from jobs.api.openai.storage import Arriving
from jobs.api.problems import HttpProblem
from jobs.api.service import Service
from jobs.errors import UsageError
from jobs.store.uploads import UploadRow, new_part_id

PART_BYTES = 64 * 2**20
"""A longer body becomes several parts: as much may be lost with this process."""


class Receiving:
    """Takes one request's bytes, which follow those that are there."""

    def __init__(self, service: Service, upload: UploadRow) -> None:
        self._service, self.upload = service, upload
        self._part: tuple[str, Arriving] | None = None
        # A request that is cancelled does not wait for the thread in which its last piece is written.
        self._lock = threading.RLock()

    def take(self, piece: bytes) -> None:
        """Raises HttpProblem for more than was announced, StoreUnavailable, and what `keep` raises."""
        with self._lock:
            if len(piece) > self._left:
                raise too_long(self.upload)
            name, arriving = self._part or self._begun()
            self._part = None  # should the disk refuse, nothing of the part is left
            arriving.write(piece)
            self._part = name, arriving
            if arriving.size >= PART_BYTES:
                self.keep()

    def keep(self) -> None:
        """Let what was taken count. Raises WrongOffset when somebody else was quicker, InvalidState."""
        with self._lock:
            if self._part is None:
                return
            (name, arriving), self._part = self._part, None
            arriving.finish()
            live_s, at = self._service.settings.upload_timeout_s, self.upload.offset
            try:
                self.upload = self._service.store.uploads.append(
                    self.upload.id, name, arriving.size, at=at, live_s=live_s
                )
            except UsageError:
                self._service.storage.delete([name])
                raise

    @property
    def _left(self) -> int:
        """How many bytes may still come."""
        return self.upload.bytes - self.upload.offset - (self._part[1].size if self._part is not None else 0)

    def _begun(self) -> tuple[str, Arriving]:
        name = new_part_id()
        return name, self._service.storage.begin(name)


def too_long(upload: UploadRow) -> HttpProblem:
    return HttpProblem(413, "too_large", f"{upload.bytes:,} bytes were announced, and more are sent")
