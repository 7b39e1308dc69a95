"""Where everything lies in a spool: the only joiner of paths, and the text that a spool explains itself with."""

from __future__ import annotations

from . import names
from .states import FLOW, State

TMP = "tmp"
INCOMING = "incoming"
LOCKS = "locks"
RESULTS = "results"
WORKERS = "workers"
JOURNAL = "journal"
LOG = "log"
ROSTER = "roster"
SETTINGS = "spool.json"
QUEUE = "queue"
README = "README"
SERVER_LOCK = "server.lock"

DROP_BOXES = (INCOMING, LOCKS, RESULTS, WORKERS)
FOLDERS = (TMP, *DROP_BOXES, *(str(state) for state in FLOW[1:]), JOURNAL, LOG)

# The files of a job folder.
ENVELOPE = "envelope"
SIGNATURE = "envelope.sig"
PAYLOAD = "payload"
RECEIPT = "receipt"
RECEIPT_SIGNATURE = "receipt.sig"
RESULT = "result"
STDOUT = "stdout"
STDERR = "stderr"
TRACEBACK = "traceback"
VERDICT = "verdict"
DROPPED = "drop"  # in rejected/: what was refused, as it came

# What a pack may hold: a dropped job or request, and a delivery.
JOB_PARTS = frozenset({ENVELOPE, SIGNATURE, PAYLOAD})
REQUEST_PARTS = frozenset({"request", "request.sig"})
RESULT_PARTS = frozenset({RECEIPT, RECEIPT_SIGNATURE, RESULT, STDOUT, STDERR, TRACEBACK})


def job_folder(state: State, job: str) -> str:
    return f"{state}/{job}"


def in_job(state: State, job: str, name: str) -> str:
    return f"{state}/{job}/{name}"


def lease_name(attempt: int) -> str:
    return f"lease.{attempt}"


def late_name(attempt: int) -> str:
    """A valid result that came after the job had one; kept, never used."""
    return f"late.{attempt}"


def drop(job: str) -> str:
    return f"{INCOMING}/{names.drop_name(job)}"


def request(job: str, nonce: str) -> str:
    return f"{INCOMING}/{names.request_name(job, nonce)}"


def lock(job: str, attempt: int) -> str:
    return f"{LOCKS}/{names.claim_name(job, attempt, 'lock')}"


def result(job: str, attempt: int) -> str:
    return f"{RESULTS}/{names.claim_name(job, attempt, 'result')}"


def output(job: str, attempt: int) -> str:
    """What a running job has printed so far."""
    return f"{RESULTS}/{names.claim_name(job, attempt, 'out')}"


def heartbeat(run: str) -> str:
    return f"{WORKERS}/{run}"


def in_tmp(name: str) -> str:
    return f"{TMP}/{name}"


def in_box(box: str, name: str) -> str:
    """A name as it was found in a drop box."""
    return f"{box}/{name}"


def journal(name: str) -> str:
    return f"{JOURNAL}/{name}"


README_TEXT = """\
This folder is a spool of dsage-spool: a batch system that lives in files.

A client drops a signed job file into incoming/. The server checks it and makes a job folder of it
in queued/. A worker claims the job by a lock file in locks/, runs it somewhere else, and drops a
signed result into results/. The server checks that too and moves the job folder to done/ or
failed/. Only the server moves job folders. Everything but payload and result is plain text.

  roster       who may submit (namespace job@dsage-spool) and who may run (result@dsage-spool):
               lines of OpenSSH's allowed_signers; edit it with care, the server reads it again
  queue        written by the server: counts, what runs now, and what runs next, in order
  journal/     written by the server: a line for every move of a job, a file for each day and start
  incoming/    drop box of clients: jobs and requests on their way in
  locks/       drop box of workers: <job>.<attempt>.lock, one for each claim
  results/     drop box of workers: results on their way in, and what running jobs print (.out)
  workers/     drop box of workers: one file for each, renewed while it lives; what it can run
  queued/      checked, waiting for a worker
  held/        set aside by a person
  running/     claimed by a worker; lease.N in the job folder says by whom
  done/        ended well: result, receipt, stdout, stderr
  failed/      ended badly: verdict says why, traceback has the rest
  cancelled/   withdrawn by the person who submitted it
  rejected/    never a job: what was dropped, with the reason in verdict
  tmp/         being written; old files here are swept by the server
  log/         what the server had to say
  spool.json   format version, the id of this spool, its times and limits

Start with:  cat queue; ls failed; cat failed/*/verdict

Who submitted a job can be checked with nothing but OpenSSH, in the job's folder:
  ssh-keygen -Y verify -f ../../roster -I NAME -n job@dsage-spool -s envelope.sig < envelope
where NAME is the `submitter` in envelope. The sha256 of payload stands in envelope.
"""
