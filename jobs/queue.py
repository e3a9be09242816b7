"""Hints: Celery messages over Redis that say "there is work on this queue" and carry no data."""

import base64
import json
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from jobs.errors import QueueUnavailable
from jobs.settings import Settings

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

SHIFT = "textmill.shift"
"""The one Celery task."""
NOWHERE = "redis://127.0.0.1:1/0"
"""Where no Redis answers: a worker without a broker lives by idle claims."""
TIMEOUT_S = 1.0
"""Each of connecting and answering; a submit must not wait longer for a hint that may be lost anyway."""


class Queue:
    """Publishes hints and counts them. Safe to use from several threads; connects when first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._redis: Redis | None = None
        self._url: str | None = None

    def hint(self, queue: str, n: int = 1) -> None:
        """Publish `n` hints. Raises QueueUnavailable within 3 s when Redis does not answer."""
        if n > 0:
            self._call("lpush", self._key(queue), *[message(queue) for _ in range(n)])

    def depth(self, queue: str) -> int:
        """Hints waiting on a queue. Raises QueueUnavailable."""
        return int(self._call("llen", self._key(queue)))

    def top_up(self, queue: str, ready: int, limit: int) -> int:
        """Publish until `min(ready, limit)` hints wait; how many were published. Raises QueueUnavailable."""
        missing = min(ready, limit) - self.depth(queue)
        self.hint(queue, missing)
        return max(0, missing)

    def close(self) -> None:
        """Drop the connection; a later call connects again."""
        with self._lock:
            if self._redis is not None:
                self._redis.close()
            self._redis = None

    def _key(self, queue: str) -> str:
        return self._settings.key_prefix + queue

    def _call(self, command: str, *args: Any) -> Any:
        from redis.exceptions import RedisError

        try:
            return getattr(self._client(), command)(*args)
        except (RedisError, OSError, ValueError) as error:
            self.close()
            raise QueueUnavailable(f"Redis does not answer: {error}") from error

    def _client(self) -> "Redis":
        """The client of the server as it is known now: an embedded one may have moved."""
        url = redis_url(self._settings)
        with self._lock:
            if self._redis is None or self._url != url:
                self._redis, self._url = _connect(url), url
            return self._redis


def redis_url(settings: Settings) -> str:
    """The server in force: the setting, else the home's embedded broker, else `NOWHERE`."""
    return settings.redis_url or _embedded(settings.home) or NOWHERE


def celery_app(settings: Settings) -> "Celery":
    """A Celery app as every part of Textmill must configure it, without tasks."""
    from celery import Celery

    app = Celery("textmill", set_as_current=False)
    app.conf.update(
        broker_url=redis_url(settings),
        broker_transport_options=transport_options(settings),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        result_backend=None,
        task_ignore_result=True,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_acks_late=False,
        task_default_queue=settings.queues[0],
        task_create_missing_queues=True,
        task_send_sent_event=False,
        worker_pool="threads",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_enable_prefetch_count_reduction=False,
        worker_send_task_events=settings.remote_control,
        worker_enable_remote_control=settings.remote_control,
    )
    return app


def transport_options(settings: Settings) -> dict[str, Any]:
    """What keeps a worker from being wedged by a half-open connection, and two deployments apart on one server."""
    return {
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "visibility_timeout": 300,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "global_keyprefix": settings.key_prefix,
    }


def message(queue: str, *, task_id: str | None = None) -> bytes:
    """One hint as Celery's protocol 2 writes it to Redis, for the queue by name through the anonymous exchange."""
    identity = task_id or str(uuid.uuid4())
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body = orjson.dumps([[queue], {}, embed])
    return orjson.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": _headers(queue, identity),
            "properties": {
                "correlation_id": identity,
                "reply_to": "",
                "delivery_mode": 1,
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )


def _headers(queue: str, identity: str) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": SHIFT,
        "id": identity,
        "root_id": identity,
        "parent_id": None,
        "group": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": repr((queue,)),
        "kwargsrepr": "{}",
        "origin": f"{os.getpid()}@{socket.gethostname()}",
        "ignore_result": True,
    }


def _connect(url: str) -> "Redis":
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        socket_keepalive=True,
        health_check_interval=10,
        retry=Retry(NoBackoff(), 0),
    )


def _embedded(home: Path) -> str | None:
    """The URL that `jobs.local.broker` left for the home; a restarted broker keeps it."""
    try:
        url = json.loads((home / "broker.json").read_text("utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) else None
