"""Callables of each kind, which chaos makes fail, and what is none."""

from celery import Celery

RATE = 0.3
app = Celery("targets", set_as_current=False)


@app.task(shared=False)
def task(what: str) -> str:
    """Return *what*."""
    return what


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
