"""Celery on RabbitMQ, with its results in Postgres. See "The protocol" in ../README.md."""

import json
import mmap
import os
import signal
import sys
import threading
import time
import traceback

import psycopg
from celery import Celery
from celery.signals import worker_ready

PAYLOAD_BYTES = 200
QUEUE = "compare"


def variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set")
    return value


database = variable("DATABASE_URL")
app = Celery(
    "compare",
    broker=variable("AMQP_URL"),
    backend="db+" + database.replace("postgres://", "postgresql+psycopg://", 1),
)
app.conf.update(
    task_default_queue=QUEUE,
    # What its page on optimizing suggests for many short tasks.
    worker_prefetch_multiplier=128,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)


def now() -> float:
    """Microseconds since 1970."""
    return time.time() * 1e6


def answer(**values: object) -> None:
    print(json.dumps(values), flush=True)


class Tally:
    """In memory that the pool's processes share, since each task runs in one of them."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        # When each job first started; 0 while it has not.
        self.started = memoryview(mmap.mmap(-1, jobs * 8)).cast("d")
        self.latency = memoryview(mmap.mmap(-1, jobs * 8)).cast("d")
        self.runs = mmap.mmap(-1, jobs)

    def record(self, job: int, sent: float) -> None:
        at = now()
        self.runs[job] = min(self.runs[job] + 1, 255)
        if self.started[job] == 0:
            self.latency[job] = at - sent
            self.started[job] = at

    def left(self) -> int:
        return self.runs[:].count(0)

    def result(self) -> dict[str, float]:
        latency = sorted(self.latency)
        return {
            "first": min(self.started),
            "last": max(self.started),
            "runs": sum(self.runs[:]),
            "p50": latency[self.jobs // 2],
            "p99": latency[self.jobs * 99 // 100],
        }


tally: Tally | None = None


@app.task(name="compare")
def noop(job: int, sent: float, pad: str) -> None:
    tally.record(job, sent)


def prepare() -> None:
    """The backend makes its tables when it is first asked for."""
    _ = app.backend


def enqueue(jobs: int, rate: int) -> None:
    began = now()
    with app.producer_pool.acquire(block=True) as producer:
        for job in range(jobs):
            if rate > 0:
                time.sleep(max(0.0, (began - now()) / 1e6 + job / rate))
            payload = {"job": job, "sent": round(now()), "pad": ""}
            payload["pad"] = "x" * (PAYLOAD_BYTES - len(json.dumps(payload, separators=(",", ":"))))
            noop.apply_async(kwargs=payload, producer=producer)
    answer(began=round(began), ended=round(now()))


def work(jobs: int) -> None:
    global tally
    tally = Tally(jobs)
    # Before the pool's processes are forked: only then does the backend pool its connections in them.
    _ = app.backend
    worker = app.Worker(
        pool="prefork",
        concurrency=os.cpu_count(),
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    ready = threading.Event()
    worker_ready.connect(lambda **_: ready.set(), weak=False)
    threading.Thread(target=watch, args=(ready,), daemon=True).start()
    worker.start()
    sys.exit(worker.exitcode or 0)


def watch(ready: threading.Event) -> None:
    """Tells how the worker, which has the main thread, gets on; then stops it."""
    try:
        ready.wait()
        answer(ready=True)
        while tally.left() > 0:
            time.sleep(0.002)
        with psycopg.connect(database, autocommit=True) as connection:
            statement = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"
            while (kept := connection.execute(statement).fetchone()[0]) < tally.jobs:
                time.sleep(0.01)
        answer(**tally.result(), finished=now(), kept=kept)
        # Until it is closed, the memory of these processes is looked at.
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def drop() -> None:
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(QUEUE)


def main() -> None:
    command, *numbers = sys.argv[1:] or [""]
    commands = {("prepare", 0): prepare, ("enqueue", 2): enqueue, ("work", 1): work, ("drop", 0): drop}
    chosen = commands.get((command, len(numbers)))
    if chosen is None or not all(number.isdecimal() for number in numbers):
        sys.exit("usage: prepare | enqueue JOBS RATE | work JOBS | drop")
    chosen(*map(int, numbers))


if __name__ == "__main__":
    main()
