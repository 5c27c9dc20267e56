"""A FastAPI app whose endpoints wait for Celery tasks."""

import os
import smtplib

import httpx
from celery import Celery
from fastapi import FastAPI

app = Celery("bookshop", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
front = FastAPI()


@app.task
def recommend(user: int) -> list[int]:
    """Return product ids for *user*, the best first."""
    url = f"{os.environ['RECOMMENDATIONS_URL']}/personalised/{user}"
    return httpx.get(url, timeout=30).raise_for_status().json()


@app.task
def summarise(products: list[int]) -> str:
    """Describe a list of products."""
    return f"{len(products)} products"


@app.task(ignore_result=True)
def confirm(order: int) -> None:
    """Send a mail about *order*."""
    with smtplib.SMTP("127.0.0.1", int(os.environ["MAIL_PORT"]), timeout=30) as mail:
        text = f"Message-ID: <{order}@bookshop.example>\nSubject: order {order}\n\nThank you."
        mail.sendmail("shop@bookshop.example", ["ann@bookshop.example"], text)


@front.get("/recommendations/{user}")
def recommendations(user: int):
    """Answer with what the service recommends."""
    return {"data": recommend.delay(user).get(timeout=5)}


@front.get("/summary/{user}")
def summary(user: int):
    """Answer with a sentence about that."""
    return {"data": (recommend.s(user) | summarise.s()).delay().get(timeout=5)}


@front.post("/orders/{order}", status_code=202)
def orders(order: int):
    """Take an order; its mail is sent later."""
    confirm.delay(order)
    return {"order": order}
