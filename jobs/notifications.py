"""Mail to users: fire and forget. What fails is an event, never the order's problem."""

import logging
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, ClassVar

from celery import shared_task

from jobs.clients import clients
from resilience import ResilientTask
from resilience.events import Event

SENDER = "orders@shop.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationLost(Event):
    """A mail was not sent, and will not be.

    Attributes:
        task_id: Which job it was.
        arguments: What it was called with.
        error: Why it failed.
    """

    severity: ClassVar[int] = logging.ERROR
    task_id: str
    arguments: tuple[Any, ...]
    error: str


class MailTask(ResilientTask):
    """A task that hands a mail to the mail server, and whose result nobody waits for."""

    abstract = True
    dependency = "notifications"
    ignore_result = True

    def on_failure(
        self,
        exc: Exception,
        task_id: str,
        args: Any,  # noqa: ANN401 - Celery's signature
        kwargs: Any,  # noqa: ANN401 - Celery's signature
        einfo: Any,  # noqa: ANN401 - Celery's signature
    ) -> None:
        """Say that the mail is lost."""
        super().on_failure(exc, task_id, args, kwargs, einfo)
        error = f"{type(exc).__name__}: {exc}"
        self.resilience.announce(
            NotificationLost(task_id=task_id, arguments=tuple(args), error=error)
        )


@shared_task(base=MailTask)
def confirm_order(order_id: str, email: str, product: str, quantity: int) -> None:
    """Tell a user that their order was taken."""
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = email
    message["Subject"] = f"Your order {order_id}"
    message["Message-ID"] = f"<{order_id}@shop.example>"
    message.set_content(f"{quantity} x {product}: thank you. It is on its way.\n")
    clients().send(message)
