"""Webhooks from end to end: events are written with what they tell of, sent until they are taken, and signed."""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from openai import OpenAI
from sqlalchemy import select, update
from standardwebhooks import Webhook as Verifier

from jobs.client import Client
from jobs.errors import InvalidParams, UnknownWebhook
from jobs.queue import Queue
from jobs.settings import Settings
from jobs.states import DeliveryState
from jobs.store import Store, outbox, rows
from jobs.store.clock import later
from jobs.store.tables import deliveries, webhooks
from jobs.store.webhooks import Webhooks
from jobs.upkeep import Upkeep
from jobs.webhooks import courier
from jobs.webhooks.courier import AGAIN_S, Courier
from jobs.webhooks.guard import Guard
from jobs.webhooks.post import Answer, Post
from tests.rows import claim, done
from tests.rows import rows as rows_of
from tests.webhooks.conftest import Receiver

Receive = Callable[..., Receiver]
LOCAL = ("127.0.0.0/8",)


@pytest.fixture
def hooks(store: Store) -> Webhooks:
    return store.webhooks


@pytest.fixture
def client(store: Store, settings: Callable[..., Settings]) -> Client:
    made = settings(redis_url="redis://127.0.0.1:1/0")
    return Client(made, store=store, queue=Queue(made))


def end(client: Client, how: str = "cancel", **wanted: Any) -> str:
    """A job that has ended."""
    job = client.submit("classify", ["a", "b"], model="fake", params={"labels": ["x", "y"]}, **wanted)
    job.cancel() if how == "cancel" else client._store.jobs.fail(job.id, how)
    return job.id


def send(store: Store, *, rounds: int = 1, post: Post | None = None) -> None:
    """Rounds of a courier, each to its end."""
    sender = Courier(store, post or Post(Guard(LOCAL)))
    for _ in range(rounds):
        sender.round()
        while sender._busy:
            time.sleep(0.005)


def hurry(store: Store) -> None:
    """Whatever waits for a time is due now."""
    store._db.write(
        lambda connection: [
            connection.execute(update(deliveries).where(deliveries.c.due_at.is_not(None)).values(due_at=later(-1))),
            connection.execute(update(webhooks).values(not_before=None)),
        ]
    )


def test_a_job_that_ends_is_told_signed_and_once(
    store: Store, client: Client, hooks: Webhooks, receive: Receive
) -> None:
    receiver = receive()
    hook, secret = hooks.create("default", receiver.url)
    job_id = end(client, labels={"app": "search"})
    send(store, rounds=2)
    (heard,) = receiver.heard
    told = Verifier(secret).verify(heard.body, heard.headers)
    assert told["type"] == "job.cancelled"
    assert told["data"] == {
        "id": job_id,
        "state": "cancelled",
        "task": "classify",
        "model": "fake",
        "labels": {"app": "search"},
    }
    (sent,) = hooks.deliveries(hook.id)
    assert (sent.state, sent.attempts, sent.status, sent.id) == ("delivered", 1, 204, heard.headers["webhook-id"])
    with pytest.raises(Exception, match="signature"):
        Verifier("whsec_" + "A" * 43 + "=").verify(heard.body, heard.headers)


def test_a_completed_job_is_told_by_upkeep_itself(
    store: Store, client: Client, hooks: Webhooks, receive: Receive, settings: Callable[..., Settings]
) -> None:
    receiver = receive()
    hooks.create("default", receiver.url, ["job.completed"])
    job = client.submit("classify", ["a"], model="fake", params={"labels": ["x", "y"]})
    store.chunks.save([done(held) for held in claim(store)])
    made = settings(redis_url="redis://127.0.0.1:1/0", webhook_networks=LOCAL)
    upkeep = Upkeep(store, Queue(made), made, "tester")
    until = time.monotonic() + 20
    while not receiver.heard and time.monotonic() < until:
        upkeep.round()
        time.sleep(0.02)
    upkeep.stop()
    told = orjson.loads(receiver.heard[0].body)
    assert (told["type"], told["data"]["id"]) == ("job.completed", job.id)


def test_webhooks_hear_what_they_listen_to_and_jobs_that_name_them(
    store: Store, client: Client, hooks: Webhooks, receive: Receive
) -> None:
    url = receive().url
    failures, _ = hooks.create("default", url, ["job.failed"])
    named, _ = hooks.create("default", url, [])
    stranger, _ = hooks.create("other", url)
    off, _ = hooks.create("default", url)
    hooks.disable(off.id, "by hand")
    end(client)
    failed = end(client, "it broke")
    asked = end(client, webhook=named.id)
    heard = {
        hook.id: [(each.event, each.subject) for each in hooks.deliveries(hook.id)]
        for hook in (failures, named, stranger, off)
    }
    assert heard == {
        failures.id: [("job.failed", failed)],
        named.id: [("job.cancelled", asked)],
        stranger.id: [],
        off.id: [],
    }
    with pytest.raises(InvalidParams, match=f"webhook '{stranger.id}' is none of tenant 'default'"):
        end(client, webhook=stranger.id)


def test_a_tenants_webhooks_have_an_end(hooks: Webhooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.store.webhooks.MOST_OF_A_TENANT", 2)
    first, _ = hooks.create("default", "https://example.com/")
    hooks.create("default", "https://example.com/")
    with pytest.raises(InvalidParams, match="tenant 'default' has 2 webhooks"):
        hooks.create("default", "https://example.com/")
    hooks.create("other", "https://example.com/")
    hooks.delete(first.id)
    hooks.create("default", "https://example.com/")


def test_what_is_not_taken_is_sent_again_later_and_later_until_it_is(
    store: Store, client: Client, hooks: Webhooks, receive: Receive
) -> None:
    receiver = receive(500, 302, 404)
    hook, secret = hooks.create("default", receiver.url)
    end(client)
    waits = []
    for _ in range(3):
        send(store)
        (sent,) = hooks.deliveries(hook.id)
        assert sent.due_at is not None
        waits.append((sent.due_at - datetime.now(UTC)).total_seconds())
        send(store)  # nothing is due yet
        hurry(store)
    assert [round(wait / each) for wait, each in zip(waits, AGAIN_S, strict=False)] == [1, 1, 1]
    assert hooks.get(hook.id).failures == 3
    send(store)
    (sent,) = hooks.deliveries(hook.id)
    assert (sent.state, sent.attempts, sent.status, sent.error) == ("delivered", 4, 204, None)
    assert hooks.get(hook.id).failures == 0
    assert len({heard.headers["webhook-id"] for heard in receiver.heard}) == 1
    assert len({heard.body for heard in receiver.heard}) == 1
    for heard in receiver.heard:
        Verifier(secret).verify(heard.body, heard.headers)


def test_it_is_given_up_after_the_last_try_and_sent_again_by_hand(
    store: Store, client: Client, hooks: Webhooks, receive: Receive
) -> None:
    receiver = receive(*[503] * (len(AGAIN_S) + 1))
    hook, _ = hooks.create("default", receiver.url)
    end(client)
    for _ in range(len(AGAIN_S) + 3):
        send(store)
        hurry(store)
    (sent,) = hooks.deliveries(hook.id)
    assert (sent.state, sent.attempts, sent.error) == ("failed", len(AGAIN_S) + 1, "answered 503")
    assert len(receiver.heard) == len(AGAIN_S) + 1
    assert hooks.redeliver(hook.id, sent.id).state == "pending"
    send(store)
    assert hooks.deliveries(hook.id)[0].state == "delivered"
    assert hooks.redeliver(hook.id, sent.id).state == "pending"  # one that was taken, too
    send(store)
    assert len(receiver.heard) == len(AGAIN_S) + 3


def test_a_server_says_when_it_wants_to_be_asked_again(
    store: Store, client: Client, hooks: Webhooks, receive: Receive
) -> None:
    hook, _ = hooks.create("default", receive(429, headers={"Retry-After": "900"}).url)
    end(client)
    send(store)
    due_at = hooks.deliveries(hook.id)[0].due_at
    assert due_at is not None
    assert 850 < (due_at - datetime.now(UTC)).total_seconds() < 950


def test_a_webhook_that_is_gone_is_disabled_and_what_waits_is_kept(
    store: Store, client: Client, hooks: Webhooks, receive: Receive
) -> None:
    receiver = receive(410)
    hook, _ = hooks.create("default", receiver.url)
    end(client)
    end(client)
    send(store, rounds=2)
    hurry(store)
    send(store)
    assert len(receiver.heard) == 1
    assert hooks.get(hook.id).disabled_because == "its server answered 410 Gone"
    end(client)  # nobody is told of this one
    hooks.enable(hook.id)
    hurry(store)
    send(store)
    assert len(receiver.heard) == 3
    assert {each.state for each in hooks.deliveries(hook.id)} == {DeliveryState.DELIVERED}


def test_a_sender_that_died_in_the_middle_loses_nothing(
    store: Store, client: Client, hooks: Webhooks, receive: Receive
) -> None:
    receiver = receive()
    hook, _ = hooks.create("default", receiver.url)
    end(client)
    died = hooks.take(hook.id, 60)
    assert died is not None
    send(store)
    assert receiver.heard == []
    hurry(store)
    send(store)
    assert len(receiver.heard) == 1
    hooks.failed(hook.id, died, "late", status=None, again_s=1, rest_s=0)  # it was not dead after all
    assert hooks.deliveries(hook.id)[0].state == "delivered"


def test_one_that_hangs_keeps_no_other_waiting(store: Store, client: Client, hooks: Webhooks, receive: Receive) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hooks.create("default", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        receiver = receive()
        hooks.create("default", receiver.url)
        for _ in range(20):
            end(client)
        sender = Courier(store, Post(Guard(LOCAL), answer_s=30))
        sender.round()
        until = time.monotonic() + 20
        while len(receiver.heard) < 20 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(receiver.heard) == 20
        sender.stop(0)


def test_webhooks_that_wait_take_turns(
    store: Store, client: Client, hooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "AT_ONCE", 1)
    monkeypatch.setattr(courier, "TURN_S", 0.01)
    heard: list[str] = []

    class Slow(Post):
        def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
            heard.append(url)
            time.sleep(0.02)
            return Answer(204, None)

    urls = [f"https://{name}.example.com/" for name in "abc"]
    for url in urls:
        hooks.create("default", url)
    end(client)
    end(client)
    send(store, rounds=6, post=Slow(Guard()))
    assert sorted(heard[:3]) == sorted(heard[3:]) == urls


def test_what_may_not_be_reached_is_a_failed_try(store: Store, client: Client, hooks: Webhooks) -> None:
    hook, _ = hooks.create("default", "https://127.0.0.1:1/")
    end(client)
    send(store, post=Post(Guard()))
    error = hooks.deliveries(hook.id)[0].error
    assert error == "127.0.0.1 is not a public address; the setting webhook_networks lists others that may be"


def test_why_it_was_not_taken_is_kept_whatever_the_text(store: Store, client: Client, hooks: Webhooks) -> None:
    hook, _ = hooks.create("default", "https://example.com/")
    end(client)
    due = hooks.take(hook.id, 60)
    assert due is not None
    hooks.failed(hook.id, due, "odd: \0\ud800", status=None, again_s=5, rest_s=0)
    assert hooks.deliveries(hook.id)[0].error == "odd: \ufffd?"
    assert hooks.get(hook.id).failures == 1


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_a_try_that_ends_waits_for_its_webhook_before_it_holds_the_delivery(
    store: Store, client: Client, hooks: Webhooks
) -> None:
    hook, _ = hooks.create("default", "https://example.com/")
    end(client)
    due = hooks.take(hook.id, 60)
    assert due is not None

    def failed() -> None:
        hooks.failed(hook.id, due, "late", status=None, again_s=5, rest_s=0)

    trying = threading.Thread(target=failed)
    with store._db.engine.begin() as connection:
        connection.execute(update(webhooks).values(not_before=None))
        trying.start()
        while not rows_of(store, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'transactionid'"):
            time.sleep(0.01)
        connection.execute(select(deliveries).with_for_update(nowait=True))  # as `delete` and `redeliver` go on
    trying.join()
    assert hooks.deliveries(hook.id)[0].error == "late"


def test_a_transaction_that_is_repeated_tells_nothing_twice(store: Store, client: Client, hooks: Webhooks) -> None:
    hook, _ = hooks.create("default", "https://example.com/")
    job_id = end(client)
    store._db.write(
        lambda connection: outbox.job_ended(store._db, connection, rows.locked(connection, job_id), "cancelled")
    )
    assert len(hooks.deliveries(hook.id)) == 1


def test_a_deleted_webhook_takes_what_waits_with_it_and_jobs_still_end(
    store: Store, client: Client, hooks: Webhooks
) -> None:
    hook, _ = hooks.create("default", "https://example.com/")
    end(client)
    hooks.delete(hook.id)
    end(client)
    with pytest.raises(UnknownWebhook):
        hooks.get(hook.id)


def test_old_deliveries_are_forgotten(store: Store, client: Client, hooks: Webhooks) -> None:
    hook, _ = hooks.create("default", "https://example.com/")
    end(client)
    assert hooks.prune(3600) == 0
    assert hooks.prune(-1) == 1
    assert hooks.deliveries(hook.id) == []


def test_the_openai_sdk_unwraps_the_end_of_a_batch(
    store: Store, client: Client, hooks: Webhooks, receive: Receive
) -> None:
    receiver = receive()
    _, secret = hooks.create("default", receiver.url, ["batch.cancelled", "batch.failed"])
    made = [
        store.batches.create(
            "default",
            request_hash=b"1",
            endpoint="/v1/embeddings",
            input_file_id="file-1",
            completion_window="24h",
            window_s=60,
            metadata=None,
        )
        for _ in range(3)
    ]
    job_id = end(client, idempotency_key=made[0].id, labels={"batch": made[0].id})
    store.batches.began(made[0].id, job_id)
    store.batches.fail(made[1].id, [])
    store.batches.cancel(made[2].id)
    send(store)
    sdk = OpenAI(api_key="none", base_url="http://127.0.0.1:1/v1", webhook_secret=secret)
    events = [sdk.webhooks.unwrap(heard.body.decode(), heard.headers) for heard in receiver.heard]
    assert {(event.type, event.data.id) for event in events} == {  # type: ignore[union-attr]
        ("batch.cancelled", made[0].id),
        ("batch.failed", made[1].id),
        ("batch.cancelled", made[2].id),
    }
