"""Pictures of the Degradation page for docs/images: `python -m tests.screenshots`.

Starts an app with a worker, breaks what it calls, and looks at the page in Chromium.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from resilience.testing.stack import run_worker
from resilience.testing.valkey import ValkeyProcess
from resilience.testing.waiting import wait_until
from tests.browser import Tab, running_browser
from tests.integration.page_stage import APP_PATH, SECONDS, Stage, running_flower, running_stage

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WELL_SECONDS = 40.0
"""How long all is well before something breaks: the chart shows it."""
SHOTS = {
    "degradation-light": {"width": 1280, "height": 1500, "dark": False},
    "degradation-dark": {"width": 1280, "height": 1500, "dark": True},
    "degradation-phone": {"width": 390, "height": 1200, "dark": False},
}


def main() -> None:
    """Write the pictures."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        valkey = ValkeyProcess(directory / "valkey")
        valkey.start()
        stack.callback(valkey.stop)
        stage = stack.enter_context(running_stage(valkey.url, valkey, directory))
        stack.enter_context(run_worker(APP_PATH, queues=stage.shop.QUEUES, env=stage.env))
        url = stack.enter_context(running_flower(APP_PATH, stage.env, directory))
        Event().wait(WELL_SECONDS)
        break_it(stage)
        browser = stack.enter_context(running_browser(directory))
        for name, how in SHOTS.items():
            shoot(browser, f"{url}/degradation", IMAGES / f"{name}.png", how)


def break_it(stage: Stage) -> None:
    """Let a circuit open, jobs be given up, and somebody give orders."""
    stage.valkey.client().set(stage.shop.BROKEN, "yes")
    for _ in range(4):
        stage.shop.rank.delay().get(timeout=SECONDS)
    wait_until(lambda: stage.adopted.breaker("ranking").state == "open", SECONDS, "it is open")
    stage.bury(112, cause="the mail server refused: 451 greylisted")
    stage.bury(3, cause="no template called 'order-v2'")
    by = {"actor": "ann", "reason": "#471 the mail server greylists us"}
    stage.adopted.holds.hold("mail", seconds=1800, **by)  # type: ignore[arg-type]
    stage.ledger.letters.note("hold", "mail", **by)
    stage.adopted.flags.order("search.spelling", "off", **by)  # type: ignore[arg-type]
    with stage.shop.app.connection() as connection:
        dispatcher = stage.shop.app.events.Dispatcher(connection, hostname="ranking@host")
        for number in range(3):
            dispatcher.send(
                "task-degraded",
                uuid=f"3f2c7a5e-0000-4000-8000-00000000000{number}",
                name="shop.rank",
                level=3,
                reason="CircuitOpenError",
                source="static",
                dependency="ranking",
            )


def shoot(browser: Tab, url: str, path: Path, how: dict[str, int]) -> None:
    """Show the page like that, and write what is seen."""
    browser.show_as(width=how["width"], height=how["height"], dark=bool(how["dark"]))
    browser.open(url)
    browser.wait_for("document.querySelectorAll('#timeline tbody tr').length >= 2")
    browser.wait_for("document.querySelectorAll('#causes tbody tr').length == 2")
    browser.screenshot(path)


if __name__ == "__main__":
    main()
