"""Callables of each kind, which chaos makes fail."""


def fetch(what: str) -> str:
    """Return *what*."""
    return what


async def fetch_async(what: str) -> str:
    """Return *what*."""
    return what


class Bank:
    """A client with a method of each kind."""

    def charge(self, cents: int) -> int:
        """Return *cents*."""
        return cents

    @staticmethod
    def currency() -> str:
        """Return a currency."""
        return "EUR"

    @classmethod
    def name(cls) -> str:
        """Return the class's name."""
        return cls.__name__
