"""A feature that may be switched off to save the rest of the app."""

from collections.abc import Iterable
from dataclasses import KW_ONLY
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from resilience.declared import Declared, name_first
from resilience.errors import ConfigurationError
from resilience.flags.document import BROWNOUT
from resilience.levels import Level

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Feature:
    """A feature of the app that operators, or the controller, may shed.

    Attributes:
        name: Letters, digits, `_`, `-` and dots; unique in the app, such as `search.ai_ranking`.
        level: How good an answer is without the feature: STALE, REDUCED, STATIC, or FAILED if
            nothing answers in its place.
        depends_on: Names of the dependencies that the feature calls. The controller sheds the
            feature when one of them is in trouble.
        default: Whether the feature is on while nobody has ordered or decided anything.
        cost: Worker-seconds that one call takes, at least 0, until a trial has measured them. The
            controller sheds the costliest feature first. None: unknown, shed after those with one.
        automatic: Whether the controller may shed the feature; otherwise only people do.

    Raises:
        pydantic.ValidationError: A value is out of range, or an option is unknown.
        ConfigurationError: *level* is FULL, or *name* is `brownout`.
    """

    name: Name
    _: KW_ONLY
    level: Level
    depends_on: tuple[str, ...] = ()
    default: bool = True
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    automatic: bool = True

    _name_first = model_validator(mode="before")(name_first)

    def __post_init__(self) -> None:
        """Refuse a level at which nothing is shed, and the name under which brownouts are kept.

        Raises:
            ConfigurationError: It is FULL, or that name.
        """
        if self.name == BROWNOUT:
            msg = f"no feature may be called {BROWNOUT!r}, as orders of a brownout are; rename it"
            raise ConfigurationError(msg)
        if self.level is Level.FULL:
            msg = (
                f"feature {self.name!r}: level says how good an answer is without the feature; "
                "write STALE, REDUCED, STATIC or FAILED, got FULL"
            )
            raise ConfigurationError(msg)


class Features(Declared[Feature]):
    """The features of one app, by name."""

    kind = "feature"

    def __init__(self, features: Iterable[Feature], dependencies: Iterable[str]) -> None:
        """Collect *features* that call some of *dependencies*.

        Raises:
            ConfigurationError: They are no list, one of them is no `Feature`, two share a name, or
                one depends on a dependency that is not declared.
        """
        given: object = features
        if isinstance(given, str) or not isinstance(given, Iterable):
            msg = f"features={given!r} is no list; write [Feature(name, level=…), …]"
            raise ConfigurationError(msg)
        known = list(dependencies)
        super().__init__()
        for feature in features:
            if not isinstance(feature, Feature):
                msg = f"{feature!r} is no feature; declare Feature(name, level=…)"
                raise ConfigurationError(msg)
            if feature.name in self._by_name:
                msg = f"feature {feature.name!r} is declared twice; names must be unique"
                raise ConfigurationError(msg)
            for name in feature.depends_on:
                if name not in known:
                    msg = (
                        f"feature {feature.name!r} depends on the unknown dependency {name!r}; "
                        f"declared are: {', '.join(known) or 'none'}"
                    )
                    raise ConfigurationError(msg)
            self._by_name[feature.name] = feature
