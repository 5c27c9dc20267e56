"""A primary and its replicas, as SQLAlchemy sessions that route themselves."""

import asyncio
from functools import cached_property
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import sessionmaker
from sqlalchemy.util import greenlet_spawn

from resilience.databases.routing import RoutingSession
from resilience.databases.servers import Servers

CLOSE_SECONDS: Final = 2.0
"""How long closing waits for what runs beside the calls."""


class Databases(Servers):
    """A primary and its replicas behind factories of sessions; see `Servers` for the options."""

    @cached_property
    def Session(self) -> sessionmaker[RoutingSession]:  # noqa: N802 - as SQLAlchemy names it
        """Makes sessions whose reads go to a replica that has what was written and seen before.

        Before: in the `ConsistentSession` that the code runs in. All else goes to the primary.
        """
        return sessionmaker(class_=RoutingSession, databases=self)

    @cached_property
    def AsyncSession(self) -> async_sessionmaker[AsyncSession]:  # noqa: N802 - as above
        """Makes the same sessions for asyncio."""
        return async_sessionmaker(
            sync_session_class=RoutingSession, databases=self, asynchronous=True
        )

    def close(self) -> None:
        """Close the connections of `Session`s that are not in use; later ones connect again."""
        thread, _ = self._exchanging
        if thread is not None:
            thread.join(CLOSE_SECONDS)
        for server in (self.primary, *self.replicas):
            server.close(asynchronous=False)

    async def aclose(self) -> None:
        """Do the same for `AsyncSession`s."""
        _, task = self._exchanging
        if task is not None:
            await asyncio.wait([task], timeout=CLOSE_SECONDS)
        for server in (self.primary, *self.replicas):
            await greenlet_spawn(server.close, asynchronous=True)
