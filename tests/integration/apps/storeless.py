"""An app that has no Redis anywhere."""

from celery import Celery

from resilience.dependency import Dependency
from resilience.tasks import Resilience

app = Celery("storeless", broker="memory://", backend="rpc://")
Resilience(app, dependencies=[Dependency("users")])
