"""The same FastAPI app, whose Celery tasks degrade gracefully."""

import os
import smtplib

import httpx
from celery import Celery
from fastapi import FastAPI

from resilience import (
    Dependency,
    FanOut,
    FireAndForgetTask,
    Resilience,
    ResilientTask,
    fallback,
    part,
)

app = Celery("bookshop", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])
Resilience(
    app,
    dependencies=[
        Dependency("recommendations", concurrency=4, timeout=1.0),
        Dependency("mail", concurrency=2, timeout=2.0),
    ],
)
front = FastAPI()


@app.task(
    base=ResilientTask,
    dependency="recommendations",
    fallbacks=[fallback.stale(max_age=3600), fallback.static([744, 417, 118])],
)
def recommend(user: int) -> list[int]:
    """Return product ids for *user*, the best first."""
    url = f"{os.environ['RECOMMENDATIONS_URL']}/personalised/{user}"
    return httpx.get(url, timeout=30).raise_for_status().json()


@app.task
def summarise(products: list[int]) -> str:
    """Describe a list of products."""
    return f"{len(products)} products"


@app.task(base=FireAndForgetTask, dependency="mail", idempotency_key="order:{order}:mail")
def confirm(order: int) -> None:
    """Send a mail about *order*."""
    with smtplib.SMTP("127.0.0.1", int(os.environ["MAIL_PORT"]), timeout=30) as mail:
        text = f"Message-ID: <{order}@bookshop.example>\nSubject: order {order}\n\nThank you."
        mail.sendmail("shop@bookshop.example", ["ann@bookshop.example"], text)


@front.get("/recommendations/{user}")
async def recommendations(user: int):
    """Answer within a second and a half, whatever the service does."""
    wanted = FanOut(products=part(recommend.s(user), stale=3600))
    response = await wanted.apply_async(budget=1.5).aget()
    answer = response.to_dict()
    return {"data": answer["data"].get("products"), "_meta": answer["_meta"]}


@front.get("/summary/{user}")
def summary(user: int):
    """Answer with a sentence about that."""
    return {"data": (recommend.s(user) | summarise.s()).delay().get(timeout=5)}


@front.post("/orders/{order}", status_code=202)
def orders(order: int):
    """Take an order; its mail is sent later."""
    confirm.delay(order)
    return {"order": order}
