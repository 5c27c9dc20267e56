"""The rights that SECURITY.md recommends, as tests apply them to real servers."""

import re
from pathlib import Path
from typing import Any

from resilience.testing.valkey import ValkeyProcess

PAGE = Path(__file__).parents[1] / "SECURITY.md"


def block(language: str) -> str:
    """Return the code block in *language* of the page."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def acl_rules() -> dict[str, list[str]]:
    """Return the words after `ACL SETUSER <user>`, by user."""
    commands = re.split(r"^ACL SETUSER ", block("acl"), flags=re.MULTILINE)[1:]
    words = [command.split() for command in commands]
    return {name: ["reset", *rules] for name, *rules in words}


def statements(language: str) -> list[str]:
    """Return the SQL statements for a database."""
    return [one.strip() for one in block(language).split(";") if one.strip()]


def restricted(server: ValkeyProcess) -> dict[str, str]:
    """Make the users on *server*; return the variables that name it for each of them."""
    urls = {}
    for user, rules in acl_rules().items():
        server.client().execute_command("ACL", "SETUSER", user, *rules)
        [password] = [rule[1:] for rule in rules if rule.startswith(">")]
        urls[user] = server.url.replace("//", f"//{user}:{password}@")
    return {
        "CELERY_BROKER_URL": urls["shop-broker"],
        "CELERY_RESULT_BACKEND": urls["shop-results"],
        "RESILIENCE_STORE_URL": urls["shop-store"],
    }


def refusals(server: ValkeyProcess) -> list[str]:
    """Return what the server has refused to its users."""
    found: Any = server.client().acl_log(100)
    names = ("username", "reason", "context", "object")
    return [" ".join(f"{name}={one[name]}" for name in names) for one in found]
