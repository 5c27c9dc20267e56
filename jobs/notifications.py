"""Mail to users: fire and forget. It never is the order's problem, and is sent when it can be."""

from email.message import EmailMessage

from celery import shared_task

from jobs.clients import clients
from jobs.confirmation import confirmation_id
from resilience import FireAndForgetTask

SENDER = "orders@shop.example"


@shared_task(
    base=FireAndForgetTask,
    dependency="notifications",
    idempotency_key="order:{order_id}:mail",
)
def confirm_order(order_id: str, email: str, product: str, quantity: int) -> None:
    """Tell a user that their order was taken."""
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = email
    message["Subject"] = f"Your order {order_id}"
    message["Message-ID"] = confirmation_id(order_id)
    message.set_content(f"{quantity} x {product}: thank you. It is on its way.\n")
    clients().send(message)
