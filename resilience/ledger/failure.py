"""What is kept of an exception."""

import hashlib
import json
import linecache
import re
import sysconfig
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Self

from resilience.errors import text_of

TEXT_LENGTH = 1_000
TRACEBACK_LENGTH = 2_000
FRAMES = 8
CAUSE_LENGTH = 200
FINGERPRINT_LENGTH = 16

# What differs between two texts of one cause: ids, addresses, numbers. An address is looked for
# where a word begins only: from within, a long word would be read once per character.
VARIABLE = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|0x[0-9a-f]+"
    r"|\b(?=[a-f]*\d)[0-9a-f]{8,}\b"
    r"|(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.]+"
    r"|\d+(?:[.,:]\d+)*",
    re.IGNORECASE,
)
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))
US = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is kept of an exception.

    Attributes:
        type: Module and name of its class.
        text: Its text, at most 1,000 characters.
        traceback: The innermost frames, at most 2,000 characters; frames of this library are there
            only if there are no others.
        fingerprint: The same for exceptions that seem to have one cause.
    """

    type: str
    text: str
    traceback: str
    fingerprint: str

    @classmethod
    def of(cls, error: BaseException, *, task: str) -> Self:
        """Return what is kept of *error*, in which a call of *task* ended."""
        kind = type(error)
        name = kind.__qualname__
        if kind.__module__ != "builtins":
            name = f"{kind.__module__}.{name}"
        text = text_of(error)[:TEXT_LENGTH]
        places = list(traceback.walk_tb(error.__traceback__))
        shown = [place for place in places if _root(place[0]) != US] or places
        frames = "".join(map(_line, shown[-FRAMES:]))
        place = _own_place(places, package=task.partition(".")[0])
        return cls(
            type=name,
            text=text,
            traceback=frames[-TRACEBACK_LENGTH:],
            fingerprint=fingerprint(name, text, place),
        )

    def to_line(self, at: float) -> str:
        """Return it as one line of JSON, the newline included; *at*: epoch seconds."""
        fields = {"at": at, "type": self.type, "text": self.text, "traceback": self.traceback}
        return json.dumps(fields) + "\n"


def fingerprint(kind: str, text: str, place: str) -> str:
    """Return a hash of a cause: the class, the text without what varies, the place in the code."""
    cause = " ".join(VARIABLE.sub("#", text).split())[:CAUSE_LENGTH]
    digest = hashlib.sha256(f"{kind}\n{cause}\n{place}".encode(errors="backslashreplace"))
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


def _own_place(places: Sequence[tuple[FrameType, int]], *, package: str) -> str:
    """Return module and function of the innermost frame of the user's code, else of any."""
    if not places:
        return ""
    inward = [frame for frame, _ in reversed(places)]
    frame = next((frame for frame in inward if _is_own(frame, package)), inward[0])
    # No line number: the cause stays the same when something above it is edited.
    return f"{frame.f_globals.get('__name__')}:{frame.f_code.co_qualname}"


def _line(place: tuple[FrameType, int]) -> str:
    """Return a frame as a traceback shows it, without the carets: they cost as much as a commit."""
    frame, number = place
    code = frame.f_code
    source = linecache.getline(code.co_filename, number, frame.f_globals).strip()
    return f'  File "{code.co_filename}", line {number}, in {code.co_qualname}\n    {source}\n'


def _root(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _is_own(frame: FrameType, package: str) -> bool:
    root = _root(frame)
    # An app may be installed where libraries are; its tasks tell its package.
    return root == package or (root != US and not frame.f_code.co_filename.startswith(LIBRARIES))
