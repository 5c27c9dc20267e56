"""Other packages that guard a call or run a job, each in a virtual environment of its own.

pip installs them below a temporary directory. A package that cannot be installed gets a line that
says so, and is no failure. Breakers take turns with ours; packages that run jobs are for context.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import venv
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.breaker_fleet import running_server
from benchmarks.figure import Figure, paired_ratio
from benchmarks.peers_code import BREAKERS, JOBS, OURS, PUBLISH, TIMED
from resilience.testing.process import import_path, inherited_env

BOUNDS: Mapping[tuple[str, str], float] = {
    ("circuitbreaker", "sync"): 0.5,
    ("circuitbreaker", "async"): 0.55,
}
"""Greatest ratio of our time per call to theirs."""
OTHERS_BOUND = 1.0
"""Of other breakers: ours, which a fleet shares, is no slower than those of a single process."""
INSTALL_SECONDS = 180.0
RUN_SECONDS = 60.0
WORK_SECONDS = 60.0
LOOK_SECONDS = 0.002
SMALL = ("circuitbreaker", "pybreaker", "purgatory", "interlock-cb", "aiobreaker", "hyx")
ERRORS = (subprocess.SubprocessError, OSError, ValueError)


def run(*, quick: bool) -> Iterator[Figure]:
    """Measure; *quick* takes only breakers with few dependencies, and fewer rounds."""
    names = SMALL if quick else (*BREAKERS, *JOBS)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as directory,
        running_server() as server,
    ):
        home = Path(directory)
        with ThreadPoolExecutor(2) as pool:
            made = dict(zip(names, pool.map(partial(_install, home), names), strict=True))
        for name, python in made.items():
            try:
                if isinstance(python, str):
                    raise ValueError(python)  # noqa: TRY004 - the message of pip
                if name in BREAKERS:
                    yield from _breaker(name, python, server.url, 2 if quick else 5)
                else:
                    yield from _jobs(name, python, server.url, home / name)
            except ERRORS as error:
                yield _not_measured(name, _last_line(error))


def _install(home: Path, name: str) -> Path | str:
    """Return the interpreter of a new environment with the package *name*, or pip's message."""
    place = home / name
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    package = JOBS[name][0] if name in JOBS else name
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    try:
        subprocess.run(  # noqa: S603 - pip
            [*command, "--disable-pip-version-check", package],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.SubprocessError as error:
        return _last_line(error)
    return python


def _last_line(error: Exception) -> str:
    """Return the last line that a command wrote to stderr, or else the error itself."""
    text = str(getattr(error, "stderr", None) or "").strip() or str(error) or repr(error)
    return text.splitlines()[-1][:300]


def _not_measured(name: str, why: str) -> Figure:
    return Figure(
        name=f"peer_{name}", value=0, unit="figures", bound=None, sides={"not_measured": why}
    )


def _breaker(name: str, python: Path, url: str, rounds: int) -> Iterator[Figure]:
    ours_env = inherited_env({"PYTHONPATH": import_path()})
    turns = [
        (
            _printed([sys.executable, "-c", TIMED.format(code=OURS), url], ours_env),
            _printed(
                [str(python), "-c", TIMED.format(code=BREAKERS[name])],
                _clean_env(),
                python.parent,  # some leave files where they run
            ),
        )
        for _ in range(rounds)
    ]
    for kind in ("sync", "async"):
        pairs = [(ours[kind], theirs[kind]) for ours, theirs in turns if theirs.get(kind)]
        if pairs:
            ours_ns, theirs_ns = zip(*pairs, strict=True)
            yield Figure(
                name=f"peer_{name}_{kind}",
                value=paired_ratio(ours_ns, theirs_ns),
                unit="ratio",
                bound=BOUNDS.get((name, kind), OTHERS_BOUND),
                sides={
                    "ours": f"{median(ours_ns):.0f} ns",
                    "theirs": f"{median(theirs_ns):.0f} ns",
                },
            )


def _clean_env() -> dict[str, str]:
    """Return environment variables under which Python finds only what is installed."""
    env = inherited_env({})
    return {name: value for name, value in env.items() if not name.startswith("PYTHON")}


def _printed(
    command: list[str], env: Mapping[str, str], directory: Path | None = None
) -> dict[str, float]:
    """Return the JSON in the last line that *command* prints."""
    done = subprocess.run(  # noqa: S603 - of this package
        command,
        env=env,
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    printed: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return printed


def _jobs(name: str, python: Path, url: str, place: Path) -> Iterator[Figure]:
    """Publish jobs, then let a worker of two processes run them; time counts from the first one."""
    jobs, (_, code, command) = 1000, JOBS[name]
    (place / "peer_jobs.py").write_text(code)
    done = place / "done"
    done.touch()
    env = _clean_env() | {
        "PYTHONPATH": str(place),
        "PEER_URL": url,
        "PEER_DONE": str(done),
        "RELIER_REDIS_URL": url,
    }
    publisher = subprocess.run(  # noqa: S603 - of this package
        [str(python), "-c", PUBLISH, str(jobs)],
        env=env,
        cwd=place,
        check=True,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    published = float(publisher.stdout.splitlines()[-1])
    with _running([str(python), "-m", *command.split()], env, place):
        first = _await(done, 1)
        last = _await(done, jobs)
    yield Figure(
        name=f"peer_{name}_jobs",
        value=(jobs - 1) / (last - first),
        unit="1/s",
        bound=None,
        sides={"published_per_second": round(jobs / published), "processes": 2, "jobs": jobs},
    )


@contextmanager
def _running(command: list[str], env: Mapping[str, str], place: Path) -> Iterator[None]:
    with (place / "worker.log").open("wb") as log:
        worker = subprocess.Popen(  # noqa: S603 - of this package
            command, env=env, cwd=place, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _await(done: Path, jobs: int) -> float:
    """Return the time at which that many jobs are done.

    Raises:
        ValueError: They were not done within a minute.
    """
    pause, until = threading.Event(), perf_counter() + WORK_SECONDS
    while done.stat().st_size < jobs:
        if perf_counter() > until:
            log = (done.parent / "worker.log").read_text(errors="replace")
            msg = f"{done.stat().st_size} of {jobs} jobs were done: {log}"
            raise ValueError(msg)
        pause.wait(LOOK_SECONDS)
    return perf_counter()
