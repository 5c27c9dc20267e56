"""When features are shed, and when they come back."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SheddingPolicy:
    """When the controller sheds features; at half a threshold it restores them.

    A circuit that is open, and an order that holds a dependency, always count. Each of the other
    rules can be left out with None.

    Attributes:
        dwell_seconds: The controller switches a feature this often at most, sheds one feature in
            this time for each cause, and restores one; up to an hour.
        escalate_seconds: A feature that the controller has shed for longer is announced once more,
            as `FeatureShedLong`; up to a week.
        load: Share of time, in (0, 1], in which processes waited for a CPU, as the median host of
            the workers has it: the `some avg10` of `/proc/pressure/cpu`; on a kernel without it,
            by how much the load average exceeds the number of CPUs, as a share of that number.
        depth_share: Share of a dependency's `max_queue`, in (0, 1], that waits in its lanes.
        age_seconds: Time that jobs with a budget have waited in their queue when they begin, more
            than 0; 95 of 100 jobs of the last ten seconds waited less.
        p95_share: Share of a dependency's `timeout`, in (0, 1], in which 95 of 100 jobs of the last
            ten seconds ended.

    Raises:
        pydantic.ValidationError: A value is out of range, or an option is unknown.
    """

    dwell_seconds: Annotated[float, Field(gt=0, le=3_600)] = 10.0
    escalate_seconds: Annotated[float, Field(gt=0, le=604_800)] = 900.0
    load: Share | None = 0.8
    depth_share: Share | None = 0.5
    age_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 30.0
    p95_share: Share | None = 0.8
