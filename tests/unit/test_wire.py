"""What Celery sends and the store keeps: answers within answers, and types that apps register."""

from dataclasses import dataclass

import pytest
from kombu.exceptions import EncodeError
from kombu.utils import json

from resilience import Outcome, PartialResponse
from resilience.tasks.serialization import dumps, loads
from tests.unit.python_calls import python_calls


def test_nested_answers_arrive_as_themselves() -> None:
    """What goes into a message comes out of it, type by type."""
    response = PartialResponse(data={"user": Outcome(value=1)}, missing=["ads"])
    nested = Outcome(value=[response, {"page": response}])

    assert loads(dumps(nested)) == nested


@dataclass(frozen=True)
class Money:
    """A type that an app registers, some time after this library is imported."""

    cents: int


def test_types_that_an_app_registers_later_are_carried() -> None:
    """What kombu lets messages carry, the store and the ledger carry as well."""
    with pytest.raises(EncodeError, match="Money"):
        dumps(Money(7))

    json.register_type(Money, "test.Money", lambda money: money.cents, Money)
    try:
        assert loads(dumps([Money(7)])) == json.loads(json.dumps([Money(7)])) == [Money(7)]
    finally:
        del json._encoders[Money], json._decoders["test.Money"]  # noqa: SLF001 - nothing else unregisters


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_documents_are_read_from_bytes_of_any_kind(kind: type) -> None:
    """A store and a broker return one, a database another."""
    assert loads(kind('{"name": "Zoë"}'.encode())) == {"name": "Zoë"}


@pytest.mark.parametrize(
    "text", ["", "{", b"\xff", '{"__type__": "test.Unknown", "__value__": 1}'], ids=repr
)
def test_document_that_is_none_is_refused(text: str | bytes) -> None:
    """So is one that names a type which nobody has registered."""
    with pytest.raises(ValueError, match=r"Expecting|decode|Unsupported"):
        loads(text)


def test_one_encoder_and_one_decoder_serve_all_documents() -> None:
    """Kombu's functions make one for each, a third of what a small document costs."""
    with python_calls() as calls:
        loads(dumps({"a": 1}))

    assert not [name for name in calls if "__init__" in name]
