"""docs/format.md is read here, and compared with the code and with a spool on a real disk."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import subprocess

import pytest

import format_doc
from crashing_files import Crash, CrashingFiles
from dsage_spool import layout, names, pack, queuefile, records, states, timing
from dsage_spool.files import LocalFiles
from dsage_spool.server import serve
from dsage_spool.signing import JOB_NAMESPACE, RESULT_NAMESPACE
from dsage_spool.spool import journal, settings
from dsage_spool.states import JOB_FOLDERS, State
from spool_world import LEASE, FakeClock, World

SPELLED = {"str": "text", "int": "int", "float": "float"}


def test_the_table_of_moves_is_the_one_in_the_code():
    code = {
        verb: (tuple(sorted(map(str, origins))), str(end))
        for verb, (origins, end) in states.MOVES.items()
    }
    told = {verb: (tuple(sorted(origins)), end) for verb, (origins, end) in format_doc.moves().items()}
    assert told == code


def test_the_matrix_has_a_row_for_each_state_and_a_column_for_each_file():
    assert set(format_doc.matrix()) == {str(state) for state in State} | {"tmp/server.*"}
    told = {file for row in format_doc.matrix().values() for name in row for file in format_doc.files_of(name)}
    parts = layout.JOB_PARTS | layout.RESULT_PARTS | {layout.VERDICT, layout.DROPPED}
    assert told == parts | {"lease.N", "late.N"}
    assert {sign for row in format_doc.matrix().values() for sign in row.values()} == set("+-?")


def test_the_row_of_incoming_is_what_a_job_file_holds():
    always = {
        file
        for name, sign in format_doc.matrix()["incoming"].items()
        for file in format_doc.files_of(name)
        if sign == "+"
    }
    assert always == layout.JOB_PARTS
    assert "?" not in format_doc.matrix()["incoming"].values()


@pytest.mark.parametrize("kind", [records.Envelope, records.Receipt, records.Lease, records.Worker, records.Request])
def test_the_fields_of_a_record_are_those_in_the_code(kind):
    told = format_doc.fields(kind.__name__.lower())
    assert list(told) == [spec.name.replace("_", "-") for spec in dataclasses.fields(kind)]
    for spec, (word, default) in zip(dataclasses.fields(kind), told.values()):
        assert word == SPELLED.get(spec.type, "list"), spec.name
        if spec.default is dataclasses.MISSING:
            assert default is None, spec.name
        elif isinstance(spec.default, (str, tuple)):
            assert default == "", spec.name
        else:
            assert float(default) == spec.default, spec.name


def test_all_words_of_the_records_are_told():
    text = format_doc.text()
    for word in (*records.KINDS, *records.OUTCOMES):
        assert f"`{word}`" in text


def test_each_example_of_a_name_is_one():
    example = format_doc.names()
    job = example["job"]
    assert names.is_job(job)
    assert names.parse_drop(example["drop"]) == job
    assert names.parse_request(example["request"])[0] == job
    for kind, ending in (("lock", "lock"), ("result", "result"), ("output", "out")):
        assert names.parse_claim(example[kind]) == names.Claimed(job, 1, ending)
    assert names.parse_run(example["run"])
    assert journal.is_name(example["journal"])
    assert set(example) == {"job", "drop", "request", "lock", "result", "output", "run", "journal"}
    assert names.ALPHABET in format_doc.text()


def test_the_tree_names_every_file_and_folder_of_a_spool():
    tree = format_doc.text().split("## 2 The tree")[1].split("```")[1]
    told = set(re.findall(r"[a-z.]+/|README|spool\.json|roster|queue(?= )|server\.lock", tree)) - {"spool/"}
    files = {layout.README, layout.SETTINGS, layout.ROSTER, layout.QUEUE, layout.SERVER_LOCK}
    assert told == {f"{folder}/" for folder in layout.FOLDERS} | files


def blocks(section: str) -> list[str]:
    body = re.split(rf"^## {section}.*$", format_doc.text(), flags=re.M)[1].split("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```", body, re.S | re.M)


def test_the_example_of_the_queue_file_is_understood_line_by_line():
    [example] = blocks("9 ")
    view = queuefile.parse(example.encode())
    assert (view.written, view.journal, view.server) == (1795389700, "20261122.3", "box 4711")
    assert view.counts["queued"] == 100000 and view.owners["alice"]["use"] == 311.2
    assert [row.title for row in (*view.running, *view.next)] == ["a title", "a title"]
    assert queuefile.finish(example.splitlines()[2:]) == example.encode()
    assert str(queuefile.LINES_PER_NEEDS) in format_doc.text()
    for name in (f"tmp/{serve.QUEUE_FILE}.0` to `.{serve.QUEUE_FILES - 1}`", f"`tmp/{serve.QUEUE_FILE}`"):
        assert name in format_doc.text()


def test_the_example_of_the_journal_is_understood_line_by_line():
    [example] = blocks("10 ")
    lines = [journal.parse(line) for line in example.splitlines()]
    assert [line.verb for line in lines] == ["server", "accept", "settle"]
    assert lines[2].note == "4 (attempt 1 of 3 by kiwi, 0.2 s)"


def test_the_head_of_a_pack_is_as_told():
    [example] = blocks("6 ")
    parts = {"envelope": b"e" * 512, "envelope.sig": b"s" * 294, "payload": b"p" * 1024}
    head = pack.join(parts).split(b"\n\n")[0].decode()
    assert example.startswith(head + "\n<empty line>")


def test_the_keys_of_the_settings_are_told():
    section = format_doc.text().split("## 8 ")[1].split("\n## ")[0]
    for name in ("format", *settings.Settings.__dataclass_fields__):
        assert f"`{name}`" in section
    assert JOB_NAMESPACE in section and RESULT_NAMESPACE in section


def test_the_times_of_a_lease_are_as_told():
    [[_, *rows]] = format_doc.tables_under("12 Times")
    times = timing.Times(120)
    told = [float(row[2].removesuffix(" s")) for row in rows]
    assert told == [times.heartbeat, times.give_up, times.watch, times.server_gap, times.lease]


def test_the_document_is_short_and_fits_a_page():
    lines = format_doc.text().splitlines()
    assert len(lines) <= 480
    assert [line for line in lines if len(line) > 110 and not line.startswith("|")] == []


# -- spools on a real disk ----------------------------------------------------------------------


def in_every_state(world: World) -> dict[str, str]:
    """Jobs that have come to every state, in more than one way; what each should be."""
    run = world.enrol()
    jobs = {name: world.submit() for name in (
        "queued", "held", "running", "done", "failed", "cancelled", "stopped", "late", "returned"
    )}  # fmt: skip
    jobs["buried"] = world.submit(attempts=1)
    rejected = world.submit(spool="somewhere else")
    world.server.one_pass()
    world.request(jobs["held"], "hold")
    world.request(jobs["cancelled"], "cancel")
    for name in ("running", "done", "failed", "stopped", "late", "returned"):
        world.claim(run, jobs[name])
    silent = world.enrol("fig")
    world.silent.add(silent)
    world.claim(silent, jobs["buried"])
    world.settle_down()
    world.deliver(jobs["done"], 1, run)
    world.deliver(jobs["late"], 1, run)
    world.deliver(jobs["failed"], 1, run, "raised")
    world.deliver(jobs["returned"], 1, run, "returned", parts={})
    world.request(jobs["stopped"], "cancel", nonce="22222222")
    world.settle_down()
    world.deliver(jobs["late"], 1, run, "raised")
    world.pass_time(LEASE * 1.3)
    ends = {"stopped": "cancelled", "late": "done", "returned": "queued", "buried": "failed"}
    return {job: ends.get(name, name) for name, job in jobs.items()} | {rejected: "rejected"}


def assert_matrix_holds(world: World) -> None:
    for state in JOB_FOLDERS:
        for name in world.files.names(str(state)):
            inside = set(world.files.names(f"{state}/{name}"))
            assert not format_doc.broken_rules(str(state), inside), (state, name, inside)


def on_disk(folder) -> tuple[World, CrashingFiles]:
    folder.mkdir(exist_ok=True)
    files = CrashingFiles(LocalFiles(folder))
    return World(LocalFiles(folder), FakeClock(), files), files


def test_jobs_in_every_state_obey_the_matrix(tmp_path):
    world, _ = on_disk(tmp_path)
    world.start_server()
    expected = in_every_state(world)
    assert {job: str(world.state(job)) for job in expected} == expected
    assert set(expected.values()) == {str(state) for state in JOB_FOLDERS}
    assert_matrix_holds(world)


def test_jobs_obey_the_matrix_whenever_the_server_is_stopped(tmp_path):
    """Stopped at random again and again, it brings all jobs to the same ends."""
    world, files = on_disk(tmp_path)
    world.start_server()
    chance = random.Random(5)

    def careless_pass() -> int:
        files.arm(chance.randrange(1, 40))
        try:
            return type(server()).one_pass(server())
        except Crash:
            files.arm(0)
            world.start_server()
            assert_matrix_holds(world)
            return 1
        finally:
            files.arm(0)

    def server():
        return world.server

    world.settle_down = lambda: [careless_pass() for _ in range(12)]
    expected = in_every_state(world)
    [careless_pass() for _ in range(10)]
    world.pass_time(LEASE * 1.3)
    assert {job: str(world.state(job)) for job in expected} == expected
    assert_matrix_holds(world)


def test_a_job_folder_can_be_verified_by_hand_as_the_document_says(tmp_path):
    world, _ = on_disk(tmp_path)
    world.start_server()
    job, run = world.submit(), world.enrol()
    world.settle_down()
    world.claim(run, job)
    world.deliver(job, 1, run)
    world.settle_down()
    commands = [line for block in blocks("14 ") for line in block.splitlines() if "-Y verify" in line]
    assert len(commands) == 2
    for command, name in zip(commands, ("alice", "kiwi")):
        done = subprocess.run(
            command.replace("NAME", name), shell=True, cwd=tmp_path / "done" / job,
            capture_output=True, text=True, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Good" in done.stdout
