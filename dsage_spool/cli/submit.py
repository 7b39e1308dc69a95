"""`dsage-spool submit`: source text, a file, or a command."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from pathlib import Path

from ..client.compose import Options, Work, command_work, source_work
from ..client.lookup import parse_duration, parse_size
from ..client.session import Session
from ..errors import UsageError
from .opening import job_named, open_session


def submit(arguments: Namespace) -> int:
    work = _work(arguments)
    with open_session(arguments) as session:
        job = session.submit_all([work], _options(arguments, session))[0]
        if not session.durable:
            print("dsage-spool: sent; this host does not confirm stable storage", file=sys.stderr)
        if not arguments.wait:
            print(job.id)
            return 0
        print(f"submitted {job.id}", file=sys.stderr)
        from .ending import tell_result

        return tell_result(session, job, None, as_json=False)


def _work(arguments: Namespace) -> Work:
    given = [arguments.source is not None, arguments.file is not None, arguments.command_words is not None]
    if sum(given) != 1:
        raise UsageError(
            "submit wants one of: an expression, -f FILE, or -- COMMAND",
            "dsage-spool submit '2+2'",
        )
    if arguments.command_words is not None:
        return command_work(arguments.command_words)
    if arguments.source is not None:
        return source_work(arguments.source)
    return source_work(_read(arguments.file))


def _read(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {os.strerror(error.errno or 0)}", "name a readable file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text", "source text is UTF-8") from None


def _options(arguments: Namespace, session: Session) -> Options:
    now = time.time()
    return Options(
        title=arguments.title,
        priority=arguments.priority,
        attempts=arguments.attempts,
        time_limit=parse_duration(arguments.time),
        memory_limit=parse_size(arguments.memory),
        needs=tuple(arguments.needs),
        batch=arguments.batch,
        after=tuple(job_named(session, part) for part in arguments.after),
        not_before=int(now + parse_duration(arguments.not_before)) if arguments.not_before else 0,
        not_after=int(now + parse_duration(arguments.not_after)) if arguments.not_after else 0,
    )
