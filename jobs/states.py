"""The life cycle of jobs and chunks: states, allowed moves, meanings.

    job     loading ──seal──> queued ──first claim──> running ──no live chunk──> completed
               │                │                        │
               ├──abandoned─────┼──cannot run at all─────┼──> failed
               │                ├──deadline──────────────┼──> expired
               └──cancel────────┴──cancel────────────────┴──> cancelled

    chunk   held ──seal, resume──> pending ──claim──> running ──complete──> done
             ^                      │   ^               │
             └───────pause──────────┘   ├──release, retriable error, lease expired
             └───────release of a paused job────────────┤
                                                        └──bisect──> split (two pending children)
            held, pending, running ──cancel, expire, job failed──> cancelled

`done`, `split`, `cancelled` and every final job state are absorbing. Paused is `Control.PAUSE` on the job, not a
state. A job is `completed` even when items failed: the counts tell.
"""

from enum import StrEnum


class JobState(StrEnum):
    LOADING = "loading"
    """Its items are still arriving; no chunk can be claimed."""
    QUEUED = "queued"
    """Sealed; no chunk has been claimed yet."""
    RUNNING = "running"
    COMPLETED = "completed"
    """Every item has a result, ok or error."""
    FAILED = "failed"
    """It cannot run at all (`error` says why). Results so far are kept."""
    EXPIRED = "expired"
    """Its deadline passed. Results so far are kept."""
    CANCELLED = "cancelled"
    """Someone cancelled it. Results so far are kept."""

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED})

JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.LOADING: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.COMPLETED, JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED}
    ),
    JobState.RUNNING: FINAL,
} | {state: frozenset() for state in FINAL}


class Control(StrEnum):
    """What the owner wants of a job that is not final."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class ChunkState(StrEnum):
    HELD = "held"
    """Its job is loading or paused."""
    PENDING = "pending"
    RUNNING = "running"
    """Claimed: `lease_token` and `lease_until` are set."""
    DONE = "done"
    """Every item of it has a result."""
    SPLIT = "split"
    """Replaced by two children after it crashed its worker twice."""
    CANCELLED = "cancelled"


class CanaryState(StrEnum):
    """How far the canary of a job is: the few items that are run before the rest may."""

    RUNNING = "running"
    """Its items are to be run, or are being run; the others are held."""
    WAITING = "waiting"
    """Its items have results; the job is paused until somebody approves of them."""
    PASSED = "passed"
    """The rest goes on: it was approved, or did so by itself."""


LIVE = frozenset({ChunkState.HELD, ChunkState.PENDING, ChunkState.RUNNING})

CHUNK_MOVES: dict[ChunkState, frozenset[ChunkState]] = {
    ChunkState.HELD: frozenset({ChunkState.PENDING, ChunkState.CANCELLED}),
    ChunkState.PENDING: frozenset({ChunkState.HELD, ChunkState.RUNNING, ChunkState.CANCELLED}),
    ChunkState.RUNNING: frozenset(
        {ChunkState.DONE, ChunkState.PENDING, ChunkState.HELD, ChunkState.SPLIT, ChunkState.CANCELLED}
    ),
    ChunkState.DONE: frozenset(),
    ChunkState.SPLIT: frozenset(),
    ChunkState.CANCELLED: frozenset(),
}


class ExportState(StrEnum):
    """How far the results of a job are on their way to its sink."""

    WAITING = "waiting"
    """The job has not ended."""
    DUE = "due"
    """They are to be written, are being written, or will be tried again."""
    DONE = "done"
    FAILED = "failed"
    """It was given up, or the job did not complete."""


class RunState(StrEnum):
    """What became of one due time of a schedule."""

    FIRING = "firing"
    """Its items are being read, or wait for the run before."""
    SUBMITTED = "submitted"
    """It has a job; how that goes is the job's to say."""
    EMPTY = "empty"
    """There was nothing (new) to do."""
    SKIPPED = "skipped"
    """The policy for overlaps, or for times that were missed, left it out."""
    FAILED = "failed"
    """No job could be made of it."""


class DeliveryState(StrEnum):
    """How far the news of an event is on its way to a webhook."""

    PENDING = "pending"
    """It is sent when it is due, again and again until it is taken."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up after the last try; it can be sent again by hand."""
