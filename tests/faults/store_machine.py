"""The store beside a model of it in dictionaries: verbs in any order, and what must hold after each."""

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobs.errors import InvalidState
from jobs.states import FINAL, LIVE
from jobs.store import Store
from jobs.store.blame import ALONE_LIMIT, TOO_OFTEN
from jobs.store.encoding import suspects_of
from jobs.store.reaping import CRASH_LIMIT
from jobs.store.values import InFlight, Save
from tests.rows import failed, fall_silent, ok, queued_job, rows

WORKERS = ("w1", "w2")
some = st.integers(0, 2**16).map(random.Random)


@dataclass
class Chunk:
    """What the model knows of one chunk."""

    job: str
    lo: int
    hi: int
    state: str = "pending"
    attempt: int = 0
    crashes: int = 0
    errors: int = 0
    token: str | None = None
    worker: str | None = None
    suspects: dict[int, int] = field(default_factory=dict)


@dataclass
class Job:
    state: str = "queued"
    control: str = "run"
    results: dict[int, str] = field(default_factory=dict)


class Machine(RuleBasedStateMachine):
    """Verbs of producers, workers and upkeep, with old tokens among the new."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, Job] = {}
        self.chunks: dict[int, Chunk] = {}
        self.claimed: list[tuple[int, str]] = []
        """Every chunk and token that was ever claimed."""

    @initialize(n_items=st.integers(2, 8), per_chunk=st.integers(1, 4))
    def begin(self, n_items: int, per_chunk: int) -> None:
        for table in ("results", "chunks", "blocks", "jobs"):
            _do(self.store, f"DELETE FROM {table}")
        self.submit(n_items, per_chunk, "a")

    # ----- producers -----

    @precondition(lambda self: len(self.jobs) < 3)
    @rule(n_items=st.integers(1, 8), per_chunk=st.integers(1, 4), model=st.sampled_from("ab"))
    def submit(self, n_items: int, per_chunk: int, model: str) -> None:
        job = queued_job(self.store, n_items, per_chunk=per_chunk, model=model)
        self.jobs[job.id] = Job()
        self._meet_new(job.id)

    @precondition(lambda self: self.jobs)
    @rule(chance=some, verb=st.sampled_from(["pause", "resume", "cancel", "fail"]))
    def steer(self, chance: random.Random, verb: str) -> None:
        job_id = chance.choice(sorted(self.jobs))
        job, refused = self.jobs[job_id], False
        try:
            self.store.jobs.fail(job_id, "told to") if verb == "fail" else getattr(self.store.jobs, verb)(job_id)
        except InvalidState:
            refused = True
        final = job.state in FINAL
        assert refused == (final and verb != "fail" and not (verb == "cancel" and job.state == "cancelled"))
        if final:
            return
        if verb in ("pause", "resume"):
            job.control, before, after = {"pause": ("pause", "pending", "held"), "resume": ("run", "held", "pending")}[
                verb
            ]
            self._move(job_id, {before}, after)
        else:
            job.state = "cancelled" if verb == "cancel" else "failed"
            job.control = "cancel" if verb == "cancel" else job.control
            self._move(job_id, set(LIVE), "cancelled")

    @rule()
    def finish(self) -> None:
        for job_id, job in self.jobs.items():
            over = job.state in ("queued", "running") and not self._live(job_id)
            assert (self.store.jobs.finish(job_id) is not None) == over
            job.state = "completed" if over else job.state

    # ----- workers -----

    @rule(worker=st.sampled_from(WORKERS), cost=st.integers(1, 200), loaded=st.sampled_from([[], ["a"], ["b"]]))
    def claim(self, worker: str, cost: int, loaded: list[str]) -> None:
        taken = self.store.chunks.claim(
            worker_id=worker, queue="default", cost=cost, items=100, loaded=loaded, lease_s=300
        )
        pending = [chunk for chunk in self.chunks.values() if chunk.state == "pending"]
        assert bool(taken) == bool(pending)
        assert len({claim.model for claim in taken}) <= 1
        assert len(taken) == 1 or not any(claim.crashes for claim in taken), "a suspect came in company"
        for claim in taken:
            chunk = self.chunks[claim.chunk_id]
            assert chunk.state == "pending"
            assert (claim.crashes, claim.errors, claim.suspects) == (chunk.crashes, chunk.errors, chunk.suspects)
            chunk.state, chunk.token, chunk.worker = "running", claim.token, worker
            chunk.attempt += 1
            self.jobs[chunk.job].state = "running"
            self.claimed.append((claim.chunk_id, claim.token))

    @rule(chance=some)
    def renew(self, chance: random.Random) -> None:
        held = self._some(chance)
        renewals, skipped = self.store.chunks.renew("w1", held, 300)
        mine = {chunk_id for chunk_id in self._present(held) if self.chunks[chunk_id].worker == "w1"}
        assert ({renewal.chunk_id for renewal in renewals}, skipped) == (mine, set())
        for renewal in renewals:
            assert renewal.control == self.jobs[self.chunks[renewal.chunk_id].job].control

    @rule(chance=some, whole=st.booleans())
    def save(self, chance: random.Random, whole: bool) -> None:
        wanted = self._some(chance)
        saves = []
        for chunk_id, token in wanted.items():
            open_ = self._open(self.chunks[chunk_id])
            part = open_ if whole else chance.sample(open_, chance.randrange(len(open_) + 1))
            lines = [failed(seq) if chance.random() < 0.2 else ok(seq) for seq in part]
            saves.append(Save(chunk_id, token, lines, whole))
        present = self._present(wanted)
        assert self.store.chunks.save(saves) == present
        for save in saves:
            if save.chunk_id in present:
                chunk = self.chunks[save.chunk_id]
                self.jobs[chunk.job].results |= {row.seq: row.error_code or "ok" for row in save.rows}
                chunk.state = "done" if whole else chunk.state

    @rule(chance=some, error=st.sampled_from([None, "again"]))
    def release(self, chance: random.Random, error: str | None) -> None:
        held = self._some(chance)
        present = self._present(held)
        assert self.store.chunks.release(held, error=error).keys() == present
        for chunk_id in present:
            self._back(self.chunks[chunk_id], errors=int(error is not None))

    # ----- upkeep -----

    @rule(chance=some, watched=st.booleans())
    def reap(self, chance: random.Random, watched: bool) -> None:
        """Time passes, for some leases too long; `watched`: somebody was there to see it."""
        held = {chunk_id: token for chunk_id, token in self._some(chance).items() if chunk_id in self._running()}
        silent = [chunk_id for chunk_id in held if self.chunks[chunk_id].state == "running"]
        named: Any = [_Named(chunk_id) for chunk_id in silent]
        fall_silent(self.store, named, **({"lease_s": 5, "ago_s": 0.1} if watched else {"lease_s": 1, "ago_s": 2}))
        assert sum(self.store.chunks.reap()) == len(silent)
        for chunk_id in sorted(silent):
            if watched:
                self._blamed_whole(chunk_id)
            else:
                self._back(self.chunks[chunk_id])

    @rule(chance=some, worker=st.sampled_from(WORKERS), most=st.sampled_from([0, 1, 2]))
    def blame(self, chance: random.Random, worker: str, most: int) -> None:
        """A worker died, and its note is found: what it had in flight, some of it perhaps not its own any more."""
        noted = []
        for chunk_id, token in list(self._some(chance).items())[:most]:
            chunk = self.chunks[chunk_id]
            seqs = chance.sample(range(chunk.lo, chunk.hi), chance.randint(1, chunk.hi - chunk.lo))
            noted.append(InFlight(chunk_id, token, None if chance.random() < 0.2 else seqs))
        self._dies(worker, noted)

    @rule(times=st.integers(1, 4))
    def blame_one_item(self, times: int) -> None:
        """The same worker dies of the same item, again and again."""
        for _ in range(times):
            self.claim("w1", 1, [])
            mine = [chunk_id for chunk_id in self._running() if self.chunks[chunk_id].worker == "w1"]
            for chunk_id in mine[:1]:
                chunk = self.chunks[chunk_id]
                assert chunk.token is not None
                self._dies("w1", [InFlight(chunk_id, chunk.token, self._open(chunk)[:1])])

    def _dies(self, worker: str, noted: list[InFlight]) -> None:
        mine = [chunk_id for chunk_id in self._running() if self.chunks[chunk_id].worker == worker]
        present = {each.chunk_id: each for each in noted if self.chunks[each.chunk_id].token == each.token}
        assert sum(self.store.chunks.blame(worker, noted)) == len(mine)
        for chunk_id in sorted(mine):
            if chunk_id in present:
                self._blamed(self.chunks[chunk_id], present[chunk_id].seqs, alone=len(noted) == 1)
            elif self.chunks[chunk_id].attempt >= TOO_OFTEN:
                self._blamed_whole(chunk_id)
            else:
                self._back(self.chunks[chunk_id])

    # ----- what must hold -----

    @invariant()
    def the_rows_are_what_the_model_says(self) -> None:
        columns = "id, seq_lo, seq_hi, state, crashes, errors, suspects"
        found = {row[0]: tuple(row[1:]) for row in rows(self.store, f"SELECT {columns} FROM chunks")}
        assert found.keys() == self.chunks.keys()
        for chunk_id, (lo, hi, state, crashes, errors, suspects) in found.items():
            chunk = self.chunks[chunk_id]
            assert (lo, hi, state, crashes, errors) == (chunk.lo, chunk.hi, chunk.state, chunk.crashes, chunk.errors)
            assert state not in LIVE or suspects_of(suspects) == chunk.suspects
        for job_id, job in self.jobs.items():
            known = self.store.jobs.get(job_id)
            assert (known.state, known.control) == (job.state, job.control)
            kept = {
                result.seq: result.error.code if result.error else "ok" for result in self.store.results.page(job_id)
            }
            assert kept == job.results

    @invariant()
    def no_rule_of_the_database_is_broken(self) -> None:
        assert self.store.check() == []

    # ----- the model's moves -----

    def _blamed_whole(self, chunk_id: int) -> None:
        chunk = self.chunks[chunk_id]
        open_ = self._open(chunk)
        if chunk.crashes + 1 < CRASH_LIMIT:
            self._back(chunk, crashes=1)
        elif len(open_) > 1:
            chunk.state, chunk.crashes = "split", chunk.crashes + 1
            self._meet_new(chunk.job, chunk)
        else:
            self.jobs[chunk.job].results |= dict.fromkeys(open_, "poison")
            chunk.state, chunk.crashes = "done", chunk.crashes + 1

    def _blamed(self, chunk: Chunk, seqs: Any, *, alone: bool) -> None:
        open_ = self._open(chunk)
        named = open_ if seqs is None else [seq for seq in open_ if seq in seqs]
        if seqs is None and chunk.crashes == 0 and len(open_) > 1:
            return self._back(chunk, crashes=1)
        if open_ and not named:
            return self._back(chunk)
        suspects = {seq: times for seq, times in chunk.suspects.items() if seq in open_}
        for seq in named:
            suspects[seq] = suspects.get(seq, 0) + int(alone and len(named) == 1)
        poison = {seq for seq, times in suspects.items() if times >= ALONE_LIMIT}
        self.jobs[chunk.job].results |= dict.fromkeys(poison, "poison")
        chunk.suspects = {seq: times for seq, times in suspects.items() if seq not in poison}
        self._back(chunk, crashes=1)
        if poison == {*open_}:
            chunk.state = "done"
        return None

    def _back(self, chunk: Chunk, *, crashes: int = 0, errors: int = 0) -> None:
        chunk.state = "held" if self.jobs[chunk.job].control == "pause" else "pending"
        chunk.crashes += crashes
        chunk.errors += errors

    def _move(self, job_id: str, before: set[Any], after: str) -> None:
        for chunk in self.chunks.values():
            if chunk.job == job_id and chunk.state in before:
                chunk.state = after

    def _meet_new(self, job_id: str, parent: Chunk | None = None) -> None:
        """Learn the ids of chunks that have just been made; of a parent's children, whether they are its halves."""
        new = [
            row
            for row in rows(self.store, "SELECT id, seq_lo, seq_hi FROM chunks ORDER BY id")
            if row[0] not in self.chunks
        ]
        if parent is not None:
            new = new[:2]  # they are made in the order of their parents
            open_ = self._open(parent)
            middle = open_[len(open_) // 2]
            assert [tuple(row[1:]) for row in new] == [(parent.lo, middle), (middle, parent.hi)]
        for chunk_id, lo, hi in new:
            made = self.chunks[chunk_id] = Chunk(job_id, lo, hi)
            if parent is not None:
                made.attempt, made.errors = parent.attempt, parent.errors
                made.suspects = {s: n for s, n in parent.suspects.items() if lo <= s < hi}
                self._back(made, crashes=1)

    # ----- choices -----

    def _some(self, chance: random.Random) -> dict[int, str]:
        """Tokens, mostly of chunks that run, and mostly those that they run by; some chunks are claimed for it."""
        for _ in range(2):
            self.claim("w1", 1, [])
        known: dict[int, list[str]] = {}
        for chunk_id, token in self.claimed:
            known.setdefault(chunk_id, []).append(token)
        return {
            chunk_id: tokens[-1] if chance.random() < 0.7 else chance.choice(tokens)
            for chunk_id, tokens in known.items()
            if chance.random() < (0.7 if self.chunks[chunk_id].state == "running" else 0.2)
        }

    def _present(self, held: dict[int, str]) -> set[int]:
        return {each for each, token in held.items() if each in self._running() and self.chunks[each].token == token}

    def _running(self) -> list[int]:
        return [chunk_id for chunk_id, chunk in self.chunks.items() if chunk.state == "running"]

    def _open(self, chunk: Chunk) -> list[int]:
        return [seq for seq in range(chunk.lo, chunk.hi) if seq not in self.jobs[chunk.job].results]

    def _live(self, job_id: str) -> bool:
        return any(chunk.job == job_id and chunk.state in LIVE for chunk in self.chunks.values())


@dataclass
class _Named:
    chunk_id: int


def _do(store: Store, statement: str) -> None:
    store._db.write(lambda connection: connection.exec_driver_sql(statement))
