"""The figures that dsage-spool is held to, measured in one run: `make bench`.

Prints a JSON line for each measurement, with its five values and their median, and writes the table
of docs/performance.md. Real processes, a real sshd on loopback, folders that are removed again.
`bench.py latency idle` runs only these.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from world import ROOT, World, cpu_seconds, memory_bytes

from dsage_spool.client.compose import call_work

ROUNDS = 5
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"

Row = dict[str, object]
rows: list[Row] = []


def report(name: str, unit: str, target: str, values: list[float], **more: object) -> None:
    row = {"name": name, "unit": unit, "median": round(statistics.median(values), 3),
           "values": [round(value, 3) for value in values], "target": target, **more}  # fmt: skip
    rows.append(row)
    print(json.dumps(row), flush=True)


def in_world(measure: Callable[[World], None], **options: object) -> None:
    with tempfile.TemporaryDirectory(prefix="dsage-bench-") as folder:
        with World(Path(folder), **options) as world:
            measure(world)


def latency(ssh: bool) -> None:
    def measure(world: World) -> None:
        with world.connect() as session:
            session.submit(abs, -1).result(60)
            medians = []
            for _ in range(ROUNDS):
                times = []
                for number in range(15):
                    began = time.perf_counter()
                    assert session.submit(abs, -number).result(60) == number
                    times.append(1000 * (time.perf_counter() - began))
                medians.append(statistics.median(times))
        where, target = ("over loopback SSH", "<= 150") if ssh else ("on a local spool", "<= 60")
        report(f"one no-op job {where}, submit to result in hand", "ms", target, medians)

    in_world(measure, ssh=ssh)


def throughput() -> None:
    count = 2000

    def measure(world: World) -> None:
        rates, costs = [], []
        with world.connect() as session:
            session.submit(abs, -1).result(60)
            for _ in range(ROUNDS):
                before = cpu_seconds(world.server.pid) + cpu_seconds(world.worker.pid)
                began = time.perf_counter()
                jobs = session.submit_all(call_work(abs, (-n,), {}) for n in range(count))
                ended = session.as_completed(jobs, 600, fetch=True)
                assert sum(job.result() for job in ended) == count * (count - 1) // 2
                rates.append(count / (time.perf_counter() - began))
                after = cpu_seconds(world.server.pid) + cpu_seconds(world.worker.pid)
                costs.append(1000 * (after - before) / count)
        report("2,000 no-op jobs, a file each, two slots, over loopback SSH, first submit to last "
               "result", "jobs/s", ">= 150", rates,
               cpu_ms_per_job_of_server_and_worker=round(statistics.median(costs), 2))  # fmt: skip

    in_world(measure, ssh=True)


def backlog() -> None:
    count = 100_000

    def measure(world: World) -> None:
        rates = []
        with world.connect() as session:
            for _ in range(ROUNDS):
                began = time.perf_counter()
                session.submit_all(call_work(abs, (-n,), {}) for n in range(count // ROUNDS))
                rates.append(count / ROUNDS / (time.perf_counter() - began))
        began = time.perf_counter()
        admitted = wait_until_queued(world, count)
        report("submission to a local spool, in batches, each job on stable storage", "jobs/s",
               ">= 1000", rates, admitted=admitted,
               seconds_until_all_admitted=round(time.perf_counter() - began, 1))  # fmt: skip
        status_times(world)
        report("peak memory of the server with 100,000 jobs queued", "MB", "<= 300",
               [memory_bytes(world.server.pid) / 1e6])  # fmt: skip

    in_world(measure, worker=False)


def wait_until_queued(world: World, count: int) -> int:
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        queued = sum(name[0] != "." for name in os.listdir(world.spool / "queued"))
        if queued >= count:
            return queued
        time.sleep(0.5)
    raise RuntimeError("the server has not admitted all jobs within 15 minutes")


def status_times(world: World) -> None:
    command = [sys.executable, "-m", "dsage_spool", "status", "--spool", world.place]
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run(command, env=world.environ, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    report("`dsage-spool status` with 100,000 jobs queued, the whole command", "s", "<= 1", times)


def idle() -> None:
    window = 20.0

    def measure(world: World) -> None:
        with world.connect() as session:
            session.submit(abs, -1).result(60)
        time.sleep(window)  # what was deferred is done, and polling has slowed down
        values = []
        for _ in range(ROUNDS):
            before = cpu_seconds(world.server.pid) + cpu_seconds(world.worker.pid)
            time.sleep(window)
            after = cpu_seconds(world.server.pid) + cpu_seconds(world.worker.pid)
            values.append((after - before) * 60 / window)
        report("an idle server and an idle local worker together", "CPU s a minute", "<= 0.3", values)

    in_world(measure)


def machine() -> str:
    model = next((line.split(":", 1)[1].strip() for line in
                  Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
                 platform.machine())  # fmt: skip
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr.split(",")[0].strip()
    return (f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}, "
            f"Python {platform.python_version()}, {ssh}; load before {os.getloadavg()[0]:.1f}")  # fmt: skip


def write_page(where: str) -> None:
    text = PAGE.read_text("utf-8")
    table = [f"Measured {time.strftime('%Y-%m-%d')} on {where}.", "",
             "| what | median of five | lowest to highest | wanted |", "|---|---|---|---|"]  # fmt: skip
    for row in rows:
        values = row["values"]
        spread = f"{min(values):g} – {max(values):g}" if len(values) > 1 else "one value"
        table.append(f"| {row['name']} | {row['median']:g} {row['unit']} | {spread} | {row['target']} |")
    start, rest = text.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    PAGE.write_text(start + "\n".join([BEGIN, "", *table, "", END]) + tail, "utf-8")


MEASUREMENTS: dict[str, Callable[[], None]] = {
    "latency": lambda: (latency(ssh=False), latency(ssh=True)) and None,
    "throughput": throughput,
    "idle": idle,
    "backlog": backlog,
}


def main(chosen: list[str]) -> None:
    where = machine()
    print(json.dumps({"machine": where}), flush=True)
    for name in chosen or MEASUREMENTS:
        MEASUREMENTS[name]()
    if not chosen:
        write_page(where)


if __name__ == "__main__":
    main(sys.argv[1:])
