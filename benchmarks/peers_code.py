"""Code that guards a call or runs jobs with other packages, each used as its documentation says."""

from collections.abc import Mapping

BREAKERS: Mapping[str, str] = {
    "circuitbreaker": """
from circuitbreaker import circuit
call, acall = circuit(noop), circuit(noop_async)
""",
    "pybreaker": """
import pybreaker
call = pybreaker.CircuitBreaker()(noop)
""",
    "purgatory": """
import purgatory
call = purgatory.SyncCircuitBreakerFactory()("noop")(noop)
acall = purgatory.AsyncCircuitBreakerFactory()("noop")(noop_async)
""",
    "interlock-cb": """
import interlock
call = interlock.CircuitBreaker(name="sync")(noop)
acall = interlock.CircuitBreaker(name="async")(noop_async)
""",
    "aiobreaker": """
import aiobreaker
acall = aiobreaker.CircuitBreaker()(noop_async)
""",
    "hyx": """
from hyx.circuitbreaker import consecutive_breaker
acall = consecutive_breaker()(noop_async)
""",
    "baldur-framework": """
import baldur
call = baldur.protected("noop")(noop)
acall = baldur.protected("noop-async")(noop_async)
""",
}
OURS = """
import sys
from benchmarks.breaker_fleet import join
breaker, _ = join(sys.argv[1], "peers")
call, acall = breaker(noop), breaker(noop_async)
"""
TIMED = """
import asyncio, json, statistics
from time import perf_counter

def noop(): return 1
async def noop_async(): return 1
call = acall = None
{code}
CALLS, SECONDS = 200, 0.3

def repeated(run):
    run()
    times, until = [], perf_counter() + SECONDS
    while perf_counter() < until or len(times) < 3:
        began = perf_counter()
        run()
        times.append(perf_counter() - began)
    return statistics.median(times) / CALLS * 1e9

def calls():
    for _ in range(CALLS): call()

async def awaited():
    for _ in range(CALLS): await acall()

found = {{"sync": call and repeated(calls)}}
if acall:
    with asyncio.Runner() as runner:
        found["async"] = repeated(lambda: runner.run(awaited()))
print("\\n" + json.dumps(found))
"""
"""Prints the median nanoseconds of a call, by kind (`sync`, `async`)."""

DRAMATIQ = """
import dramatiq, os
from dramatiq.brokers.redis import RedisBroker
dramatiq.set_broker(RedisBroker(url=os.environ["PEER_URL"]))
done = os.open(os.environ["PEER_DONE"], os.O_WRONLY | os.O_APPEND)

@dramatiq.actor
def noop():
    os.write(done, b".")

publish = noop.send
"""
RELIER = """
import os
from relier import rl_task
done = os.open(os.environ["PEER_DONE"], os.O_WRONLY | os.O_APPEND)

@rl_task(queue="default")
def noop():
    os.write(done, b".")

publish = noop.push
"""
PUBLISH = """
import sys, peer_jobs
from time import perf_counter
began = perf_counter()
for _ in range(int(sys.argv[1])): peer_jobs.publish()
print("\\n%f" % (perf_counter() - began))
"""
JOBS: Mapping[str, tuple[str, str, str]] = {
    "dramatiq": (
        "dramatiq[redis]",
        DRAMATIQ,
        "dramatiq --processes 2 --threads 1 peer_jobs",
    ),
    "relier": (
        "relier",
        RELIER,
        "celery -A relier.tasks.app worker -c 2 -l ERROR -Q default --include=peer_jobs",
    ),
}
"""What to install, the code of the module `peer_jobs`, and the command of a worker of two processes
(with one thread each)."""
