"""Reads hints off Redis and lets nothing else in: what is not a well-formed hint is set aside and counted."""

import base64
import logging
import time
from queue import Empty
from typing import Any, NamedTuple

import orjson
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError, ResponseError

from jobs.queue import SHIFT, message

log = logging.getLogger("textmill.worker")

MAX_BYTES = 64 * 1024
"""A hint is about 800 bytes; anything much larger is not one."""
ASIDE = "aside"
"""The Redis list, under the deployment's prefix, that keeps the start of what was set aside."""
REPLIES = ".reply.celery.pidbox"
"""Queues on which `celery inspect` waits for its answers; no worker reads them."""
ASIDE_KEPT, ASIDE_BYTES = 100, 4096
ASIDE_EVERY_S = 10.0
"""In so many seconds no more than `ASIDE_KEPT` are logged and kept: a flood of them must fill neither disk nor time."""
MAX_ID = 128


class Hint(NamedTuple):
    """What a message is read for; everything else in it is dropped."""

    queue: Any
    task_id: str


class NotAHint(Exception):
    """Raised for an entry of a queue that Celery must not see; the text says why."""


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A kombu channel that one malformed list entry cannot crash."""

    set_aside = 0
    _window_at, _in_window = 0.0, 0

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu 5.7 does it, but for what becomes of the entry."""
        try:
            found = self._popped(**options)
            if not found:
                raise Empty
            key, raw = found
            destination = bytes_to_str(key).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(destination)
            if destination.endswith(REPLIES):
                self.connection._deliver(orjson.loads(raw), destination)
            else:
                self._deliver_hint(raw if isinstance(raw, bytes) else raw.encode(), destination)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _popped(self, **options: Any) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        except ResponseError as error:
            self._mend(error)
            return None

    def _size(self, queue: str) -> int:
        try:
            return int(super()._size(queue))
        except ResponseError as error:
            self._mend(error, queue)
            return 0

    def _deliver_hint(self, raw: bytes, destination: str) -> None:
        """Hand Celery a message of our own making, with nothing of the sender's but queue and id."""
        try:
            hint = parse(raw)
        except NotAHint as error:
            self._put_aside(destination, raw, str(error))
            return
        fresh = orjson.loads(message(destination, task_id=hint.task_id))
        fresh["body"] = base64.b64encode(orjson.dumps([[hint.queue], {}, _EMBED])).decode()
        self.connection._deliver(fresh, destination)

    def _put_aside(self, queue: str, raw: bytes, why: str) -> None:
        Channel.set_aside += 1
        if not self._worth_telling():
            return
        log.warning("a message on queue %r was set aside: %s (%d bytes)", queue, why, len(raw))
        try:
            with self.conn_or_acquire() as client:
                client.lpush(ASIDE, orjson.dumps({"queue": queue, "why": why, "start": repr(raw[:ASIDE_BYTES])}))
                client.execute_command("LTRIM", self.global_keyprefix + ASIDE, 0, ASIDE_KEPT - 1)
        except (RedisError, OSError) as error:
            log.warning("what was set aside could not be kept: %s", error)

    def _worth_telling(self) -> bool:
        now = time.monotonic()
        if now > Channel._window_at + ASIDE_EVERY_S:
            if Channel._in_window > ASIDE_KEPT:
                log.warning("%d more messages were set aside", Channel._in_window - ASIDE_KEPT)
            Channel._window_at, Channel._in_window = now, 0
        Channel._in_window += 1
        return Channel._in_window <= ASIDE_KEPT

    def _mend(self, error: ResponseError, *queues: str) -> None:
        """A key of another type where a queue's list belongs would fail every read: move it out of the way."""
        if "WRONGTYPE" not in str(error):
            raise error
        with self.conn_or_acquire() as client:
            for queue in queues or self.active_queues:
                for priority in self.priority_steps:
                    self._rename_wrong(client, self.global_keyprefix + self._q_for_pri(queue, priority))

    def _rename_wrong(self, client: Any, key: str) -> None:
        if client.execute_command("TYPE", key) not in (b"list", b"none", "list", "none"):
            Channel.set_aside += 1
            log.warning("the key %r is no list; it was renamed", key)
            client.execute_command("RENAME", key, f"{key}.{ASIDE}")


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """Redis, read with care."""

    Channel = Channel
    brpop_timeout = 0.2
    """Seconds a BRPOP waits. A worker that is told to stop first waits for the one under way: kombu's is 1 s."""


def parse(raw: bytes) -> Hint:
    """The hint in a queue's entry. Raises NotAHint, whatever the entry is."""
    if len(raw) > MAX_BYTES:
        raise NotAHint("too large")
    outer = _json(raw)
    headers = outer.get("headers") if isinstance(outer, dict) else None
    if not isinstance(headers, dict) or headers.get("task") != SHIFT:
        raise NotAHint(f"not a message for {SHIFT}")
    if outer.get("content-type") != "application/json":
        raise NotAHint("not JSON by its content type")
    identity = headers.get("id")
    if not isinstance(identity, str) or not 0 < len(identity) <= MAX_ID:
        raise NotAHint("no id")
    match _json(_body(outer)):
        case [[argument], *_]:
            return Hint(argument, identity)
    raise NotAHint("not one argument")


_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def _body(outer: dict[str, Any]) -> bytes:
    body = outer.get("body")
    if not isinstance(body, str):
        raise NotAHint("no body")
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:
        raise NotAHint("its body is not base64") from error


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise NotAHint(f"not JSON: {error}") from error
