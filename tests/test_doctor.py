"""The doctor: every finding names the thing, and what to type; it leaves nothing behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from commands import Told, dsage, powerless
from dsage_spool import needs
from dsage_spool.address import parse_address
from dsage_spool.cli import checks
from dsage_spool.cli.checks import Case, file_system, kind_word, room_word
from dsage_spool.client.snapshot import Snapshot, WorkerRow
from parties import World

MOUNTS = """\
/dev/vda1 / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
host:/x /home nfs4 rw 0 0
/dev/sdb1 /home/with\\040space xfs rw 0 0
/dev/sdc1 /mnt ext4 rw 0 0
me@box: /mnt fuse.sshfs rw 0 0
"""


def findings(told: Told) -> dict[str, dict]:
    """By what was looked at; the worst of several on one thing."""
    rank = ("ok", "skip", "warn", "fail")
    found: dict[str, dict] = {}
    for check in told.json["checks"]:
        known = found.setdefault(check["what"], check)
        if rank.index(check["level"]) > rank.index(known["level"]):
            found[check["what"]] = check
    return found


def doctor(world: World, *words: str, **more) -> tuple[Told, dict[str, dict]]:
    told = dsage(world, "doctor", "--json", *words, **more)
    assert told.err == ""
    assert told.json["version"] == 1 and told.json["ok"] == (told.status == 0)
    found = findings(told)
    for check in found.values():
        assert bool(check["hint"]) == (check["level"] in ("warn", "fail")), check
    return told, found


def everything_in(world: World) -> set[Path]:
    return {path for path in world.spool.rglob("*") if path.parent.name != "log"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("served"))
    made.server()
    made.worker("desk")
    yield made
    made.close()


def test_a_healthy_spool_passes_and_keeps_no_probe(served):
    before = everything_in(served)
    told, found = doctor(served, DSAGE_SPOOL_WORKER="desk")
    assert told.status == 0
    levels = {what: check["level"] for what, check in found.items()}
    machine = {what: levels.pop(what) for what in ("file system", "room")}  # of the test's machine
    assert "fail" not in machine.values()
    assert set(levels.values()) == {"ok"}, found
    assert everything_in(served) == before


def test_for_people_it_is_a_line_for_each_finding(served):
    told = dsage(served, "doctor", "-s", "no/such/folder", home="newcomer")
    lines = told.out.splitlines()
    assert told.status == 1 and told.err == ""
    assert {line.split()[0] for line in lines} == {"ok", "warn", "fail", "hint:"}
    for before, line in zip(lines, lines[1:]):
        assert line.startswith(" " * 18) == before.startswith(("warn ", "fail "))
    last = [line for line in lines if line.startswith("fail")][-1]
    assert last.endswith("no/such/folder: no such folder")


def test_without_a_spool_it_tells_of_this_machine(served):
    told, found = doctor(served, DSAGE_SPOOL_SPOOL="")
    assert told.status == 1
    assert found["your key"]["level"] == "ok"
    assert "id_ed25519, SHA256:" in found["your key"]["detail"]
    assert found["spool"]["level"] == "fail" and "--spool" in found["spool"]["hint"]
    assert "server" not in found


def test_a_host_that_is_away_is_told_in_its_own_words(served):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening
        place = f"ssh://nobody@127.0.0.1:{nobody.getsockname()[1]}/spool"
        told, found = doctor(served, "-s", place)
    assert told.status == 1
    assert found["spool"]["level"] == "fail" and "refused" in found["spool"]["detail"]


def test_a_newcomer_is_told_how_to_get_in(served):
    told, found = doctor(served, home="newcomer")
    assert told.status == 1
    assert "dsage-spool init" in found["your key"]["hint"]
    assert dsage(served, "key", home="newcomer").status == 0  # makes a key
    told, found = doctor(served, home="newcomer")
    assert told.status == 1
    assert found["your key"]["level"] == "ok"
    assert found["your name"]["level"] == "fail" and "dsage-spool key" in found["your name"]["hint"]
    assert found["worker key"]["level"] == "warn"


def test_another_name_than_that_of_the_key_is_told(served):
    told, found = doctor(served, "--user", "bob")
    assert told.status == 1 and found["your name"]["hint"].startswith("--user alice")


def test_broken_settings_are_a_finding_too(served):
    folder = served.home("settings") / ".config/dsage-spool"
    folder.mkdir(parents=True)
    (folder / "config").write_text("colour = blue\n")
    told, found = doctor(served, home="settings")
    assert told.status == 1 and "unknown key colour" in found["settings"]["detail"]
    assert found["server"]["level"] == "ok"


def test_a_spool_that_nobody_serves_fails_with_what_to_start(world):
    told, found = doctor(world)
    assert told.status == 1
    assert found["server"]["hint"] == f"dsage-spool server {world.spool}"
    assert found["workers"]["hint"] == f"dsage-spool worker {world.spool}"


def test_a_server_that_is_silent_is_told_with_its_age(world):
    world.server().stop()
    old = (world.spool / "queue").stat().st_mtime - 1000
    os.utime(world.spool / "queue", (old, old))
    _, found = doctor(world)
    assert found["server"]["level"] == "fail" and "not heard for 1" in found["server"]["detail"]


def test_roster_lines_that_nobody_understands_are_told(world):
    with open(world.spool / "roster", "a") as roster:
        roster.write("mallory ssh-ed25519 !!!!\n")
    _, found = doctor(world)
    assert found["roster"]["level"] == "warn" and found["roster"]["detail"].startswith("line ")


def test_a_newer_spool_is_not_touched(world):
    text = (world.spool / "spool.json").read_text()
    (world.spool / "spool.json").write_text(text.replace('"format": 1', '"format": 2'))
    before = everything_in(world)
    told, found = doctor(world)
    assert told.status == 1 and "format 2" in found["format"]["detail"]
    assert "drop boxes" not in found and everything_in(world) == before


@pytest.mark.parametrize("box, level", [("incoming", "fail"), ("locks", "warn"), ("tmp", "fail")])
def test_a_drop_box_that_cannot_be_written_is_named(world, box, level):
    before = everything_in(world)
    (world.spool / box).chmod(0o500)
    try:
        _, found = doctor(world, before=powerless())
    finally:
        (world.spool / box).chmod(0o700)
    assert found["drop boxes"]["level"] == level
    assert "permission denied" in found["drop boxes"]["detail"]
    assert found["hard links"]["level"] == ("fail" if box == "tmp" else "ok")
    assert everything_in(world) == before


def test_hostile_text_of_a_spool_does_not_reach_the_terminal(world):
    with open(world.spool / "roster", "a") as roster:
        roster.write("mallory \x1b]52;c;aGk=\x07 AAAA\n")
    assert "\x1b" not in dsage(world, "doctor").out


# -- what no test machine can be relied on to have ---------------------------------------------


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/", "ext4"), ("/srv/spool", "ext4"), ("/tmp/spool", "tmpfs"), ("/tmpother", "ext4"),
        ("/home/me/spool", "nfs4"), ("/home/with space/spool", "xfs"), ("/mnt/spool", "fuse.sshfs"),
    ],
)  # fmt: skip
def test_the_file_system_is_that_of_the_longest_mount(path, kind):
    assert file_system(path, iter(MOUNTS.splitlines(True))) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuseblk", "tmpfs"])
def test_file_systems_that_are_no_place_for_a_spool_are_warned_of(kind):
    assert kind_word(kind).level == "warn" and kind_word(kind).hint
    assert kind_word("ext4").level == kind_word("xfs").level == kind_word("btrfs").level == "ok"


def test_little_room_is_warned_of():
    gigabyte = 10**9
    assert room_word("free", 100 * gigabyte, 1000 * gigabyte).level == "ok"
    assert room_word("free", 40 * gigabyte, 1000 * gigabyte).level == "warn"
    assert room_word("free", gigabyte // 2, gigabyte).level == "warn"
    assert room_word("inodes free", 1000, 2000).level == "ok"
    assert room_word("inodes free", 10, 2000).level == "warn"


class FarPlace:
    local = False


class FarFiles:
    """A host whose clock is so many seconds ahead."""

    durable = False

    def __init__(self, ahead: float) -> None:
        import time

        self.now = lambda: time.time() + ahead


def far_case(ahead: float) -> Case:
    case = Case(config=None, spec="me@box:/srv/spool", place=FarPlace(), files=FarFiles(ahead))
    assert parse_address(case.spec)
    return case


@pytest.mark.parametrize(
    "ahead, level", [(0, "ok"), (59, "ok"), (-59, "ok"), (90, "warn"), (-90, "warn")]
)
def test_clocks_that_are_apart_are_told(ahead, level):
    (word,) = checks.clocks(far_case(ahead))
    assert word.level == level


def test_a_host_without_flush_is_told():
    (word,) = checks.flushing(far_case(0))
    assert word.level == "warn" and "fsync@openssh.com" in word.hint


def test_what_cannot_be_seen_from_afar_says_where_to_look():
    for check, command in ((checks.room, "df -h"), (checks.disk_kind, "df -T")):
        (word,) = check(far_case(0))
        assert word.level == "skip" and f"ssh box, and there: {command} /srv/spool" in word.detail


@pytest.mark.parametrize(
    "offer, level", [(needs.python_token(), "ok"), ("python=cpython-9999", "warn")]
)
def test_whether_a_worker_has_this_python_is_told(offer, level):
    case = far_case(0)
    row = WorkerRow("desk", "box", 1, 0, 1.0, True, "CPython 3.99", (offer,))
    case.__dict__["shot"] = Snapshot("x", "y", 0.0, workers=[row])
    heard, same = checks.workers(case)
    assert (heard.level, same.level) == ("ok", level)
