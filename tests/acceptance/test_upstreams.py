"""The faults of the upstream services as their callers see them."""

import signal
import smtplib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import httpx
import pytest

from resilience.testing.waiting import wait_until
from tests.acceptance.upstream import PATIENCE_SECONDS, Upstream, running, send

SHORT_SECONDS = 0.3
CALLS = {
    "users": "/users/7",
    "recommendations": "/popular",
    "payments": "/alerts",
    "search": "/spell?q=chair",
}


@pytest.fixture
def caller() -> Iterator[ThreadPoolExecutor]:
    """Return a thread to make calls from that take their time."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize(("service", "path"), CALLS.items(), ids=list(CALLS))
def test_service_answers_until_it_is_told_to_fail_and_again_once_it_is_lifted(
    upstreams: Mapping[str, Upstream], service: str, path: str
) -> None:
    """Fail is a 503 with Retry-After: 5 on every call; the control surface is spared."""
    http = upstreams[service].http
    before = http.get("/stats").json()["by_mode"]

    healthy = http.get(path)
    upstreams[service].put_fault("fail")
    refused = http.get(path)
    control = [http.get("/health"), http.get("/fault"), http.get("/stats")]
    lifted = http.delete("/fault")
    repaired_answer = http.get(path)

    after = http.get("/stats").json()["by_mode"]
    assert healthy.status_code == 200
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert [answer.status_code for answer in control] == [200, 200, 200]
    assert control[1].json()["mode"] == "fail"
    assert lifted.json()["mode"] == "ok"
    assert repaired_answer.json() == healthy.json()
    assert {mode: after[mode] - before[mode] for mode in after} == {
        "ok": 2, "fail": 1, "slow": 0, "hang": 0,
    }  # fmt: skip


def test_slow_service_answers_after_its_latency_and_not_before(
    upstreams: Mapping[str, Upstream],
) -> None:
    """Slow adds latency_seconds to a right answer, also to one that has a body to read."""
    payments = upstreams["payments"]
    payments.put_fault("slow", latency_seconds=SHORT_SECONDS)
    started = perf_counter()

    answer = payments.http.post(
        "/charges", json={"order_id": "slow", "user_id": 7, "amount_cents": 100}
    )

    assert perf_counter() - started >= SHORT_SECONDS
    assert answer.status_code == 201


def test_slow_call_is_answered_at_once_when_the_fault_is_lifted(
    upstreams: Mapping[str, Upstream], caller: ThreadPoolExecutor
) -> None:
    """The end of an outage is sharp: no call is kept for what remains of a long latency."""
    users = upstreams["users"]
    users.put_fault("slow", latency_seconds=300)
    call = caller.submit(users.http.get, "/users/7")
    users.await_waiting(1)

    users.lift_fault()

    assert call.result(PATIENCE_SECONDS).status_code == 200


def test_hanging_service_forgets_a_call_whose_client_has_gone(
    upstreams: Mapping[str, Upstream],
) -> None:
    """A client that gives up leaves nothing behind in a service that hangs."""
    recommendations = upstreams["recommendations"]
    before = recommendations.http.get("/stats").json()["by_mode"]["hang"]
    recommendations.put_fault("hang")

    for _ in range(3):
        with pytest.raises(httpx.ReadTimeout):
            recommendations.http.get("/personalised/7", timeout=SHORT_SECONDS)

    recommendations.await_waiting(0)
    assert recommendations.http.get("/stats").json()["by_mode"]["hang"] == before + 3


def test_hanging_call_ends_with_503_when_the_fault_is_lifted(
    upstreams: Mapping[str, Upstream], caller: ThreadPoolExecutor
) -> None:
    """A call that hung is answered late, without the success it did not have or a time to wait."""
    payments = upstreams["payments"]
    payments.put_fault("hang")
    charge = {"order_id": "hung", "user_id": 7, "amount_cents": 100}
    call = caller.submit(payments.http.post, "/charges", json=charge)
    payments.await_waiting(1)

    payments.lift_fault()

    answer = call.result(PATIENCE_SECONDS)
    assert answer.status_code == 503
    assert "Retry-After" not in answer.headers
    assert payments.http.get("/charges/hung").status_code == 404


def test_service_stops_when_told_although_a_call_hangs(
    caller: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """SIGTERM releases what hangs and ends the process: nobody needs a SIGKILL."""
    with running("users", tmp_path) as users:
        users.put_fault("hang")
        call = caller.submit(users.http.get, "/users/7")
        users.await_waiting(1)

        users.process.send_signal(signal.SIGTERM)

        assert call.result(PATIENCE_SECONDS).status_code == 503
        wait_until(lambda: not users.process.running, PATIENCE_SECONDS, "the process has ended")
        assert "Traceback" not in users.process.log


@pytest.mark.parametrize(
    ("body", "named"),
    [
        pytest.param('{"mode": "broken"}', "mode", id="unknown-mode"),
        pytest.param('{"mode": "slow", "latency_seconds": -1}', "latency_seconds", id="negative"),
        pytest.param('{"mode": "ok", "latency": 1}', "latency", id="unknown-name"),
        pytest.param("slow", "body", id="no-json"),
    ],
)
def test_fault_that_means_nothing_is_refused_and_changes_nothing(
    upstreams: Mapping[str, Upstream], body: str, named: str
) -> None:
    """A typo in a script is answered with 422 that names it; the service stays as it was."""
    http = upstreams["users"].http

    answer = http.put("/fault", content=body)

    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    assert http.get("/fault").json()["mode"] == "ok"


def test_mail_keeps_what_it_takes_by_recipient(upstreams: Mapping[str, Upstream]) -> None:
    """A message can be read back by its recipient, and by nobody else's address."""
    mail = upstreams["mail"]

    send(mail, "first", to="ben@shop.example")
    send(mail, "second", to="eve@shop.example")

    kept = mail.http.get("/messages", params={"to": "ben@shop.example"}).json()
    assert kept == [
        {
            "message_id": "<first@shop.example>",
            "sender": "shop@shop.example",
            "to": ["ben@shop.example"],
            "subject": "first",
            "body": "Your order is on its way.\n",
        }
    ]
    every = mail.http.get("/messages").json()
    assert [one["subject"] for one in every[-2:]] == ["first", "second"]


def test_failing_mail_refuses_for_now_and_keeps_nothing(
    upstreams: Mapping[str, Upstream],
) -> None:
    """Fail is SMTP's "try again later" (451), not a rejection for ever."""
    mail = upstreams["mail"]
    mail.put_fault("fail")

    with pytest.raises(smtplib.SMTPSenderRefused) as refusal:
        send(mail, "refused", to="fay@shop.example")

    assert refusal.value.smtp_code == 451
    assert mail.http.get("/messages?to=fay@shop.example").json() == []


def test_slow_mail_takes_the_message_after_its_latency(
    upstreams: Mapping[str, Upstream],
) -> None:
    """A slow mail server delays a message but does not lose it."""
    mail = upstreams["mail"]
    mail.put_fault("slow", latency_seconds=SHORT_SECONDS)
    started = perf_counter()

    send(mail, "slow", to="gus@shop.example")

    assert perf_counter() - started >= SHORT_SECONDS
    assert len(mail.http.get("/messages?to=gus@shop.example").json()) == 1


def test_hanging_mail_forgets_a_client_that_has_gone(upstreams: Mapping[str, Upstream]) -> None:
    """A mail client that gives up leaves nothing behind in a server that hangs."""
    mail = upstreams["mail"]
    mail.put_fault("hang")

    with smtplib.SMTP("127.0.0.1", mail.port, timeout=SHORT_SECONDS) as client:
        client.ehlo()
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            client.mail("shop@shop.example")

    mail.await_waiting(0)


def test_hanging_mail_refuses_when_the_fault_is_lifted(
    upstreams: Mapping[str, Upstream], caller: ThreadPoolExecutor
) -> None:
    """A message that hung is refused for now, so that its sender keeps it."""
    mail = upstreams["mail"]
    mail.put_fault("hang")
    call = caller.submit(send, mail, "hung", to="ida@shop.example")
    mail.await_waiting(1)

    mail.lift_fault()

    with pytest.raises(smtplib.SMTPSenderRefused, match="451"):
        call.result(PATIENCE_SECONDS)
    assert mail.http.get("/messages?to=ida@shop.example").json() == []
