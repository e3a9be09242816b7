"""Schedules, and the runs that their due times become: each once, whoever fires it."""

import builtins
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, or_, select, text, update

from jobs.errors import InvalidParams, UnknownSchedule
from jobs.schemas import Schedule, ScheduleRun, ScheduleSpec
from jobs.states import JobState, RunState
from jobs.store import ids, outbox
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.encoding import storable
from jobs.store.tables import jobs, schedule_runs, schedules

PRUNED_AT_ONCE = 1000

_SHOWN = [schedules.c[name] for name in Schedule.model_fields]
_RUN = [schedule_runs.c[name] for name in ScheduleRun.model_fields]
_FIRING = text("schedule_runs.state = 'firing'")


class Firing(NamedTuple):
    """A run that this process has taken: nobody else works on it until its time is over."""

    run_id: int
    schedule: Schedule
    due_at: datetime
    seen: str | None
    """The fingerprint of the inputs of the last run that made a job."""


class Schedules:
    """The schedules of all tenants; `tenant` None looks at all of them."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(self, tenant: str, name: str, spec: ScheduleSpec, next_due_at: datetime | None) -> Schedule:
        """A new schedule. Raises InvalidParams when the tenant has one of that name."""
        values = {"id": f"sch_{secrets.token_hex(8)}", "tenant": tenant, "name": name}
        row = self._db.insert(schedules).values(
            **values, spec=spec.model_dump(mode="json"), paused=False, next_due_at=next_due_at, created_at=now()
        )
        made = row.on_conflict_do_nothing().returning(*_SHOWN)
        found = self._db.write(lambda connection: connection.execute(made).one_or_none())
        if found is None:
            raise InvalidParams(f"tenant {tenant!r} has a schedule {name!r} already; remove it first")
        return _schedule(found)

    def get(self, id_or_name: str, tenant: str | None = None) -> Schedule:
        """Raises UnknownSchedule, also for one of another tenant, and when several tenants have one of that name."""
        named = or_(schedules.c.id == id_or_name, schedules.c.name == id_or_name)
        wanted = select(*_SHOWN).where(named).limit(2)
        if tenant is not None:
            wanted = wanted.where(schedules.c.tenant == tenant)
        found = self._db.read(lambda connection: connection.execute(wanted).all())
        if len(found) != 1:
            several = "several tenants have one; name its id" if found else "`textmill schedule list` shows them"
            raise UnknownSchedule(f"no schedule {id_or_name[:100]!r}: {several}")
        return _schedule(found[0])

    def list(self, tenant: str | None = None) -> builtins.list[Schedule]:
        """By name."""
        wanted = select(*_SHOWN).order_by(schedules.c.tenant, schedules.c.name)
        if tenant is not None:
            wanted = wanted.where(schedules.c.tenant == tenant)
        return [_schedule(row) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

    def pause(self, schedule_id: str) -> Schedule:
        """Nothing of it is due any more; what is being fired goes on. Safe to repeat."""
        return self._change(schedule_id, paused=True, next_due_at=None)

    def resume(self, schedule_id: str, next_due_at: datetime | None) -> Schedule:
        """It is due again, first at this time. Safe to repeat."""
        return self._change(schedule_id, paused=False, next_due_at=next_due_at)

    def delete(self, schedule_id: str) -> None:
        """Take it away with its history; its jobs stay. Raises UnknownSchedule."""

        def work(connection: Connection) -> None:
            found = connection.execute(select(schedules.c.id).where(schedules.c.id == schedule_id).with_for_update())
            if found.one_or_none() is None:
                raise UnknownSchedule(f"no schedule {schedule_id!r}")
            connection.execute(delete(schedule_runs).where(schedule_runs.c.schedule_id == schedule_id))
            connection.execute(delete(schedules).where(schedules.c.id == schedule_id))

        self._db.write(work)

    def run_now(self, schedule_id: str) -> ScheduleRun:
        """A run that is due at this moment, beside the ones of its times."""
        moment = self._db.read(lambda connection: connection.execute(select(now())).scalar_one())
        row = self._db.insert(schedule_runs).values(_new_run(schedule_id, moment, moment))

        def work(connection: Connection) -> ScheduleRun:
            connection.execute(row.on_conflict_do_nothing())
            return _run(connection.execute(select(*_RUN).where(_at(schedule_id, moment))).one())

        return self._db.write(work)

    def runs(self, schedule_id: str, *, limit: int = 100, before: int | None = None) -> builtins.list[ScheduleRun]:
        """The history, newest first; `before` is the id to go on from."""
        wanted = select(*_RUN).where(schedule_runs.c.schedule_id == schedule_id).order_by(schedule_runs.c.id.desc())
        if before is not None:
            wanted = wanted.where(schedule_runs.c.id < before)
        return [_run(row) for row in self._db.read(lambda connection: connection.execute(wanted.limit(limit)).all())]

    def due(self, limit: int) -> tuple[datetime, builtins.list[Schedule]]:
        """The present moment, and schedules with a due time that has come."""
        wanted = select(*_SHOWN).where(schedules.c.next_due_at <= now()).order_by(schedules.c.next_due_at).limit(limit)

        def work(connection: Connection) -> tuple[datetime, builtins.list[Schedule]]:
            moment: datetime = connection.execute(select(now())).scalar_one()
            return moment, [_schedule(row) for row in connection.execute(wanted)]

        return self._db.read(work)

    def fire(
        self,
        schedule: Schedule,
        fired: Sequence[tuple[datetime, datetime]],
        missed: Sequence[datetime],
        next_due_at: datetime | None,
    ) -> int:
        """How many runs began: one for each due time of `fired`, no sooner than the time beside it. `missed` ones are
        noted. Nothing, if somebody else was quicker."""
        runs = [_new_run(schedule.id, due_at, not_before) for due_at, not_before in fired]
        runs += [_new_run(schedule.id, due_at, None) for due_at in missed]
        mine = (schedules.c.id == schedule.id) & (schedules.c.next_due_at == schedule.next_due_at)
        moved = update(schedules).where(mine).values(next_due_at=next_due_at)

        def work(connection: Connection) -> int:
            if connection.execute(moved).rowcount != 1:
                return 0
            for row in runs:
                connection.execute(self._db.insert(schedule_runs).values(row).on_conflict_do_nothing())
            return len(fired)

        return self._db.write(work)

    def ready(self, limit: int) -> int:
        """How many runs could be taken now, counted up to `limit`."""
        some = select(schedule_runs.c.id).where(_FIRING, schedule_runs.c.not_before <= now()).limit(limit)
        counted = select(func.count()).select_from(some.subquery())
        return int(self._db.read(lambda connection: connection.execute(counted).scalar_one()))

    def take(self, hold_s: float) -> Firing | None:
        """A run to be worked on, the oldest of its schedule; if this process dies, another has it after so long."""
        first = select(schedule_runs.c.id).where(_FIRING, schedule_runs.c.not_before <= now())
        one = first.order_by(schedule_runs.c.not_before, schedule_runs.c.id).limit(1)
        held = one.with_for_update(skip_locked=True).scalar_subquery()
        taken = update(schedule_runs).where(schedule_runs.c.id == held).values(not_before=later(hold_s))

        def work(connection: Connection) -> Firing | None:
            run = connection.execute(taken.returning(*_RUN)).one_or_none()
            if run is None:
                return None
            row: Any = connection.execute(
                select(*_SHOWN, schedules.c.seen).where(schedules.c.id == run.schedule_id)
            ).one()
            return Firing(run.id, _schedule(row), run.due_at, row.seen)

        return self._db.write(work)

    def hold(self, run_ids: Sequence[int], hold_s: float) -> None:
        """Work on these goes on. One that was just told to wait has little time left, and is not held."""
        mine = schedule_runs.c.id.in_(run_ids) & (schedule_runs.c.not_before > later(hold_s / 2))
        held = update(schedule_runs).where(mine, _FIRING).values(not_before=later(hold_s))
        self._db.write(lambda connection: connection.execute(held))

    def before(self, firing: Firing) -> tuple[int | None, str | None]:
        """What of the schedule's earlier runs is not over: a run that is firing, a job."""
        earlier = (schedule_runs.c.schedule_id == firing.schedule.id) & (schedule_runs.c.id < firing.run_id)
        running = select(schedule_runs.c.id).where(earlier, _FIRING).order_by(schedule_runs.c.id).limit(1)
        live = jobs.c.state.in_([str(state) for state in JobState if not state.final])
        job = select(jobs.c.id).join(schedule_runs, schedule_runs.c.job_id == jobs.c.id).where(earlier, live).limit(1)

        def work(connection: Connection) -> tuple[int | None, str | None]:
            job_id = connection.execute(job).scalar_one_or_none()
            return connection.execute(running).scalar_one_or_none(), None if job_id is None else ids.public(job_id)

        return self._db.read(work)

    def wait(self, run_id: int, seconds: float) -> None:
        """The run is looked at again later."""
        again = update(schedule_runs).where(schedule_runs.c.id == run_id, _FIRING).values(not_before=later(seconds))
        self._db.write(lambda connection: connection.execute(again))

    def submitted(self, firing: Firing, job_id: str, n_items: int, seen: str | None) -> None:
        """The run has its job. `seen`: the fingerprint of its inputs."""
        ended = {"state": RunState.SUBMITTED, "job_id": ids.parse(job_id), "n_items": n_items}

        def work(connection: Connection) -> None:
            _end(connection, firing.run_id, **ended)
            if seen is not None:
                connection.execute(update(schedules).where(schedules.c.id == firing.schedule.id).values(seen=seen))

        self._db.write(work)

    def end(self, firing: Firing, state: RunState, note: str) -> None:
        """The run is over without a job; a failed one is told to webhooks."""

        def work(connection: Connection) -> None:
            if _end(connection, firing.run_id, state=state, note=storable(note)[:2000]) and state is RunState.FAILED:
                schedule = firing.schedule
                told = (schedule.tenant, schedule.id, schedule.name, firing.due_at, storable(note)[:2000])
                outbox.run_failed(self._db, connection, *told)

        self._db.write(work)

    def forget(self, firing: Firing) -> None:
        """As if the run had never been: the inputs that it looked at have not changed."""
        gone = delete(schedule_runs).where(schedule_runs.c.id == firing.run_id, _FIRING)
        self._db.write(lambda connection: connection.execute(gone))

    def prune(self, older_s: float) -> int:
        """How many runs that are so old were forgotten."""
        old = select(schedule_runs.c.id).where(schedule_runs.c.ended_at < later(-older_s)).limit(PRUNED_AT_ONCE)
        gone = delete(schedule_runs).where(schedule_runs.c.id.in_(old))
        return self._db.write(lambda connection: connection.execute(gone).rowcount)

    def _change(self, schedule_id: str, **values: Any) -> Schedule:
        changed = update(schedules).where(schedules.c.id == schedule_id).values(**values).returning(*_SHOWN)
        row = self._db.write(lambda connection: connection.execute(changed).one_or_none())
        if row is None:
            raise UnknownSchedule(f"no schedule {schedule_id!r}")
        return _schedule(row)


def _new_run(schedule_id: str, due_at: datetime, not_before: datetime | None) -> dict[str, Any]:
    """The row of a run; without a time to begin at, of one that was missed."""
    row: dict[str, Any] = {"schedule_id": schedule_id, "due_at": due_at, "created_at": now()}
    if not_before is None:
        note = "nobody was there to fire it in time"
        return {**row, "state": RunState.SKIPPED, "not_before": None, "ended_at": now(), "note": note}
    return {**row, "state": RunState.FIRING, "not_before": not_before, "ended_at": None, "note": None}


def _at(schedule_id: str, due_at: datetime) -> Any:
    return (schedule_runs.c.schedule_id == schedule_id) & (schedule_runs.c.due_at == due_at)


def _end(connection: Connection, run_id: int, **values: Any) -> bool:
    """Whether the run was still to be ended."""
    ended = update(schedule_runs).where(schedule_runs.c.id == run_id, _FIRING)
    return connection.execute(ended.values(not_before=None, ended_at=now(), **values)).rowcount == 1


def _schedule(row: Row[Any]) -> Schedule:
    return Schedule(**{name: row._mapping[name] for name in Schedule.model_fields})


def _run(row: Row[Any]) -> ScheduleRun:
    found = dict(row._mapping)
    return ScheduleRun(**found | {"job_id": None if row.job_id is None else ids.public(row.job_id)})
