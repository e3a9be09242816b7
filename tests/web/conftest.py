"""Jobs in every state behind a real server, and a real browser to look at them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from jobs.api.server import ApiServer
from jobs.client import Client
from jobs.schedules import making
from jobs.schemas import ScheduleSpec
from jobs.store import Store
from tests.api.conftest import Serve, make_shift, residency, serve, work
from tests.rows import claim, done, loading_job, part, queued_job

__all__ = ["make_shift", "residency", "serve", "work"]

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
)
"""As root it has no sandbox; and it is to look for nothing outside."""
LONG = " ".join(["word"] * 600)
REVIEWS = [
    "What a fine day",
    "I hate rain",
    "Ada Lovelace met Grace in Paris",
    "<script>alert(1)</script> & more",
    "日本語のテキスト",
]
INPUTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "classify": ([*REVIEWS, LONG, LONG], {"long_text": "error"}),
    "zero_shot": (REVIEWS, {"labels": ["weather", "people", "code"]}),
    "ner": (REVIEWS, {}),
    "translate": (REVIEWS, {"source": "en", "target": "de"}),
    "summarize": ([LONG, *REVIEWS], {}),
    "generate": (REVIEWS, {"n": 2, "temperature": 1.0}),
    "qa": ([{"question": "Who met Grace?", "context": "Ada Lovelace met Grace in Paris."}], {}),
    "fill_mask": (["The [MASK] is blue."], {}),
    "embed": (REVIEWS, {}),
    "rerank": ([{"query": "rain", "documents": ["It rains.", "The sun shines.", "A book."]}], {}),
    "detect_language": (REVIEWS, {}),
}
"""For every task: items, and params."""


class World(NamedTuple):
    """A deployment with something of everything."""

    server: ApiServer
    store: Store
    client: Client
    jobs: dict[str, str]
    """Ids of jobs by task, and by state."""

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture
def world(serve: Serve, store: Store, work: Callable[[], None], settings: Callable[..., Any]) -> World:
    """Completed jobs of every task, and a job in every state."""
    server = serve()
    client = Client(settings(redis_url="redis://127.0.0.1:1/0"), store=store)
    made = {
        task: client.submit(task, items, model="fake", params=params, labels={"team": "news"}).id
        for task, (items, params) in INPUTS.items()
    }
    work()
    made["retried"] = client.retry(made["classify"]).id
    client.cancel(made["retried"])
    made["running"] = queued_job(store, 40).id
    first, second, third = claim(store, chunks=3)
    store.chunks.save([done(first), part(second, [second.seq_lo]), part(third, [])])
    made["failed"] = queued_job(store, task="summarize", model="gone").id
    store.jobs.fail(made["failed"], "model 'gone': its folder is missing")
    made["cancelled"] = queued_job(store, labels={"team": "sport"}).id
    store.jobs.cancel(made["cancelled"])
    made["paused"] = queued_job(store).id
    store.jobs.pause(made["paused"])
    made["queued"] = queued_job(store, 1000, per_chunk=100).id
    made["loading"] = loading_job(store).id
    store.workers.beat(
        "w1",
        host="host",
        pid=1,
        boot_id="b",
        device="cpu",
        models=["fake"],
        state="busy",
        queues=["default"],
        load={"busy": 0.91, "padding": 0.07, "tokens_per_s": 12345.0, "batch_tokens": 3412.0},
    )
    return World(server, store, client, made)


@pytest.fixture
def schedule(world: World, tmp_path: Path) -> str:
    """The id of a schedule of the world."""
    source = tmp_path / "texts.txt"
    source.write_text("one\ntwo\n")
    spec = ScheduleSpec(
        task="classify", model="fake", inputs=(str(source),), cron="0 7 * * mon-fri", timezone="Europe/Berlin"
    )
    return making.add(world.store, world.client, "morning news", spec).id


@pytest.fixture
def pages(world: World) -> Iterator[httpx2.Client]:
    """Asks for pages as a browser does, without scripts."""
    headers = {"Origin": world.url, "Accept": "text/html"}
    with httpx2.Client(base_url=world.url, headers=headers, timeout=30, trust_env=False, follow_redirects=True) as made:
        yield made


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or whichever there is."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert path is not None, (
        f"the tests of the dashboard need a browser, one of {', '.join(CHROMIUM)}: apt install chromium"
    )
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser, world: World) -> Iterator[BrowserContext]:
    """A browser window's worth of cookies; whatever is asked of another host fails the test."""
    asked: list[str] = []
    made = browser.new_context(base_url=world.url, viewport={"width": 1280, "height": 900})
    made.on("request", lambda request: asked.append(request.url))
    yield made
    made.close()
    assert [url for url in asked if not url.startswith((world.url, "data:"))] == []


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Page]:
    """A tab; an error in a script, or one that the browser reports, fails the test."""
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    yield page
    assert wrong == []
