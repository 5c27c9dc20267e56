"""The Degradation page in a browser: live, by keyboard, in two colours, on a phone."""

import json
from collections.abc import Iterator

import pytest

from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.browser import Tab, running_browser
from tests.integration.page_stage import (
    APP_PATH,
    SECONDS,
    SECRET,
    Stage,
    running_flower,
    running_stage,
)

pytestmark = pytest.mark.redis_broker("one browser for both brokers is enough")


@pytest.fixture(scope="module")
def stage(valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The app, with a worker."""
    valkey.flush()
    with (
        running_stage(valkey.url, valkey, tmp_path_factory.mktemp("page")) as made,
        run_worker(APP_PATH, queues=made.shop.QUEUES, env=made.env),
    ):
        yield made


@pytest.fixture(scope="module")
def url(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the page of a Flower that takes orders of everybody, behind a prefix.

    It is Flower's own command, with the page in its configuration.
    """
    directory = tmp_path_factory.mktemp("flower")
    config = directory / "flowerconfig.py"
    config.write_text(
        "from resilience.monitor.flower import install\n\ninstall()\nurl_prefix = 'ops'\n"
    )
    command = ("flower", f"--conf={config}")
    with running_flower(APP_PATH, stage.env, directory, command=command) as address:
        yield f"{address}/ops/degradation"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser."""
    with running_browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def page(browser: Tab, url: str, stage: Stage) -> Iterator[Tab]:
    """The page, seen on a desk; afterwards nothing was forbidden and nothing went wrong."""
    stage.ask("DELETE FROM resilience_jobs")
    stage.valkey.client().delete(stage.shop.BROKEN, stage.shop.RAN)
    browser.show_as(width=1280)
    browser.open(url)
    browser.wait_for("document.querySelector('#live').textContent == 'Live'")
    yield browser
    assert browser.run("seen") == {"forbidden": [], "errors": []}


def cell(row: str, column: int) -> str:
    """Return a script with the text of a cell, by the key of its row."""
    key = json.dumps(f'tr[data-key="{row}"]')
    return f"document.querySelector({key})?.cells[{column}].innerText ?? ''"


def give_reason(page: Tab) -> None:
    """Type a reason into the dialog that is open, and send it."""
    page.wait_for("document.activeElement.name == 'reason'")
    page.press("#471 by hand", "Enter")
    page.wait_for(
        "!document.querySelector('dialog').open"
        " || document.querySelector('#order-error').textContent"
    )
    assert page.run("document.querySelector('#order-error').textContent") == ""


def press_button(page: Tab, label: str) -> None:
    """Press a button with the keyboard."""
    page.focus(f'button[aria-label="{label}"]')
    page.press("Enter")


def test_circuit_that_opens_is_seen_within_two_seconds_with_the_reason(
    page: Tab, stage: Stage
) -> None:
    """Without a reload; the error of somebody else is text. Reset by keyboard, it is closed."""
    page.run("window.kept = 1")
    stage.valkey.client().set(stage.shop.BROKEN, "yes")

    def is_open() -> bool:
        # One call after the other: a process reports its next failure with its next call.
        stage.shop.rank.delay().get(timeout=SECONDS)
        return bool(stage.adopted.breaker("ranking").state == "open")

    wait_until(is_open, SECONDS, "it is open")
    page.wait_for(f"({cell('ranking', 1)}) == 'open'", seconds=2)
    assert "calls failed" in page.run(cell("ranking", 4))
    assert "ConnectionError: ranking <script>alert(1)</script> is down" in page.run(
        cell("ranking", 5)
    )
    assert page.run("window.kept") == 1
    page.wait_for("document.querySelector('#level').textContent == 'STATIC'")
    stage.valkey.client().delete(stage.shop.BROKEN)
    press_button(page, "Reset ranking")
    give_reason(page)
    page.wait_for(f"({cell('ranking', 1)}) == 'closed'")
    page.wait_for("document.querySelector('#level').textContent == 'FULL'")


def test_drills_are_shown_with_what_they_found(page: Tab, stage: Stage) -> None:
    """When the last one was, how many would have answered, and why steps did not."""
    store, now = stage.adopted.store, stage.adopted.fleet_time()
    counts = {"STALE": 30, "FAILED": 10}
    why = {"1. stale": "<script>alert(1)</script>"}
    lasts = {
        "STALE": {"at": now, "seconds": 0.25, "source": "stale", "age": 41.0},
        "FAILED": {"at": now - 7200, "seconds": 0.5, "reasons": why},
    }
    for level, count in counts.items():
        name = json.dumps(["drills", "shop.rank", "ranking", level])
        store.run(lambda client: client.hset(store.key("totals"), name, str(count)))  # noqa: B023 - called at once
        text = json.dumps(lasts[level])
        store.run(lambda client: client.hset(store.key("exemplars"), name, text))  # noqa: B023 - as above
    page.wait_for(f"({cell('ranking shop.rank', 2)}).startsWith('75 % of 40; did not 2 h ago')")
    assert page.run(cell("ranking shop.rank", 3)) == "STALE"
    assert page.run(cell("ranking shop.rank", 4)) == "STALE by stale in 0.25 s, 41 s old"

    newest = json.dumps({**lasts["FAILED"], "at": now + 1})
    name = json.dumps(["drills", "shop.rank", "ranking", "FAILED"])
    store.run(lambda client: client.hset(store.key("exemplars"), name, newest))
    page.wait_for(f"({cell('ranking shop.rank', 4)}) == 'none'")
    assert page.run(cell("ranking shop.rank", 5)) == "1. stale: <script>alert(1)</script>"
    for key in ("totals", "exemplars"):
        store.run(lambda client: client.delete(store.key(key)))  # noqa: B023 - as above


def test_everything_can_be_ordered_with_the_keyboard_alone(page: Tab) -> None:
    """Each order asks for a reason; Escape leaves the dialog; the focus stays where it was."""
    press_button(page, "Hold mail")
    page.wait_for("document.querySelector('dialog').open")
    page.press("Escape")
    page.wait_for("!document.querySelector('dialog').open")
    assert page.run("document.activeElement.getAttribute('aria-label')") == "Hold mail"
    page.press("Enter")
    page.press("Enter")  # no reason: the browser says so, and nothing is sent
    page.wait_for("document.activeElement.name == 'reason'")
    give_reason(page)
    page.wait_for(f"({cell('mail', 5)}).includes('#471 by hand')")
    press_button(page, "Release mail")
    give_reason(page)
    page.wait_for(f"({cell('mail', 5)}) == ''")
    for label in ("Off", "Auto"):
        press_button(page, f"{label} search.spelling")
        give_reason(page)
        shown = "off (STALE)" if label == "Off" else "on"
        page.wait_for(f"({cell('search.spelling', 1)}) == '{shown}'")
    for label, state in (("Open", "forced_open"), ("Observe", "observed"), ("Reset", "closed")):
        press_button(page, f"{label} ranking")
        give_reason(page)
        page.wait_for(f"({cell('ranking', 1)}) == '{state}'")


def test_operator_whose_row_is_stale_is_told_so(page: Tab, stage: Stage) -> None:
    """Somebody else was faster while the dialog was open: nothing happens, and it says why."""
    press_button(page, "Hold mail")
    page.wait_for("document.querySelector('dialog').open")
    stage.adopted.holds.hold("mail", seconds=60, actor="bob", reason="first")
    page.press("#471", "Enter")
    page.wait_for("document.querySelector('#order-error').textContent.includes('bob has given')")
    page.press("Escape")
    assert stage.adopted.holds.all()["mail"].actor == "bob"
    stage.adopted.holds.release("mail", actor="bob", reason="over")


@pytest.mark.long
def test_letters_are_replayed_edited_and_discarded_from_the_page(page: Tab, stage: Stage) -> None:
    """All of a cause, with a sample first; one with other arguments; those that are selected."""
    stage.bury(300)
    page.wait_for(f"({cell('shop.deliver refused', 0)}) == '300'")
    press_button(page, "Replay all shop.deliver refused")
    page.wait_for("document.querySelector('#order-what').textContent.includes('sample of 5')")
    give_reason(page)
    page.wait_for("/300 of 300/.test(document.querySelector('#replays').innerText)")
    wait_until(lambda: len(stage.ran()) == 300, SECONDS, "all have run")
    assert set(stage.ran().values()) == {1}

    names = stage.bury(3, cause="again")
    page.wait_for(f"({cell('shop.deliver again', 0)}) == '3'")
    press_button(page, "Show shop.deliver again")
    page.wait_for("document.querySelectorAll('#letters tbody tr').length == 3")
    assert SECRET not in page.run("document.body.innerText")
    press_button(page, f"Edit {names[0]}")
    page.wait_for("document.querySelector('dialog').open")
    page.run("document.querySelector('[name=args]').value = '[\"corrected\"]'")
    give_reason(page)
    wait_until(lambda: f"corrected {SECRET}" in stage.ran(), SECONDS, "it has run")
    for name in names[1:]:
        page.focus(f'input[aria-label="Select {name}"]')
        page.press(" ")
    page.wait_for("/Discard 2 selected/.test(document.querySelector('#letters-tools').innerText)")
    page.run(
        "[...document.querySelectorAll('#letters-tools button')]"
        ".find((button) => /Discard 2/.test(button.textContent)).focus()"
    )
    page.press("Enter")
    give_reason(page)
    page.wait_for("document.querySelector('#said').textContent == '2 discarded'")
    assert stage.ask("SELECT count(*) FROM resilience_jobs WHERE state = 'dead'") == [(0,)]


@pytest.mark.parametrize(
    "dark", [False, pytest.param(True, marks=pytest.mark.long)], ids=["light", "dark"]
)
def test_page_has_no_serious_fault_for_people_who_see_or_hear_it_otherwise(
    page: Tab, stage: Stage, url: str, *, dark: bool
) -> None:
    """axe-core finds none: on a desk as on a phone, which needs no scrolling to the side."""
    stage.bury(2)
    stage.adopted.holds.hold("mail", seconds=60, actor="bob", reason="<b>x")
    page.show_as(width=390 if dark else 1280, dark=dark)
    page.open(url)
    page.wait_for(f"({cell('shop.deliver refused', 0)}).includes('2')")
    press_button(page, "Show shop.deliver refused")
    page.wait_for("document.querySelectorAll('#letters tbody tr').length == 2")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.accessibility() == []
    press_button(page, "Open ranking")
    page.wait_for("document.querySelector('dialog').open")
    assert page.accessibility() == []
    page.press("Escape")
    stage.adopted.holds.release("mail", actor="bob", reason="over")


def test_page_that_nobody_sees_asks_nothing(page: Tab) -> None:
    """Polling stops with the tab hidden, and goes on at once when it is seen again."""
    count = "performance.getEntriesByName(location.href + '/data').length"
    hide = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => %s});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    page.run(hide % "true")
    page.wait_for("/Paused/.test(document.querySelector('#live').textContent)")
    page.run("new Promise((done) => setTimeout(done, 300))")  # one may have been under way
    before = page.run(count)
    page.run("new Promise((done) => setTimeout(done, 1500))")
    assert page.run(count) == before
    page.run(hide % "false")
    page.wait_for(f"{count} > {before}", seconds=5)


def test_empty_parts_say_what_will_appear(page: Tab) -> None:
    """Whoever opens it on a good day learns what it is for."""
    page.wait_for(
        "(shown => shown.length && shown.every((one) =>"
        " /will stand here|will show|heard of/.test(one.innerText)))"
        "([...document.querySelectorAll('.dg-empty')].filter((one) => one.offsetParent))"
    )
