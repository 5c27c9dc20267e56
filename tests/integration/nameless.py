"""A program that prints who gives an order, as a user that no password file knows; needs root."""

import os

from resilience.cli.breakers import who

if __name__ == "__main__":
    os.setuid(54321)
    print(who())  # noqa: T201 - its output
