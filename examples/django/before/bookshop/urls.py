"""What the project answers to."""

from django.urls import path
from orders import views

urlpatterns = [
    path("recommendations/<int:user>", views.recommendations),
    path("summary/<int:user>", views.summary),
    path("orders/<int:order>", views.orders),
]
