"""Two pulls racing for one job: one winner, by hard link over SFTP, in each of 1,000 rounds."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path

from dsage_spool.errors import Exists
from dsage_spool.sftp import SftpFiles
from sshd import SftpProcess

ROUNDS, PULLS = 1000, 8
BOUND = 60


def pull(folder, number, barrier, winners):
    """One pull: its own process, its own server; tries each job at the moment the others do."""
    server = SftpProcess(Path(folder))
    files = SftpFiles(server.stream)
    files.drop(f"tmp{number}", f"mine{number}", f"pull {number}".encode())
    won = []
    for job in range(ROUNDS):
        barrier.wait(BOUND)
        try:
            files.link(f"mine{number}", f"locks/{job}.1.lock")
            won.append(job)
        except Exists:
            pass
    server.stop()
    winners.put((number, won))


def test_eight_pulls_racing_for_one_job_have_one_winner_in_1000_rounds(tmp_path):
    (tmp_path / "locks").mkdir()
    context = multiprocessing.get_context("spawn")
    barrier, winners = context.Barrier(PULLS), context.Queue()
    pulls = [
        context.Process(target=pull, args=(str(tmp_path), number, barrier, winners))
        for number in range(PULLS)
    ]
    try:
        for process in pulls:
            process.start()
        outcomes = dict(winners.get(timeout=BOUND) for _ in pulls)
    finally:
        for process in pulls:
            process.join(5)
            process.kill()
        winners.close()
    won_by = {job: number for number, jobs in outcomes.items() for job in jobs}
    won = Counter(job for jobs in outcomes.values() for job in jobs)
    assert won == Counter(range(ROUNDS))
    for job, number in won_by.items():
        assert (tmp_path / f"locks/{job}.1.lock").read_bytes() == f"pull {number}".encode()
    # A race that one party always wins would prove nothing.
    assert len([jobs for jobs in outcomes.values() if jobs]) > 1
