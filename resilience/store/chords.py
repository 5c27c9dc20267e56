"""What the members of a chord have seen, kept until its body is published."""

from typing import Any, Final

from resilience.store.connection import Store

KEEP_SECONDS: Final = 86_400
"""As long as Celery keeps the results of a chord's members."""
MEMBERS: Final = "members"
DIGITS_MAX: Final = 15


class Chords:
    """Keeps a record for each chord: a hash of how many members it has, and a text of each.

    When the store is down every method raises `StoreUnavailableError`.
    """

    def __init__(self, store: Store) -> None:
        """Keep them in *store*; connects to nothing."""
        self._store = store

    def expect(self, group: str, members: int) -> None:
        """Note how many members the chord *group* has."""
        self._put(group, MEMBERS, str(members))

    def add(self, group: str, member: str, text: str) -> None:
        """Keep the *text* of one member, in place of an earlier one."""
        self._put(group, f"m:{member}", text)

    def collect(self, group: str) -> tuple[int | None, list[bytes]]:
        """Return how many members there are, None if nobody noted it, and the texts of those in."""
        key = self._store.key("chords", group)
        found: dict[bytes, bytes] = {}
        found = self._store.read(key, lambda client: client.hgetall(key), found)
        members = found.pop(MEMBERS.encode(), None)
        if members is not None and (len(members) > DIGITS_MAX or not members.isdigit()):
            self._store.unreadable(key, f"no number of members: {members!r:.150}", name=MEMBERS)
            members = None
        return None if members is None else int(members), list(found.values())

    def _put(self, group: str, field: str, text: str) -> None:
        key = self._store.key("chords", group)

        def put(client: Any) -> object:  # noqa: ANN401 - of a server or a cluster
            pipe = client.pipeline(transaction=False)
            pipe.hset(key, field, text)
            pipe.expire(key, KEEP_SECONDS)
            return pipe.execute()

        self._store.run(put)
