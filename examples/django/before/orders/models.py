"""What is kept about orders."""

from django.db import models


class Order(models.Model):
    """An order, and whether its mail was sent."""

    number = models.IntegerField(primary_key=True)
    mailed = models.BooleanField(default=False)
    reminded = models.IntegerField(default=0)
