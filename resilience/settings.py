"""Everything an operator may set through the environment."""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from resilience.errors import ConfigurationError
from resilience.text import REDACT

PREFIX = "RESILIENCE_"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _separated(given: object) -> object:
    """Return the names in a text, which is how a variable says them; anything else as it is."""
    if not isinstance(given, str):
        return given
    return [name for name in (part.strip() for part in given.split(",")) if name]


def _json(given: object) -> object:
    """Return what a text of JSON says; anything else as it is."""
    try:
        return json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError) as error:
        msg = f"no JSON: {error}"
        raise ValueError(msg) from error


LogFormat = Literal["logfmt", "json"]
Names = Annotated[
    frozenset[str], BeforeValidator(_separated), AfterValidator(lambda names: names | REDACT)
]


class Settings(BaseModel):
    """Operator settings, each also an environment variable `RESILIENCE_<NAME>`.

    Made directly they read no variable: what is not said has its default.

    Attributes:
        store_url: Redis or Valkey for shared state that can be rebuilt: `redis://`, `rediss://`,
            `unix://`; through Sentinels `sentinel://host:26379,host2:26379/<name of the primary>`;
            in a cluster `redis+cluster://host:6379,host2:6379`. `resilience.store.clients` says
            where user, password and TLS options go. Default: the app's result backend or broker,
            whichever of them is one Redis.
        namespace: Prefix of every key; the same in all processes of an app. Default:
            `resilience`. Give unrelated apps that share a database one each, or they share
            breakers of equal dependencies and stale answers of equal tasks.
        ledger_url: SQL database for jobs that must not get lost, the same for all processes of an
            app: `sqlite:////path/of/file`, `postgresql+psycopg://…`, `mariadb+pymysql://…`.
            Default: a SQLite file in the working directory, which is enough if all processes start
            there.
        ledger_lease_seconds: A job that a relay published, and that no worker has ended or begun
            in so long, is published again.
        redact: Names whose values no view, log line, event and error shows, besides those of the
            default, which always count: in any case, and also at the end of a longer name, such as
            `access_token`. The ledger stores arguments as they are. In the variable, separated by
            commas.
        store_timeout_seconds: Longest wait for one exchange with the store.
        publish_timeout_seconds: Longest wait for the broker to connect or to take a message.
        grace_seconds: How long after SIGTERM jobs of dependencies may end; then they are cut and
            handed back to the broker. Default: the longest timeout of a dependency, and 5 s more.
        health_seconds: A worker is unhealthy when its event loop has not run, or its broker has not
            answered, for so long; at least 1.
        runtime_directory: Where workers leave their marks for `resilience health`. Default:
            `/tmp/resilience-<user id>`.
        chaos: Whether faults may be injected into calls here; see docs/chaos.md.
        faults: Faults of the processes that have this setting, while `chaos` is on; in the variable
            a JSON list of objects with the attributes of `Fault`.
        log_format: How events are written to the log: `logfmt`, or `json`, one object a line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store_url: str | None = None
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    ledger_url: str = "sqlite:///resilience.sqlite3"
    ledger_lease_seconds: Seconds = 300.0
    redact: Names = REDACT
    store_timeout_seconds: Seconds = 0.1
    publish_timeout_seconds: Seconds = 1.0
    grace_seconds: Seconds | None = None
    health_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 15.0
    runtime_directory: Path | None = None
    chaos: bool = False
    faults: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_json)] = ()
    log_format: LogFormat = "logfmt"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings from *environment*, by default the process's own.

        Raises:
            ConfigurationError: A variable starts with `RESILIENCE_` but is no setting.
            pydantic.ValidationError: A value is out of range.
        """
        source = os.environ if environment is None else environment  # noqa: TID251 - its one home
        known = {PREFIX + name.upper(): name for name in cls.model_fields}
        for variable in source:
            if variable.startswith(PREFIX) and variable not in known:
                raise _unknown(variable, list(cls.model_fields))
        values = {known[variable]: source[variable] for variable in known if variable in source}
        return cls.model_validate(values)


def log_format_here() -> LogFormat:
    """Return the format of log lines for what was given no settings, such as a single pipeline.

    Another value than `json` means logfmt: `from_environment` refuses it where an app is adopted.
    """
    return "json" if os.environ.get(f"{PREFIX}LOG_FORMAT") == "json" else "logfmt"  # noqa: TID251 - its one home


def semantic_conventions_here() -> frozenset[str]:
    """Return what `OTEL_SEMCONV_STABILITY_OPT_IN` of this process opts in to."""
    said = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "")  # noqa: TID251 - its one home
    return frozenset(part.strip() for part in said.split(","))


def _unknown(variable: str, names: list[str]) -> ConfigurationError:
    # Compared without the prefix: with it, all of them look alike.
    near = difflib.get_close_matches(variable.removeprefix(PREFIX).lower(), names, n=1)
    if near:
        hint = f"did you mean {PREFIX}{near[0].upper()}?"
    else:
        hint = f"known are {', '.join(PREFIX + name.upper() for name in names)}"
    return ConfigurationError(f"{variable} is no setting; {hint}")
