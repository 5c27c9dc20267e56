"""Outcomes and partial responses cross Celery as JSON, through kombu's registry of types.

On the wire an outcome is kombu's envelope around what `to_json` returns:
`{"__type__": "resilience.Outcome", "__value__": {"data": …, "_meta": {…}}}`.
An answer in the data has an envelope of its own. A mapping of the user's that has the two keys of
an envelope, such as an upstream's JSON, would be read as one; `escaped` writes it as
`{"__type__": "resilience.Escaped", "__value__": [<its __type__>, <its __value__>]}`.

Other serializers (msgpack, yaml, an app's own) know no such registry. `carry_answers` lets them
write the same envelope.
"""

import json
import marshal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from celery import Celery
from kombu.exceptions import EncodeError, SerializerNotInstalled
from kombu.serialization import dumps as serialize
from kombu.serialization import loads as deserialize
from kombu.serialization import (  # type: ignore[attr-defined] # one is missing in the stubs
    prepare_accept_content,
    registry,
)
from kombu.utils.json import JSONEncoder, object_hook, register_type

from resilience.errors import ConfigurationError
from resilience.levels import Level
from resilience.outcome import JsonAnswer, Outcome
from resilience.partial import PartialResponse
from resilience.text import hide_in_text

__all__ = ["carry_answers", "dumps", "escaped", "loads", "must_encode", "must_keep", "why_refused"]

ANSWERS: Final[Mapping[str, type[Outcome[Any]] | type[PartialResponse]]] = {
    "resilience.Outcome": Outcome,
    "resilience.PartialResponse": PartialResponse,
}
TYPE, VALUE = "__type__", "__value__"
"""Keys of kombu's envelope."""
ESCAPED: Final = "resilience.Escaped"
# What kombu's `dumps` and `loads` make for each call, which is a third of what they take.
_encode: Final = JSONEncoder().encode
_decode: Final = json.JSONDecoder(object_hook=object_hook).decode
_KEYS: Final = {TYPE, VALUE}
_MARK: Final = TYPE.encode()
PROBE: Final = Outcome(value=[Outcome(value=1)], level=Level.STALE, reason="probe", age=1.5)


@dataclass(frozen=True, slots=True)
class Escaped:
    """A mapping of the user's that looks like an envelope, on its way out."""

    pair: list[Any]

    def __reduce__(self) -> tuple[Any, ...]:
        """Let pickle, which reads no envelope, write the mapping itself."""
        return _original, (self.pair,)


def escaped(value: Any) -> Any:  # noqa: ANN401 - anything
    """Return *value* with all mappings in it escaped that look like an envelope.

    Itself if there are none. Answers in it are left alone: they escape their own data. What an
    app's own type is encoded as is the app's to escape.
    """
    if not isinstance(value, dict | list | tuple):
        return value
    try:
        # A walk takes ten times as long.
        if _MARK not in marshal.dumps(value):
            return value
    except ValueError:  # it holds more than plain values
        pass
    return _escape(value)


def _escape(value: Any) -> Any:  # noqa: ANN401 - anything
    if isinstance(value, dict):
        made = {name: _escape(item) for name, item in value.items()}
        if made.keys() == _KEYS:
            return Escaped([made[TYPE], made[VALUE]])
        return made if any(made[name] is not item for name, item in value.items()) else value
    if isinstance(value, list | tuple):
        items = [_escape(item) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return items if isinstance(value, list) else tuple(items)
    return value


def _original(pair: list[Any]) -> dict[str, Any]:
    return dict(zip((TYPE, VALUE), pair, strict=True))


def _wire(answer: JsonAnswer) -> dict[str, Any]:
    wire = answer.to_wire()
    wire["data"] = escaped(wire["data"])
    return wire


register_type(Escaped, ESCAPED, lambda one: one.pair, _original)  # type: ignore[arg-type] # reads a dict
for _name, _kind in ANSWERS.items():
    register_type(_kind, _name, _wire, _kind.from_json)


def carry_answers() -> None:
    """Let every serializer that kombu knows by now carry outcomes and partial responses.

    One that does so already stays as it is. Values without an answer in them are written as before.
    """
    known: Any = registry
    for name, (content_type, encoding, encoder) in known._encoders.copy().items():  # noqa: SLF001 - Celery reads it as well
        decoder = known._decoders.get(content_type)  # noqa: SLF001 - as above
        if decoder is None or _is_ours(encoder, decoder) or _carries(encoder, decoder):
            continue
        write, read = partial(_write, encoder), partial(_read, decoder)
        registry.register(name, write, read, content_type, encoding)


def why_refused(app: Celery[Any], serializer: str) -> str | None:
    """Return why workers of *app* would refuse a message of *serializer*; None: they would not."""
    if serializer in app.conf.accept_content:
        return None
    known: Any = registry
    accepted: Any = prepare_accept_content(app.conf.accept_content)
    if known.name_to_type.get(serializer) in accepted:
        return None
    return (
        f"workers refuse messages of the serializer {serializer!r}, as accept_content is "
        f"{list(app.conf.accept_content)!r}; add {serializer!r} to accept_content"
    )


def must_keep(args: object, kwargs: object, *, serializer: str, where: str) -> None:
    """Check that the ledger, which is JSON, gives back what *serializer* would deliver.

    Raises:
        kombu.exceptions.EncodeError: It would not; the message says *where*.
    """
    if serializer == "json":
        return  # whoever keeps it tries
    given = [args, kwargs]
    content_type, encoding, data = serialize(given, serializer=serializer)
    sent: Any = deserialize(data, content_type, encoding, accept={content_type})
    if [list(sent[0]), sent[1]] != loads(dumps(given)):
        text = hide_in_text(repr(given))
        msg = (
            f"{where}: the ledger keeps arguments as JSON, which cannot hold {text:.200} as "
            f"{serializer} does; pass texts, numbers, lists and mappings with text keys"
        )
        raise EncodeError(msg)


def _is_ours(encoder: Callable[[Any], Any], decoder: Callable[[Any], Any]) -> bool:
    """Tell whether an earlier app of this process has made them: trying YAML takes 10 ms."""
    return getattr(encoder, "func", None) is _write and getattr(decoder, "func", None) is _read


def _carries(encoder: Callable[[Any], Any], decoder: Callable[[Any], Any]) -> bool:
    try:
        return bool(decoder(encoder(PROBE)) == PROBE)
    except SerializerNotInstalled:
        return True  # it carries nothing at all
    except Exception:  # noqa: BLE001 - of any serializer
        return False


def _write(encoder: Callable[[Any], Any], value: object) -> Any:  # noqa: ANN401 - texts or bytes
    return encoder(_enveloped(value))


def _read(decoder: Callable[[Any], Any], data: Any) -> Any:  # noqa: ANN401 - texts, bytes, buffers
    raw = data.encode() if isinstance(data, str) else bytes(data)
    value = decoder(data)
    return _rebuilt(value) if TYPE.encode() in raw else value


def _enveloped(value: Any) -> Any:  # noqa: ANN401 - anything
    """Return *value* with envelopes in the place of answers; itself if there are none."""
    if isinstance(value, JsonAnswer):
        marker = next(name for name, kind in ANSWERS.items() if isinstance(value, kind))
        return {TYPE: marker, VALUE: _enveloped(_wire(value))}
    if isinstance(value, Escaped):
        return {TYPE: ESCAPED, VALUE: _enveloped(value.pair)}
    if isinstance(value, dict):
        made = {name: _enveloped(item) for name, item in value.items()}
        return made if any(made[name] is not item for name, item in value.items()) else value
    if isinstance(value, list | tuple):
        items = [_enveloped(item) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else items
    return value


def _rebuilt(value: Any) -> Any:  # noqa: ANN401 - anything
    """Return *value* with answers in the place of their envelopes."""
    if isinstance(value, dict):
        made = {name: _rebuilt(item) for name, item in value.items()}
        if made.keys() != _KEYS or not isinstance(made[TYPE], str):
            return made
        if made[TYPE] == ESCAPED:
            return _original(made[VALUE])
        kind = ANSWERS.get(made[TYPE])
        return made if kind is None else kind.from_json(made[VALUE])
    if isinstance(value, list | tuple):
        return [_rebuilt(item) for item in value]
    return value


def dumps(value: object) -> str:
    """Return *value* as JSON, as Celery would send it.

    Raises:
        kombu.exceptions.EncodeError: It cannot be sent; the message names it.
    """
    try:
        text: str = _encode(escaped(value))
    except (RecursionError, TypeError, ValueError) as error:
        msg = f"{hide_in_text(repr(value)):.200} cannot be sent as JSON: {error}"
        raise EncodeError(msg) from error
    return text


def loads(text: str | bytes | bytearray | memoryview) -> Any:  # noqa: ANN401 - any JSON
    """Return what *text* says, as Celery would receive it.

    Raises:
        ValueError: It is no JSON, or names a type that nobody has registered.
    """
    return _decode(text if isinstance(text, str) else str(text, "utf-8"))


def must_encode(value: Any, *, where: str) -> str:  # noqa: ANN401 - anything may be tried
    """Return *value* as JSON.

    Raises:
        ConfigurationError: It cannot be sent; the message says *where* it stands.
    """
    try:
        return dumps(value)
    except EncodeError as error:
        msg = f"{where}: {error}"
        raise ConfigurationError(msg) from error
