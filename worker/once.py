"""Runs equal items once: those in hand wait for the first of them, and outputs of before are used again.

Only where the answer depends on nothing else (`deterministic`). What is equal is decided by fingerprints: within a job
(setting `dedup`), and with a cache (setting `cache_bytes`) among all jobs of a tenant.
"""

import logging
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jobs import telemetry
from jobs.errors import TextmillError
from jobs.fingerprints import Fingerprints, deterministic
from jobs.models import ModelSpec
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.cache import Cached
from worker.held import Fate, Held, Question

log = logging.getLogger("textmill.worker")

REMEMBERED = 100_000
REMEMBERED_BYTES = 64 * 2**20
"""Outputs that a process remembers, and the most that they may take."""
ENTRY_BYTES = 400
"""What an output takes beside its text."""
JOBS_KEPT = 256


class Waiting(NamedTuple):
    """An item that was not asked, since an equal one was."""

    held: Held
    at: int
    """Its index within the chunk."""


Deliver = Callable[[Sequence[tuple[Waiting, Fate]], Sequence[Waiting]], None]
"""Given items with the fate of their equals, and items that must be asked by themselves after all."""


class Memory:
    """The outputs that this process needed last. Not safe for threads by itself."""

    def __init__(self) -> None:
        self._fates: OrderedDict[Question, Fate] = OrderedDict()
        self._bytes = 0

    def get(self, question: Question) -> Fate | None:
        """The ok fate of an item, from `status` to `windows` of its result."""
        fate = self._fates.get(question)
        if fate is not None:
            self._fates.move_to_end(question)
        return fate

    def put(self, question: Question, fate: Fate) -> None:
        if question in self._fates:
            return
        self._fates[question] = fate
        self._bytes += _size(fate)
        while len(self._fates) > REMEMBERED or self._bytes > REMEMBERED_BYTES:
            self._bytes -= _size(self._fates.popitem(last=False)[1])


class Once:
    """The questions of one shift. `sift` and `attach` belong to its reader, `keep` to its writer."""

    def __init__(self, store: Store, settings: Settings, memory: Memory, deliver: Deliver) -> None:
        self._store, self._memory, self._deliver = store, memory, deliver
        self._cached, self._dtype = settings.cache_bytes > 0, settings.dtype
        self._lock = threading.Lock()
        self._asked: dict[Question, list[Waiting]] = {}
        """What is being run, and who waits for it."""
        self._fresh: dict[str, dict[bytes, Cached]] = defaultdict(dict)
        """Outputs for the cache, by tenant."""
        self._prints: OrderedDict[tuple[str, str], tuple[ModelSpec, Fingerprints]] = OrderedDict()

    def sift(self, held: Held, spec: ModelSpec, indexes: Sequence[int]) -> list[int]:
        """Those of the chunk's items that must be asked. The others wait until `attach`. Raises StoreUnavailable."""
        questions = self._questions(held, spec, indexes)
        before = self._before(held.claim.tenant, set(questions.values()))
        waits: set[int] = set()
        with self._lock:
            if held.gone:
                return list(indexes)
            for index, question in questions.items():
                if question in before:
                    self._memory.put(question, before[question])
                elif question not in self._asked and self._memory.get(question) is None:
                    self._asked[question], held.leads[index] = [], question
                    continue
                held.waits.append((index, question))
                waits.add(index)
        if self._cached:
            telemetry.CACHE_MISSES.inc(len(questions) - len(waits))
        return [index for index in indexes if index not in waits]

    def attach(self, held: Held) -> None:
        """The chunk is prepared: from now on the writer may give its waiting items what they wait for."""
        known: list[tuple[Waiting, Fate]] = []
        alone: list[Waiting] = []
        with self._lock:
            for index, question in held.waits:
                waiting = Waiting(held, index)
                if (fate := self._memory.get(question)) is not None:
                    known.append((waiting, fate))
                elif question in self._asked:
                    self._asked[question].append(waiting)
                else:
                    alone.append(waiting)
            held.waits.clear()
        self._tell(known, alone)

    def concluded(self, held: Held, index: int, fate: Fate) -> None:
        """An item has its result: who waits for it has one too, or asks by itself if that is an error."""
        ok = fate[0] == "ok"
        with self._lock:
            question = held.leads.pop(index, None)
            if question is None:
                return
            waiting = self._asked.pop(question)
            if ok:
                self._memory.put(question, fate)
                if self._cached:
                    self._fresh[held.claim.tenant][question[1]] = Cached(fate[1], fate[2], *fate[5:])
        self._tell([(each, fate) for each in waiting] if ok else [], [] if ok else waiting)

    def forget(self, held: Held) -> None:
        """The chunk is lost, or starts over: who waits for its items asks by itself."""
        with self._lock:
            waiting = [each for question in held.leads.values() for each in self._asked.pop(question)]
            held.leads.clear()
            held.waits.clear()
        self._tell([], waiting)

    def keep(self) -> None:
        """Put what was answered since into the cache. What cannot be put there is only asked again some day."""
        with self._lock:
            fresh, self._fresh = self._fresh, defaultdict(dict)
        for tenant, outputs in fresh.items():
            try:
                self._store.cache.put(tenant, outputs)
            except TextmillError as error:
                log.warning("outputs were not cached: %s", error)

    def _tell(self, known: Sequence[tuple[Waiting, Fate]], alone: Sequence[Waiting]) -> None:
        if self._cached:
            telemetry.CACHE_HITS.inc(len(known))
            telemetry.CACHE_MISSES.inc(len(alone))
        if known or alone:
            self._deliver(known, alone)

    def _questions(self, held: Held, spec: ModelSpec, indexes: Sequence[int]) -> dict[int, Question]:
        """What the items ask, where the answer depends on nothing else."""
        in_force = held.codec.in_force
        open_ = [
            index
            for index in indexes
            if (asked := held.asked[index]) is not None
            and all(deterministic(request, in_force) for request in asked.requests)
        ]
        prints = self._of(held, spec).of([held.items[index] for index in open_])
        scope = held.claim.tenant if self._cached else held.claim.job_id
        return {index: (scope, fingerprint) for index, fingerprint in zip(open_, prints, strict=True)}

    def _of(self, held: Held, spec: ModelSpec) -> Fingerprints:
        """The fingerprints of a job's items on one of its models, as that is registered now."""
        job = (held.claim.job_id, spec.name)
        known = self._prints.get(job)
        if known is None or known[0] != spec:
            made = Fingerprints(held.task, held.params, spec, computed=spec.dtype or self._dtype)
            known = self._prints[job] = (spec, made)
            if len(self._prints) > JOBS_KEPT:
                self._prints.popitem(last=False)
        return known[1]

    def _before(self, tenant: str, questions: set[Question]) -> dict[Question, Fate]:
        """What the cache has of it."""
        if not self._cached or not questions:
            return {}
        with self._lock:
            missing = [question for question in questions if self._memory.get(question) is None]
        found = self._store.cache.get(tenant, [fingerprint for _, fingerprint in missing]) if missing else {}
        return {(tenant, which): ("ok", each[0], each[1], None, None, *each[2:]) for which, each in found.items()}


def _size(fate: Fate) -> int:
    return ENTRY_BYTES + len(fate[1] or "") + len(fate[2] or b"")
