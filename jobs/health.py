"""Is what runs on this machine alive, and is it ready for work? Judged by what the processes show (`jobs.pulse`).

Alive: it goes on; a database that is down is no reason to start a worker again. Ready: it could work on a job now.
"""

import os
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jobs.pulse import Role, Seen, pulses

Probe = Literal["live", "ready"]
FRESH_S = 30.0
"""A database that has not answered for longer counts as unreachable."""


class Verdict(NamedTuple):
    """The answer to a probe."""

    ok: bool
    says: str
    """One line for people."""
    processes: list[dict[str, Any]]


def home() -> Path:
    """The home of the settings in force, found without them: they take longer to load than all else of a probe."""
    chosen = os.environ.get("TEXTMILL_HOME")
    if chosen is None and (file := Path("textmill.toml")).is_file():
        chosen = tomllib.loads(file.read_text(encoding="utf-8")).get("home")
    return Path(chosen or "~/.textmill").expanduser().absolute()


def roles(part: str | None) -> tuple[Role, ...]:
    """The processes that a part of a deployment consists of; none: all."""
    return {"worker": ("supervisor", "worker"), "upkeep": ("upkeep",)}.get(part or "", ())  # type: ignore[return-value]


def judge(home: Path, probe: Probe, roles: Sequence[Role] = ()) -> Verdict:
    """What a probe finds among the processes of this home, or those of some roles alone. Not ok: nothing runs."""
    seen = [each for each in pulses(home) if not roles or each.role in roles]
    if not seen:
        return Verdict(False, f"nothing runs here (home {home})", [])
    wrong = [text for each in seen for text in _problems(each, probe)]
    if probe == "ready" and {each.role for each in seen} == {"supervisor"}:
        wrong = wrong or ["its worker has not started yet"]
    if wrong:
        return Verdict(False, "; ".join(wrong), _told(seen))
    names = ", ".join(f"{each.role} {each.pid}{_state(each)}" for each in seen)
    return Verdict(True, f"{probe}: {names}", _told(seen))


def _problems(seen: Seen, probe: Probe) -> Iterator[str]:
    who = f"{seen.role} {seen.pid}"
    if seen.hung:
        doing = seen.facts.get("doing")
        yield f"{who} is hung: silent for {seen.silent_s():.0f} s{f' ({doing})' if doing else ''}"
    elif probe == "ready":
        for problem in _obstacles(seen):
            yield f"{who}: {problem}"


def _obstacles(seen: Seen) -> Iterator[str]:
    """What keeps a process that lives from doing its work."""
    if seen.role == "supervisor":
        yield from (f"a worker {child}" for child in seen.facts.get("down", ()))
        return
    if seen.facts.get("state") in ("starting", "stopping"):
        yield str(seen.facts["state"])
    answered = seen.facts.get("database_at")
    if answered is None or time.monotonic() - answered > FRESH_S:
        yield f"the database does not answer{_because(seen.facts.get('database'))}"
    yield from seen.facts.get("problems", ())


def _because(text: str | None) -> str:
    return f" ({text})" if text else ""


def _state(seen: Seen) -> str:
    state = seen.facts.get("state")
    return f" {state}" if state else ""


def _told(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    return [
        {"role": each.role, "pid": each.pid, "silent_s": round(each.silent_s(), 1), "hung": each.hung, **each.facts}
        for each in seen
    ]
