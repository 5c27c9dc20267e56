"""Endpoints, which wait for Celery tasks."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from orders.models import Order
from orders.tasks import confirm, recommend, summarise


def recommendations(_request: HttpRequest, user: int) -> JsonResponse:
    """Answer with what the service recommends."""
    return JsonResponse(recommend.delay(user).get(timeout=5).to_dict())


def summary(_request: HttpRequest, user: int) -> JsonResponse:
    """Answer with a sentence about that."""
    return JsonResponse({"data": (recommend.s(user) | summarise.s()).delay().get(timeout=5)})


@csrf_exempt
def orders(request: HttpRequest, order: int) -> JsonResponse:
    """Take an order, whose mail is sent later, or show it."""
    if request.method == "POST":
        Order.objects.create(number=order)
        confirm.delay_on_commit(order)
        return JsonResponse({"order": order}, status=202)
    found = Order.objects.get(number=order)
    return JsonResponse({"mailed": found.mailed, "reminded": found.reminded})
