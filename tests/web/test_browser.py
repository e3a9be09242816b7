"""The dashboard in a real browser: it lives, it is steered by keys, everybody can read it, on any screen."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from jobs.states import Control
from tests.web.conftest import INPUTS, World

SHOTS = os.environ.get("TEXTMILL_TEST_SCREENSHOTS")
"""A folder for pictures of every page."""
AA = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}


@pytest.fixture(params=["sqlite"])
def store_url(request: pytest.FixtureRequest) -> str:
    """What a browser sees does not depend on the database; `test_pages` asks both."""
    url: str = request.getfixturevalue("sqlite_url")
    return url


def _paths(world: World, schedule: str) -> dict[str, str]:
    states = ("running", "queued", "paused", "failed", "cancelled", "loading")
    return {
        "overview": "/",
        "jobs": "/jobs",
        "jobs-filtered": "/jobs?q=task:ner+state:completed",
        "new": "/jobs/new?task=translate",
        "schedules": "/schedules",
        "schedule": f"/schedules/{schedule}",
        "models": "/models",
        "workers": "/workers",
        "keys": "/keys",
        "health": "/health",
        "login": "/login",
        "not-found": "/jobs/nothing",
        **{f"job-{state}": f"/jobs/{world.jobs[state]}" for state in states},
        "job-completed": f"/jobs/{world.jobs['classify']}",
        **{f"results-{task}": f"/jobs/{world.jobs[task]}/results" for task in INPUTS},
        "nearest": f"/jobs/{world.jobs['embed']}/nearest",
        "evaluation": f"/jobs/{world.jobs['classify']}/evaluation",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_can_be_read_by_everybody(
    browser: Browser, world: World, schedule: str, scheme: str, width: int
) -> None:
    """WCAG AA by axe-core; nothing wider than the screen; nothing asked of other hosts; no error in a script."""
    context = browser.new_context(
        base_url=world.url,
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    tab, asked, wrong = context.new_page(), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))

    for name, path in _paths(world, schedule).items():
        tab.goto(path)
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            tab.screenshot(path=f"{SHOTS}/{name}-{scheme}-{width}.png", full_page=True)
        found = Axe().run(tab, options=AA).response["violations"]
        told = [(each["id"], [node["html"][:200] for node in each["nodes"]][:3]) for each in found]
        assert told == [], (name, told)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, name

    context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith((world.url, "data:"))] == []


def test_long_names_and_many_labels_hide_nothing(tab: Page, world: World, work: Callable[[], None]) -> None:
    labels = {f"name-{number}": "value " * 20 for number in range(16)}
    items = [{"custom_id": "x" * 500, "text": "one"}]
    job = world.client.submit("classify", items, model="fake", labels=labels).id
    work()

    tab.goto("/jobs")
    inside = "(element) => element.getBoundingClientRect().right <= innerWidth"
    assert tab.get_by_role("link", name="created").evaluate(inside)
    expect(tab.get_by_text("and 12 more")).to_be_visible()
    assert tab.locator(".label").first.get_attribute("title") == "name-0=" + "value " * 20

    tab.goto(f"/jobs/{job}")
    expect(tab.locator("#head .label")).to_have_count(16)
    tab.goto(f"/jobs/{job}/results")
    assert tab.locator(".result h2 bdi").evaluate(inside)


def test_a_page_follows_its_job(tab: Page, world: World, work: Callable[[], None]) -> None:
    tab.goto(f"/jobs/{world.jobs['queued']}")
    expect(tab.locator("#head .state")).to_have_text("queued")

    world.store.jobs.pause(world.jobs["queued"])
    expect(tab.locator("#head .state")).to_have_text("paused")

    world.store.jobs.resume(world.jobs["queued"])
    work()
    expect(tab.locator("#head .state")).to_have_text("completed", timeout=15_000)
    expect(tab.get_by_role("button", name="Delete")).to_be_visible()


def test_what_was_opened_and_ticked_stays_so_when_the_page_moves(tab: Page, world: World) -> None:
    tab.goto("/jobs")
    box = tab.locator(f'input[value="{world.jobs["embed"]}"]')
    box.check()

    world.client.submit("classify", ["new"], model="fake")

    expect(tab.locator(".jobs tbody tr")).to_have_count(len(world.jobs) + 1)
    expect(box).to_be_checked()


def test_where_events_do_not_come_through_the_page_asks(tab: Page, world: World) -> None:
    tab.add_init_script("delete window.EventSource")
    tab.goto(f"/jobs/{world.jobs['queued']}")

    world.store.jobs.pause(world.jobs["queued"])

    expect(tab.locator("#head .state")).to_have_text("paused", timeout=15_000)


def _until(tab: Page, true: str) -> None:
    """`wait_for_function` evaluates text in the page, which its policy forbids."""
    until = time.monotonic() + 10
    while not tab.evaluate(true):
        assert time.monotonic() < until, true
        tab.wait_for_timeout(50)


def test_a_page_that_nobody_sees_rests(tab: Page, world: World) -> None:
    tab.add_init_script(
        "window.made = 0; const Real = EventSource;"
        "window.EventSource = class extends Real {"
        " constructor(url) { super(url); window.made += 1; window.last = this; } };"
    )
    tab.goto("/")
    _until(tab, "() => window.last !== undefined && window.last.readyState === 1")

    hide = "(hidden) => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    tab.evaluate(hide, True)
    assert tab.evaluate("window.last.readyState") == 2

    tab.evaluate(hide, False)
    _until(tab, "() => window.made === 2 && window.last.readyState === 1")


def test_keys_lead_everywhere(tab: Page, world: World) -> None:
    tab.goto("/")

    tab.keyboard.press("g")
    tab.keyboard.press("j")
    tab.wait_for_url("**/jobs")
    tab.keyboard.press("/")
    tab.keyboard.type("task:embed")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/jobs?q=task%3Aembed")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/jobs/{world.jobs['embed']}")
    tab.keyboard.press("?")
    expect(tab.get_by_role("dialog")).to_be_visible()
    tab.keyboard.press("Escape")
    tab.keyboard.press("n")
    tab.wait_for_url("**/jobs/new")


def test_several_jobs_are_cancelled_by_hand(tab: Page, world: World) -> None:
    tab.goto("/jobs?q=state:queued")
    tab.get_by_label("Select all on this page").check()
    tab.get_by_role("button", name="Cancel").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Cancel 1 job?")

    tab.get_by_role("button", name="Cancel 1 job").click()

    tab.wait_for_url("**/jobs?q=state%3Aqueued")
    assert world.store.jobs.get(world.jobs["queued"]).control is Control.CANCEL


def test_a_command_is_copied(tab: Page, world: World) -> None:
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto(f"/jobs/{world.jobs['zero_shot']}")

    tab.get_by_role("button", name="Copy").first.click()

    expect(tab.get_by_role("button", name="Copied")).to_be_visible()
    assert tab.evaluate("navigator.clipboard.readText()").startswith(
        "textmill submit zero_shot items.jsonl --model fake"
    )


def test_another_task_brings_its_own_params(tab: Page, world: World) -> None:
    tab.goto("/jobs/new")
    tab.get_by_label("Pasted").fill("one text")

    tab.get_by_label("Task", exact=True).select_option("zero_shot")

    expect(tab.locator('[name="p_labels"]')).to_be_visible()
    expect(tab.get_by_label("Pasted")).to_have_value("one text")


def test_every_action_works_without_scripts(browser: Browser, world: World) -> None:
    context = browser.new_context(base_url=world.url, java_script_enabled=False)
    tab = context.new_page()

    tab.goto(f"/jobs/{world.jobs['queued']}")
    tab.get_by_role("button", name="Pause").click()
    expect(tab.locator("#head .state")).to_have_text("paused")
    tab.get_by_role("button", name="Cancel").click()
    tab.get_by_role("button", name="Cancel 1 job").click()
    tab.goto("/jobs/new")
    tab.get_by_label("Task", exact=True).select_option("detect_language")
    tab.get_by_role("button", name="Show its params").click()
    tab.get_by_label("Pasted").fill("Guten Tag")
    tab.get_by_label("Model", exact=True).select_option("fake")
    tab.get_by_role("button", name="Submit").click()

    expect(tab.locator("#head h1")).to_contain_text("detect_language")
    context.close()
    assert world.store.jobs.get(world.jobs["queued"]).control is Control.CANCEL


def test_a_first_visit_is_light(context: object, tab: Page, world: World) -> None:
    sizes: list[int] = []
    tab.on(
        "response",
        lambda response: sizes.append(len(response.body()) if response.request.resource_type != "eventsource" else 0),
    )

    tab.goto("/")
    tab.wait_for_load_state("load")

    assert sum(sizes) < 150_000
