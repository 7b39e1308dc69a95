"""What every party may read: where a job is, its files, the queue, the journal, the workers.

Never lists a folder that grows with the backlog, except `find_part` and only on local files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Sequence

from .. import layout, names, queuefile, records
from ..errors import FileAnswer, Gone, SpoolError, Torn
from ..files import Files, Stat
from ..queuefile import QueueView
from ..records import Worker
from ..states import FLOW, JOB_FOLDERS, State
from .dropping import read_worker


READS = 5  # of a queue file that is being written


def states_of(files: Files, jobs: Sequence[str]) -> list[State | None]:
    """The state of each job, looked up in the order in which jobs flow; None if it is nowhere."""
    rows = [(_place(state, job),) for job in jobs for state in FLOW]
    found = files.many("stat", rows)
    width = len(FLOW)
    states = [_first(found[i * width : (i + 1) * width]) for i in range(len(jobs))]
    return states


def state_of(files: Files, job: str) -> State | None:
    """The state of one job. Looks twice: a hold or an expiry may move it against the flow."""
    return states_of(files, [job])[0] or states_of(files, [job])[0]


def _place(state: State, job: str) -> str:
    return layout.drop(job) if state is State.INCOMING else layout.job_folder(state, job)


def _first(found: Iterable[Any]) -> State | None:
    for state, outcome in zip(FLOW, found):
        if isinstance(outcome, Stat):
            return state
        if not isinstance(outcome, FileAnswer):
            raise outcome
    return None


def read_parts(
    files: Files, state: State, jobs: Sequence[str], parts: Sequence[str], limit: int
) -> list[dict[str, bytes]]:
    """The named files of job folders, all requests in flight together; missing ones are left out."""
    rows = [(layout.in_job(state, job, part), limit) for job in jobs for part in parts]
    found = iter(files.many("read", rows))
    return [_present(parts, [next(found) for _ in parts]) for _ in jobs]


def _present(parts: Sequence[str], outcomes: Sequence[Any]) -> dict[str, bytes]:
    for outcome in outcomes:
        if isinstance(outcome, SpoolError) and not isinstance(outcome, Gone):
            raise outcome
    return {part: data for part, data in zip(parts, outcomes) if isinstance(data, bytes)}


def read_queue(files: Files) -> QueueView | None:
    """The server's view, or None where no server has written one yet. Torn after several tries."""
    for tries in range(READS, 0, -1):
        try:
            return queuefile.parse(files.read(layout.QUEUE, queuefile.LIMIT))
        except Gone:
            return None
        except Torn:
            if tries == 1:
                raise
    return None


@dataclass(frozen=True)
class WorkerSeen:
    worker: Worker
    heard: float  # by the host's clock, seconds since 1970


def read_workers(files: Files) -> list[WorkerSeen]:
    """The latest run of each worker, by name. As many requests as there are workers."""
    runs = [run for run in files.names(layout.WORKERS) if names.parse_run(run)]
    paths = [layout.heartbeat(run) for run in runs]
    stats = files.many("stat", [(path,) for path in paths])
    texts = files.many("read", [(path, records.RECORD_LIMIT) for path in paths])
    latest: dict[str, WorkerSeen] = {}
    for seen in filter(None, map(_worker_seen, stats, texts)):
        known = latest.get(seen.worker.worker)
        if known is None or known.heard < seen.heard:
            latest[seen.worker.worker] = seen
    return [latest[name] for name in sorted(latest)]


def _worker_seen(stat: Any, text: Any) -> WorkerSeen | None:
    if not isinstance(stat, Stat) or not isinstance(text, bytes):
        return None
    try:
        return WorkerSeen(read_worker(text), stat.mtime)
    except SpoolError:
        return None


def find_part(files: Files, part: str) -> list[str]:
    """Jobs whose name contains `part`, by listing every state folder: for local spools only."""
    found = {name for state in JOB_FOLDERS for name in files.names(str(state)) if part in name}
    dropped = filter(None, map(names.parse_drop, files.names(layout.INCOMING)))
    return sorted(filter(names.is_job, found | {job for job in dropped if part in job}))
