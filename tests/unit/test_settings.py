"""Settings: where they come from, and what is refused."""

import pytest
from pydantic import ValidationError

from resilience import ConfigurationError, Settings
from resilience.text import REDACT


def test_settings_read_the_environment_that_is_handed_in() -> None:
    """Every setting is a variable `RESILIENCE_<NAME>`; others are none of our business."""
    environment = {
        "RESILIENCE_STORE_URL": "redis://cache:6379/1",
        "RESILIENCE_NAMESPACE": "shop",
        "RESILIENCE_STORE_TIMEOUT_SECONDS": "0.25",
        "RESILIENCE_PUBLISH_TIMEOUT_SECONDS": "2",
        "HOME": "/home/shop",
    }

    assert Settings.from_environment(environment) == Settings(
        store_url="redis://cache:6379/1",
        namespace="shop",
        store_timeout_seconds=0.25,
        publish_timeout_seconds=2.0,
    )


def test_names_to_hide_are_separated_by_commas() -> None:
    """Spaces around a name are not part of it, and no name is none."""
    settings = Settings.from_environment({"RESILIENCE_REDACT": "pin, card number ,,iban"})

    assert settings.redact == {"pin", "card number", "iban"} | REDACT


def test_settings_ignore_the_process_when_an_environment_is_handed_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither another environment nor settings made in code mix with the process's variables."""
    monkeypatch.setenv("RESILIENCE_NAMESPACE", "from-the-process")
    monkeypatch.setenv("resilience_store_url", "redis://in-lower-case")

    assert Settings.from_environment({}) == Settings()
    assert Settings().namespace is None
    assert Settings().store_url is None


def test_settings_read_the_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the process's own environment counts."""
    monkeypatch.setenv("RESILIENCE_NAMESPACE", "from-the-process")

    assert Settings.from_environment().namespace == "from-the-process"


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("RESILIENCE_STORE_ULR", "RESILIENCE_STORE_URL"),
        ("RESILIENCE_NAME_SPACE", "RESILIENCE_NAMESPACE"),
        ("RESILIENCE_STORE_TIMEOUT", "RESILIENCE_STORE_TIMEOUT_SECONDS"),
        ("RESILIENCE_store_url", "RESILIENCE_STORE_URL"),
    ],
)
def test_settings_name_the_nearest_when_a_variable_is_unknown(wrong: str, meant: str) -> None:
    """A mistyped variable is an error that says which was probably meant."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({wrong: "x"})

    assert str(caught.value) == f"{wrong} is no setting; did you mean {meant}?"


def test_settings_list_all_names_when_none_is_near() -> None:
    """A variable like no other gets the list of all that exist."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({"RESILIENCE_X": "1"})

    for name in Settings.model_fields:
        assert f"RESILIENCE_{name.upper()}" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RESILIENCE_STORE_TIMEOUT_SECONDS", "0"),
        ("RESILIENCE_STORE_TIMEOUT_SECONDS", "-1"),
        ("RESILIENCE_STORE_TIMEOUT_SECONDS", "inf"),
        ("RESILIENCE_STORE_TIMEOUT_SECONDS", "nan"),
        ("RESILIENCE_STORE_TIMEOUT_SECONDS", "soon"),
        ("RESILIENCE_PUBLISH_TIMEOUT_SECONDS", "-0.1"),
        ("RESILIENCE_HEALTH_SECONDS", "0.9"),
        ("RESILIENCE_NAMESPACE", ""),
        ("RESILIENCE_NAMESPACE", "two words"),
        ("RESILIENCE_NAMESPACE", "shop\n"),
        ("RESILIENCE_NAMESPACE", "{shop}"),
    ],
)
def test_settings_name_a_value_that_is_out_of_range(variable: str, value: str) -> None:
    """Nonsense is refused with the setting's name and the value."""
    with pytest.raises(ValidationError) as caught:
        Settings.from_environment({variable: value})

    assert variable.removeprefix("RESILIENCE_").lower() in str(caught.value)
    assert repr(value) in str(caught.value)


def test_settings_made_in_code_refuse_unknown_names_and_changes() -> None:
    """A mistyped keyword is an error, and settings stay what they were."""
    with pytest.raises(ValidationError):
        Settings(store_ulr="redis://cache")  # type: ignore[call-arg]  # what must not work
    with pytest.raises(ValidationError):
        Settings().namespace = "other"  # what must not work
