"""Which workers speak for an app."""

import hashlib
import re
from typing import Any

from celery import Celery

USER = re.compile(r"//[^/;,]*@")
SCHEME = re.compile(r"[A-Za-z0-9_+.-]+://")


def identity_of(app: Celery[Any]) -> str:
    """Return what is the same in all processes of *app*, and in no other app's.

    That is the broker, whoever logs in, and the default queue: two apps that had both in common
    would take each other's messages. The app's main name is not: a client that only publishes often
    has another.
    """
    conf: Any = app.conf
    said = conf.broker_write_url or conf.broker_url or ""
    urls = said if isinstance(said, str) else ";".join(map(str, said))
    place = SCHEME.sub("", USER.sub("//", urls.partition("?")[0]))
    text = f"{place.rstrip('/').lower()} {conf.task_default_queue}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
