"""The command line: its verbs and options, and how errors are told.

Results go to stdout, all else to stderr. Only what a verb needs is imported, since a cron worker or
`status` should not pay for SSH or algebra.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import Sequence

from .. import __version__
from ..errors import SpoolError, UsageError

EXIT_CODES = """\
exit codes:
  0    it worked; the job is done
  1    the job ran and failed
  2    the command line is wrong
  3    the job was cancelled
  4    no such job, or several
  5    the job was rejected
  65   a file is not what its name says      73   the disk or a quota is full
  69   another process is at it already      74   the disk failed
  70   something is wrong with this program
  75   the network or the host is away: try again later
  76   made by another release               77   a key, a host key or a permission says no
  124  it has not ended yet (--timeout)      130  interrupted

The spool is named by --spool, or DSAGE_SPOOL_SPOOL, or `spool = ...` in the config file, or is the
folder ./spool. Every setting has a variable DSAGE_SPOOL_*; see docs/operating.md.
"""

Adder = argparse._SubParsersAction


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, command = _split_command(words)
    arguments = build_parser().parse_args(words)
    arguments.command_words = command
    module, function = arguments.run.split(":")
    try:
        status = getattr(import_module(f".{module}", __package__), function)(arguments) or 0
        sys.stdout.flush()
        return status
    except SpoolError as error:
        print(f"dsage-spool: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader went away, as `head` does; what is left to flush has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _split_command(words: list[str]) -> tuple[list[str], list[str] | None]:
    """What follows `--` is a command, taken literally."""
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1 :]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise SystemExit(_usage(self, message))


def _usage(parser: argparse.ArgumentParser, message: str) -> int:
    print(f"dsage-spool: {UsageError(message, f'{parser.prog} --help')}", file=sys.stderr)
    return 2


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dsage-spool",
        description="A batch system that lives in files and needs nothing but SSH to one box.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dsage-spool {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=_Parser)
    for add in (_making, _submit, _looking, _ending, _parties, _showing_off):
        add(verbs)
    return parser


def _verb(verbs: Adder, name: str, run: str, help: str, spool: bool = True, **more):
    parser = verbs.add_parser(name, help=help, description=help, **more)
    parser.set_defaults(run=run)
    if spool:
        parser.add_argument("-s", "--spool", metavar="SPOOL", help="a path, or user@host:path")
        parser.add_argument("--user", metavar="NAME", help="your name in the roster")
        parser.add_argument("--key", metavar="FILE", help="the private key that signs your jobs")
        parser.add_argument("--roster", metavar="FILE", help="trust this roster, not the spool's")
    return parser


def _json(parser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON value on stdout")


def _making(verbs: Adder) -> None:
    init = _verb(verbs, "init", "making:init", "make a spool, and keys for a first user", spool=False)
    init.add_argument("place", nargs="?", default="spool", metavar="PATH", help="default: ./spool")
    init.add_argument("--user", metavar="NAME", help="your name in the roster")
    init.add_argument("--key", metavar="FILE", help="use this key instead of making one")
    init.add_argument("--worker", metavar="NAME", help="name of this machine's worker")
    init.add_argument("--lease", type=float, metavar="SECONDS", help="default: 120")
    key = _verb(verbs, "key", "making:key", "print the roster line of your key, made if need be")
    key.add_argument("--worker", nargs="?", const="", metavar="NAME", help="this machine's worker")


def _submit(verbs: Adder) -> None:
    submit = _verb(
        verbs, "submit", "submit:submit", "submit source text, a file, or a command",
        usage="dsage-spool submit [options] 'EXPRESSION' | -f FILE | -- COMMAND [ARG ...]",
    )  # fmt: skip
    submit.add_argument("source", nargs="?", metavar="EXPRESSION", help="Python, sympy's names, ^ is power")
    submit.add_argument("-f", "--file", metavar="FILE", help="source text from a file; - for stdin")
    submit.add_argument("-t", "--title", default="", help="what people will see")
    submit.add_argument("-p", "--priority", type=int, default=0, help="higher runs first; default 0")
    submit.add_argument("--time", default="none", metavar="10m", help="limit of run time")
    submit.add_argument("--memory", default="0", metavar="2G", help="limit of memory, and a need")
    submit.add_argument("--attempts", type=int, default=3, help="workers it may lose; default 3")
    submit.add_argument("--needs", action="append", default=[], metavar="TAG",
                        help="what a worker must offer: a tag, or package=NAME")  # fmt: skip
    submit.add_argument("--batch", default="", metavar="WORD", help="a word jobs have in common")
    submit.add_argument("--after", action="append", default=[], metavar="JOB", help="run after this job")
    submit.add_argument("--not-before", default="", metavar="1h", help="wait this long at least")
    submit.add_argument("--not-after", default="", metavar="2d", help="give up if still waiting then")
    submit.add_argument("-w", "--wait", action="store_true", help="wait, and print the result")


def _looking(verbs: Adder) -> None:
    status = _verb(verbs, "status", "looking:status", "what there is, what runs, what waits and why")
    status.add_argument("--watch", action="store_true", help="keep it live until ^C")
    _json(status)
    show = _verb(verbs, "show", "looking:show", "one job's story")
    show.add_argument("job", metavar="JOB", help="any unique part of its name, or `last`")
    _json(show)
    log = _verb(verbs, "log", "looking:log", "what a job printed")
    log.add_argument("job", metavar="JOB")
    log.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    log.add_argument("--stderr", action="store_true", help="what it printed there instead")
    doctor = _verb(verbs, "doctor", "doctor:doctor", "check this machine and the spool, say what to type")
    _json(doctor)


def _ending(verbs: Adder) -> None:
    result = _verb(verbs, "result", "ending:result", "print a job's value; exits as the job did")
    result.add_argument("job", metavar="JOB")
    result.add_argument("--timeout", default="", metavar="10m", help="wait no longer")
    _json(result)
    wait = _verb(verbs, "wait", "ending:wait", "wait for jobs; exits as the worst of them did")
    wait.add_argument("jobs", nargs="+", metavar="JOB")
    wait.add_argument("--timeout", default="", metavar="10m", help="wait no longer")
    _json(wait)
    for verb, help in (
        ("cancel", "withdraw jobs, waiting or running"),
        ("hold", "set waiting jobs aside"),
        ("release", "let held jobs go on"),
    ):
        parser = _verb(verbs, verb, f"ending:{verb}", help)
        parser.add_argument("jobs", nargs="+", metavar="JOB")


def _parties(verbs: Adder) -> None:
    server = _verb(verbs, "server", "parties:server", "serve a spool on this machine", spool=False)
    server.add_argument("place", metavar="SPOOL", help="the folder")
    server.add_argument("-q", "--quiet", action="store_true", help="log to the spool only")
    for name, help in (
        ("worker", "run jobs of a spool until stopped"),
        ("pull", "run what there is, then end: for cron"),
    ):
        worker = _verb(verbs, name, f"parties:{name}", help, spool=False)
        worker.add_argument("place", metavar="SPOOL", help="a path, or user@host:path")
        worker.add_argument("--slots", type=int, metavar="N", help="jobs at once; default: cores")
        worker.add_argument("--name", metavar="NAME", help="this worker's name in the roster")
        worker.add_argument("--key", metavar="FILE", help="the private key that signs results")
        worker.add_argument("--tag", action="append", default=[], metavar="TAG", help="offer this tag")
        worker.add_argument("--nice", type=int, default=10, metavar="N", help="default 10")
        worker.add_argument("--roster", metavar="FILE", help="trust this roster, not the spool's")
        worker.add_argument("--max-jobs", type=int, metavar="N", help="claim no more than N jobs")
        worker.add_argument("--max-minutes", type=float, metavar="N", help="claim nothing after N minutes")
        if name == "pull":
            worker.add_argument("--jitter", type=float, default=0.0, metavar="SECONDS",
                                help="wait up to so long first, so that machines do not come at once")  # fmt: skip


def _showing_off(verbs: Adder) -> None:
    demo = _verb(verbs, "demo", "demo:demo", "a spool, a server, two slots, and 11^150+1", spool=False)
    demo.add_argument("place", nargs="?", default="spool", metavar="PATH", help="default: ./spool")
    factor = _verb(verbs, "factor", "demo:factor", "factor an integer by jobs through the spool")
    factor.add_argument("number", metavar="N", help="an integer or an expression: '11^150+1'")
    factor.add_argument("--width", type=int, default=0, metavar="N", help="jobs in flight")
    factor.add_argument("--local", action="store_true", help="in this process, without a spool")
    factor.add_argument("-q", "--quiet", action="store_true", help="print the factors only")
    _json(factor)
