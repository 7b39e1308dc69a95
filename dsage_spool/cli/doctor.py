"""`doctor`: look at this machine and at a spool, and say what to type where something is wrong.

    ok|warn|fail|skip  what  detail
                       hint: what to type

Exit status 0 unless something failed. Where no spool can be opened it tells what it can.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterable, Iterator

from .. import keys
from ..agent import AgentSigner
from ..client.connecting import open_place, own_roster
from ..config import Config, load_config
from ..errors import SpoolError, Unreachable
from ..signing import Roster
from ..spool import settings
from ..text import clean
from .checks import FAIL, IN_THE_SPOOL, OK, WARN, Case, Check, Word
from .making import worker_key_path
from .opening import asker

JSON_VERSION = 1


@dataclass(frozen=True)
class Finding:
    level: str
    what: str
    detail: str
    hint: str = ""


def doctor(arguments: Namespace) -> int:
    findings: list[Finding] = []
    case = Case(_bare_config(), arguments.user, arguments.key, arguments.spool)
    try:
        for finding in _examine(case, arguments.roster):
            findings.append(finding)
            if not arguments.json:
                _print(finding)
    finally:
        if case.place:
            case.place.close()
    fine = all(finding.level != FAIL for finding in findings)
    if arguments.json:
        checks = [asdict(finding) for finding in findings]
        value = {"version": JSON_VERSION, "spool": case.spec, "ok": fine, "checks": checks}
        print(json.dumps(value))
    return 0 if fine else 1


def _bare_config() -> Config:
    return Config(Path(os.path.expanduser("~")), os.environ, {})


def _examine(case: Case, roster: str | None) -> Iterator[Finding]:
    yield from _findings(ON_THIS_MACHINE, case)
    if own := case.config.get("roster", roster):
        yield from _findings([Check("own roster", lambda _: _own_roster(case.config, own))], case)
    yield from _findings(TO_THE_SPOOL, case)
    if case.settings is not None:
        yield from _findings(IN_THE_SPOOL, case)


def _findings(checks: Iterable[Check], case: Case) -> Iterator[Finding]:
    """What the checks say. Once the line is cut the rest would say only that again."""
    for check in checks:
        try:
            for word in check.look(case):
                yield Finding(word.level, check.what, clean(word.detail), clean(word.hint, 2000))
        except SpoolError as error:
            yield Finding(check.worst, check.what, clean(error.message), clean(error.hint, 2000))
            if isinstance(error, Unreachable) and case.settings is not None:
                return


def _print(finding: Finding) -> None:
    print(f"{finding.level:<5} {finding.what:<12} {finding.detail}", flush=True)
    if finding.hint:
        print(f"{'':<18} hint: {finding.hint}", flush=True)


# -- this machine ------------------------------------------------------------------------------


def _settings_file(case: Case) -> Iterator[Word]:
    case.config = load_config()
    path = case.config.config_folder / "config"
    yield Word(OK, f"{path}" if path.exists() else f"{path}: not there, and not needed")


def _key(case: Case) -> Iterator[Word]:
    config = case.config
    named = config.get("key", case.key) or None
    case.signer = keys.find_signer(named, config.home, config.environ, asker())
    yield Word(OK, f"{_where(case, named)}, {case.signer.public.fingerprint}")


def _where(case: Case, named: str | None) -> str:
    if isinstance(case.signer, AgentSigner):
        return f"held by the agent ({case.signer.comment})"
    places = keys.usual_places(case.config.home, case.config.environ)
    return named or next((str(place) for place in places if place.is_file()), "?")


def _worker_key(case: Case) -> Iterator[Word]:
    path = worker_key_path(case.config)
    if not path.exists():
        hint = "dsage-spool key --worker makes one, if this machine shall run jobs"
        yield Word(WARN, f"{path}: not there; submitting needs none", hint)
        return
    case.worker_signer = keys.load_signer(path)
    yield Word(OK, f"{path}, {case.worker_signer.public.fingerprint}")


def _own_roster(config: Config, path: str) -> Iterator[Word]:
    roster = Roster.parse((own_roster(config, path) or b"").decode("utf-8", "replace"))
    for problem in roster.problems:
        yield Word(WARN, f"{path}: {problem}", "correct or remove it: it trusts nobody")
    yield Word(OK, f"{path}: trusted instead of the spool's")


ON_THIS_MACHINE = (
    Check("settings", _settings_file),
    Check("your key", _key),
    Check("worker key", _worker_key, WARN),
)

# -- the way to the spool ----------------------------------------------------------------------


def _spool(case: Case) -> Iterator[Word]:
    case.spec = case.config.spool(case.named)
    place = case.place = open_place(case.spec, case.config)
    if place.local and not os.path.isdir(place.path):
        yield Word(FAIL, f"{place.path}: no such folder", f"dsage-spool init {place.path}")
        return
    case.files = place.connect()
    told = place.path if place.local else f"{case.spec}: its host key is on file, the login works"
    yield Word(OK, told)


def _format(case: Case) -> Iterator[Word]:
    if case.files is None:
        return
    found = settings.load(case.files, case.spec)
    case.settings = found
    yield Word(OK, f"version {settings.FORMAT}, spool {found.id}, lease {found.lease:g} s")


TO_THE_SPOOL = (Check("spool", _spool), Check("format", _format))
