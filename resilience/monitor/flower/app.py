"""Flower with a page more."""

from pathlib import Path
from typing import Any

from flower.app import Flower, rewrite_handler  # type: ignore[import-untyped]
from tornado.ioloop import PeriodicCallback
from tornado.template import Loader, Template

from resilience.monitor.flower.handlers import ROUTES
from resilience.monitor.flower.letters import LetterActions
from resilience.monitor.flower.state import LEVEL_SECONDS
from resilience.monitor.flower.view import View
from resilience.monitor.status import app_command
from resilience.tasks.resilience import Resilience

TEMPLATES = Path(__file__).parent / "templates"
COLUMNS = "name,uuid,state,received,runtime,worker"
"""What Flower shows of tasks unless somebody said something else."""
NAVBAR, LIST_END = "navbar.html", "</ul>"


class PageLoader(Loader):
    """Finds our templates before Flower's, and adds a link to Flower's navigation."""

    def _create_template(self, name: str) -> Template:
        path = TEMPLATES / name
        text = (path if path.is_file() else Path(self.root) / name).read_text()
        if name == NAVBAR:
            link = (TEMPLATES / "link.html").read_text()
            text = text.replace(LIST_END, link + LIST_END, 1)
        return Template(text, name=name, loader=self)


class DegradationFlower(Flower):  # type: ignore[misc] # Flower has no types
    """Flower with the page `/degradation`.

    Attributes:
        adopted: What the app declared.
        view: What the page shows.
        letters: What is done to dead letters, and their replays.
    """

    def __init__(self, options: Any = None, capp: Any = None, **settings: Any) -> None:  # noqa: ANN401 - Flower's
        """Prepare, as Flower does.

        Raises:
            ConfigurationError: The app was never adopted.
        """
        self.adopted = Resilience.of(capp)
        settings["template_loader"] = PageLoader(settings["template_path"])
        super().__init__(options=options, capp=capp, **settings)
        prefix = self.options.url_prefix
        self.add_handlers(".*", [rewrite_handler(one, prefix) if prefix else one for one in ROUTES])
        if self.options.tasks_columns == COLUMNS:
            self.options.tasks_columns += ",degradation"
        self.view = View(self, self.adopted, app_command(capp))
        self.letters = LetterActions(self.adopted.ledger.letters)
        self._noting = PeriodicCallback(self._note, LEVEL_SECONDS * 1000)

    def start(self) -> None:
        """Start, as Flower does."""
        self._noting.start()
        super().start()

    async def _note(self) -> None:
        """Keep the level, and ask workers that Flower has just met what they consume."""
        for name, worker in list(self.events.state.workers.items()):
            if worker.alive and "active_queues" not in self.workers.get(name, {}):
                self.update_workers(name)
        await self.view.note_level()
