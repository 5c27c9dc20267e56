"""The shop's tables, and how its database is opened."""

from datetime import UTC, datetime
from sqlite3 import Connection as SqliteConnection
from typing import Final

from sqlalchemy import (
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    String,
    TypeDecorator,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CONNECT_SECONDS: Final = 2
"""PostgreSQL's client library allows no less."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware on both sides, also where the database forgets the zone (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return *value* in UTC.

        Raises:
            ValueError: *value* has no zone, so it names no moment.
        """
        del dialect
        if value is not None and value.tzinfo is None:
            msg = f"a time zone is needed, got {value!r}"
            raise ValueError(msg)
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what was stored, in UTC."""
        del dialect
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value and value.astimezone(UTC)


class Base(DeclarativeBase):
    """The shop's tables."""


class Product(Base):
    """Something the shop sells; *popularity* is units sold, the order of the simple ranking."""

    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(80))
    category: Mapped[str] = mapped_column(String(20), index=True)
    price_cents: Mapped[int]
    popularity: Mapped[int] = mapped_column(index=True)


class User(Base):
    """Someone who buys; *segment* is a key of `jobs.words.SEGMENTS`."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(80))
    email: Mapped[str] = mapped_column(String(120), unique=True)
    segment: Mapped[str] = mapped_column(String(20), index=True)


class Order(Base):
    """What a user bought; the id is a UUID made by whoever takes the order."""

    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    quantity: Mapped[int]
    amount_cents: Mapped[int]
    charge_id: Mapped[str | None] = mapped_column(String(64))
    """The provider's id of the payment; None until it is captured."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


def open_engine(url: str, *, lock_seconds: float = 5.0) -> Engine:
    """Return an engine for any SQLAlchemy URL, which waits for no server longer than two seconds.

    A SQLite file is put into WAL mode, so that readers never wait for the writer, checks
    foreign keys, and lets a second writer wait up to *lock_seconds*.
    """
    if make_url(url).get_backend_name() == "postgresql":
        waits = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": 1000 * CONNECT_SECONDS}
        # With a ping: a server that was away leaves connections behind that nobody can use.
        return create_engine(url, pool_timeout=lock_seconds, pool_pre_ping=True, connect_args=waits)
    engine = create_engine(url)
    if engine.dialect.name != "sqlite":
        return engine
    busy = f"busy_timeout={int(lock_seconds * 1000)}"

    def prepare(connection: SqliteConnection, _record: object) -> None:
        for pragma in (busy, "journal_mode=WAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    event.listen(engine, "connect", prepare)
    return engine
