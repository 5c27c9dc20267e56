"""Makes text of others fit to be shown: without secrets, and without what steers a terminal.

Everything that shows arguments, errors or URLs goes through here: views, log lines, events, errors.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final

HIDDEN: Final = "***"
REDACT: Final = frozenset(
    {"password", "passwd", "pwd", "passphrase", "secret", "token", "authorization", "credential"}
    | {"cookie", "api_key", "access_key", "private_key", "secret_key", "signing_key"}
)
"""Names whose values are hidden, whatever else an app names; see `is_secret`."""
CREDENTIALS: Final = re.compile(r"(://)(?:[^\s/@:]{,99}:[^\s\"'<>]{,999}|[^\s/@]{,999})@")
BEARER: Final = re.compile(r"\bbearer\s+([^\s\"'<>]{8,})")
LINE: Final = re.compile(
    r"(?:authorization|cookie)s?\\*[\"']?\s*[=:]\s*(?:b(?=\\*[\"']))?\\*[\"']?([^\r\n\"']+)"
)
"""Headers whose value has words: it ends with the line."""
VALUE: Final = (
    r"(b?\"(?:\\.|[^\"\\])*\"?|b?'(?:\\.|[^'\\])*'?|\\+([\"'])(?:(?!\\+\2).)*(?:\\+\2)?"
    r"|[\[{(][^\]})]*[\]})]?|[^\s,;&)}\]]+)"
)
SMALL: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
"""Keeps the length of a text, as `lower` does not."""
_own: set[str] = set()


def hide_names(names: Iterable[str]) -> None:
    """Hide values of *names* as well, in all texts of this process from now on."""
    _own.update(set(names) - REDACT)


def is_secret(name: object, names: Collection[str] = REDACT) -> bool:
    """Tell whether *name* is one of *names*, or ends like one.

    In any case, with or without `-`, `_` and the plural's s: `api_key` stands for `X-Api-Key` and
    `apiKeys`, `token` for `access_token`.
    """
    return isinstance(name, str) and bool(_patterns(frozenset(names))[0].search(name.lower()))


@lru_cache(maxsize=64)
def _patterns(names: frozenset[str]) -> tuple[re.Pattern[str], ...]:
    """Return what finds, in small letters, a secret name and the values after one."""
    words = [re.split(r"[-_. ]+", name.lower()) for name in sorted(names) if name]
    name = "|".join("[-_. ]?".join(map(re.escape, parts)) for parts in words) or "(?!)"
    name = f"(?:{name})s?"
    before = r"(?:(?:\\*[\"']|%22|%27)\]?\s*(?:=>|[=:,]|%3[ad])|\s*(?:=>|[=:]|%3[ad]))\s*"
    return (
        re.compile(f"{name}$"),
        re.compile(rf"[?&][^=&?\s]{{,60}}{name}=([^\s&#'\"<>]*)"),
        re.compile(rf"{name}{before}{VALUE}", re.DOTALL),
    )


def hide_in_text(text: str, names: Collection[str] = REDACT) -> str:
    """Return *text* without passwords in URLs, and without values that a secret name stands before.

    A name stands before its value as in `name=value`, `name: value`, `"name": "value"`, in JSON
    within JSON, in a URL's query and in what was URL-encoded. Hide before you cut.
    """
    if not _may_hide_something(text):
        return text
    if "://" in text:
        text = CREDENTIALS.sub(rf"\1{HIDDEN}@", text)
    _, query, anywhere = _patterns(frozenset(names).union(_own) if _own else frozenset(names))
    for pattern in (BEARER, LINE, query, anywhere):
        text = _hide_values(text, pattern)
    return text


def _may_hide_something(text: str) -> bool:
    """Tell whether *text* has a sign without which no secret is in it, faster than `re` can."""
    return "=" in text or ":" in text or "," in text or "%" in text or "earer" in text.lower()


def _hide_values(text: str, pattern: re.Pattern[str]) -> str:
    """Return *text* with HIDDEN in the place of the first group of each match in small letters."""
    made, end = [], 0
    for found in pattern.finditer(text.translate(SMALL)):
        made += [text[end : found.start(1)], HIDDEN]
        end = found.end(1)
    return "".join([*made, text[end:]]) if made else text


def hide(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return *value* with all texts in it as `hide_in_text` has them, and secret names' hidden."""
    if isinstance(value, str):
        return hide_in_text(value)
    if isinstance(value, Mapping):
        names = REDACT | _own
        return {
            name: HIDDEN if item and is_secret(name, names) else hide(item)
            for name, item in value.items()
        }
    return [hide(item) for item in value] if isinstance(value, list | tuple) else value


def printable(text: object) -> str:
    """Return *text* with every character escaped that steers a terminal or cannot be printed."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in shown.expandtabs()
    )


def shown(text: object) -> str:
    """Return *text* as anybody may see it: printable, and without secrets."""
    return printable(hide_in_text(str(text)))


class _Shown(logging.Filter):
    """Lets log lines show no secrets, steer no terminal and pretend to be no other line."""

    _form = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Write the message and the traceback anew; the line of an event is made of such text."""
        if not hasattr(record, "event"):
            record.msg, record.args = shown(record.getMessage()).replace("\n", "\\n"), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = shown(self._form.formatException(record.exc_info))
        return True


_shown: Final = _Shown()


def get_logger(name: str) -> logging.Logger:
    """Return the logger *name*, whose lines anybody may see."""
    logger = logging.getLogger(name)
    logger.addFilter(_shown)
    return logger
