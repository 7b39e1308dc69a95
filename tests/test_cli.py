"""The command line in real processes: help, exit codes with their sentences, and what verbs do."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from commands import COMMAND, Told, check_complaint, dsage, environment, powerless
from dsage_spool import errors
from dsage_spool.cli.main import EXIT_CODES, build_parser
from parties import BOUND, World, wait_until

HEAVY = {"paramiko", "rich", "sympy", "cloudpickle", "watchdog", "cryptography"}
LIVE = ("incoming", "queued", "running")
GATED = 'echo first; until [ -e "$0" ]; do sleep 0.02; done; echo last'


def verbs() -> list[str]:
    subparsers = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return list(subparsers[0].choices)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A spool with a server and a worker `desk`, for all tests that leave no trace in them."""
    made = World(tmp_path_factory.mktemp("shop"))
    made.server()
    made.worker("desk", "--slots", "2")
    yield made
    made.close()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A spool that nobody serves."""
    made = World(tmp_path_factory.mktemp("shelf"))
    yield made
    made.close()


def wait_for_state(world: World, job: str, state: str) -> None:
    wait_until(lambda: world.where(job) == [state], lambda: f"{state}: it is {world.where(job)}")


def started(world: World, *words: str) -> subprocess.Popen:
    """A command in the background; the test reads its pipes."""
    return subprocess.Popen(
        [*COMMAND, *words], cwd=world.home("alice"), env=environment(world), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


# -- help and version --------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", *verbs()])
def test_help_fits_a_terminal(shelf, verb):
    told = dsage(shelf, *verb.split(), "--help", COLUMNS="100")
    assert told.status == 0 and told.err == ""
    assert told.out.startswith("usage: dsage-spool")
    assert [line for line in told.out.splitlines() if len(line) > 100] == []


def test_help_tells_every_exit_status_there_is():
    told = {int(number) for number in re.findall(r"(?<![\w.])(\d+)  +\S", EXIT_CODES)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_status for kind in kinds if issubclass(kind, errors.SpoolError)}
    assert told | {70} == raised | {0, 130}  # 70: answers that never leave the code


def imported(world: World, *words: str) -> set[str]:
    """The heavy packages that a command has imported."""
    program = (
        "import sys\n"
        "from dsage_spool.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\n"
        "print('\\n' + ' '.join(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment(world), capture_output=True,
        text=True, check=True, timeout=BOUND,
    )  # fmt: skip
    return HEAVY & set(done.stdout.splitlines()[-1].split())


def test_the_version_costs_no_imports(shelf):
    assert imported(shelf, "--version") == set()
    assert re.fullmatch(r"dsage-spool \d+\.\d+\.\d+\n", dsage(shelf, "--version").out)


def test_a_look_at_a_local_spool_pays_for_neither_ssh_nor_algebra(shelf):
    assert imported(shelf, "status", "--json") <= {"rich", "cryptography"}
    assert imported(shelf, "status") <= {"rich", "cryptography"}


# -- exit 2: the command line ------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["status", "--nonsense"], "--nonsense"),
        (["no-such-verb"], "no-such-verb"),
        ([], "VERB"),
        (["submit"], "an expression, -f FILE, or -- COMMAND"),
        (["submit", "2+2", "--", "true"], "an expression, -f FILE, or -- COMMAND"),
        (["submit", "--"], "no command given"),
        (["submit", " "], "the source is empty"),
        (["submit", "-f", "not-there.py"], "not-there.py: No such file"),
        (["submit", "--time", "soon", "2+2"], "'soon': not an amount"),
        (["submit", "--priority", "high", "2+2"], "high"),
        (["status", "-s", "/"], "not a spool"),
        (["status", "-s", "no/such/folder"], "not a spool"),
        (["server", "somebody@host:path"], "runs on the machine where the spool lies"),
        (["init", "somebody@host:path"], "made on the machine where it shall lie"),
        (["submit", "--key", "no-such-key", "2+2"], "no-such-key: no such key"),
    ],
)
def test_a_wrong_command_line_exits_2(shelf, words, sentence):
    check_complaint(dsage(shelf, *words), 2, sentence)


def test_without_a_spool_it_exits_2(shelf):
    check_complaint(dsage(shelf, "status", DSAGE_SPOOL_SPOOL=""), 2, "no spool named", "--spool")


def test_an_unknown_key_in_the_settings_exits_2(shelf):
    folder = shelf.home("settings") / ".config/dsage-spool"
    folder.mkdir(parents=True)
    (folder / "config").write_text("colour = blue\n")
    check_complaint(dsage(shelf, "status", home="settings"), 2, "unknown key colour")


@pytest.mark.parametrize(
    "words",
    [["--attempts", "0"], ["--priority", "5000"], ["--batch", "two words"], ["--needs", "a b"]],
)
def test_an_option_out_of_bounds_exits_2_before_anything_is_sent(shelf, words):
    before = sorted((shelf.spool / "incoming").iterdir())
    check_complaint(dsage(shelf, "submit", *words, "2+2"), 2, words[0][2:])
    assert sorted((shelf.spool / "incoming").iterdir()) == before


# -- exit 1, 3, 4, 5, 124, 130: jobs -----------------------------------------------------------


def test_a_failed_command_exits_1(shop):
    check_complaint(dsage(shop, "submit", "--wait", "--", "false"), 1, "exited", "dsage-spool show")


def test_a_raised_exception_exits_1_and_shows_where(shop):
    job = dsage(shop, "submit", "[1, 2][7]").job
    told = dsage(shop, "result", job)
    check_complaint(told, 1, "IndexError", "\nhint: dsage-spool show ", "line 1")


def test_a_cancelled_job_exits_3(shop):
    job = dsage(shop, "submit", "--needs", "nobody-has-this", "2+2").job
    told = dsage(shop, "cancel", job)
    assert (told.status, told.out) == (0, f"{job} cancelled\n")
    assert dsage(shop, "result", job).status == 3
    assert dsage(shop, "wait", job).status == 3
    again = dsage(shop, "cancel", job)
    assert again.status == 1 and "has ended already: cancelled" in again.err


@pytest.mark.parametrize("verb", ["show", "log", "result", "wait", "cancel", "hold", "release"])
def test_an_unknown_job_exits_4(shelf, verb):
    check_complaint(dsage(shelf, verb, "zzzzzzzz"), 4, "no job with that in its name")


def test_what_can_be_no_name_exits_4(shelf):
    check_complaint(dsage(shelf, "show", "!?"), 4, "no job goes by that name")


@pytest.mark.parametrize("verb", ["show", "log", "result", "wait", "cancel", "hold"])
def test_a_full_name_of_no_job_exits_4(shelf, verb):
    told = dsage(shelf, verb, "20200101T000000-0000000000")
    assert told.status == 4 and "no such job in this spool" in told.err


def test_an_ambiguous_part_exits_4(shelf):
    first, second = dsage(shelf, "submit", "1").job, dsage(shelf, "submit", "2").job
    check_complaint(dsage(shelf, "show", "T"), 4, "jobs have it in their names", "type more")
    assert first[-6:] in dsage(shelf, "show", first[-6:]).out
    assert dsage(shelf, "show", "last", "--json").json["job"] == second


def test_last_without_any_job_exits_4(shelf):
    told = dsage(shelf, "show", "last", home="newcomer")
    assert told.status == 4 and "nothing was submitted to this spool from here" in told.err


def test_a_stranger_may_submit_and_is_rejected_with_5(shop):
    told = dsage(shop, "init", "own-spool", home="stranger")  # makes keys
    assert told.status == 0, told
    job = dsage(shop, "submit", "2+2", home="stranger").job
    told = dsage(shop, "result", job, home="stranger")
    assert told.status == 5 and "not in the roster" in told.err
    told = dsage(shop, "result", job, "--json", home="stranger")
    assert told.status == 5 and told.json["state"] == "rejected"


def test_a_job_that_goes_on_exits_124(shelf):
    job = dsage(shelf, "submit", "2+2").job
    check_complaint(dsage(shelf, "result", job, "--timeout", "0.1s"), 124, "has not ended yet")
    check_complaint(dsage(shelf, "wait", job, "--timeout", "0.1s"), 124, "have not ended yet")


def test_an_interrupted_wait_exits_130_and_the_job_goes_on(shelf):
    with started(shelf, "submit", "--wait", "2+2") as waiting:
        job = waiting.stderr.readline().split()[1]
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=BOUND)
    assert (waiting.returncode, out, err) == (130, "", "")
    assert shelf.where(job) == ["incoming"]


# -- exit 65, 69, 73-77: the world -------------------------------------------------------------


@pytest.mark.parametrize("verb", ["status", "submit 2+2", "server SPOOL", "pull SPOOL"])
def test_a_broken_spool_json_exits_65(world, verb):
    (world.spool / "spool.json").write_text('{"format": 1, "id"')
    words = [word.replace("SPOOL", str(world.spool)) for word in verb.split()]
    told = dsage(world, *words)
    assert told.status == 65 and "spool.json: not JSON" in told.err


@pytest.mark.parametrize("verb", ["status", "server SPOOL"])
def test_a_newer_spool_exits_76(world, verb):
    text = (world.spool / "spool.json").read_text()
    (world.spool / "spool.json").write_text(text.replace('"format": 1', '"format": 2'))
    words = [word.replace("SPOOL", str(world.spool)) for word in verb.split()]
    told = dsage(world, *words)
    assert told.status == 76 and "format 2, and this release reads format 1" in told.err


def test_a_second_server_exits_69(shop):
    check_complaint(dsage(shop, "server", str(shop.spool)), 69, "is running already")


def test_a_second_worker_of_one_name_exits_69_and_a_second_pull_keeps_quiet(shop):
    words = (str(shop.spool), "--name", "desk", "--slots", "1")
    check_complaint(dsage(shop, "worker", *words, home="desk"), 69, "worker desk", "--name")
    assert dsage(shop, "pull", *words, home="desk") == Told(0, "", "")


def tiny_disk() -> tuple[str, ...]:
    """How to get a private mount name space: as root, else in a user name space of one's own."""
    for way in (("unshare", "-m"), ("unshare", "-rm")):
        probe = [*way, "sh", "-c", "mount -t tmpfs none /mnt"]
        if shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0:
            return way
    pytest.skip("NOT TESTED: a full disk; nobody may mount a tmpfs here, also not `unshare -r`")


FULL = """
mount -t tmpfs -o size=1m none "$1" && cd "$1" && shift
"$@" init spool 2>/dev/null || exit 98
dd if=/dev/zero of=filler bs=4k count=1000 2>/dev/null
exec "$@" submit -s spool -f "$HOME/long.py"
"""


def test_a_full_disk_exits_73(shelf):
    way = tiny_disk()
    mount = shelf.root / "tiny"
    mount.mkdir()
    (shelf.home("full") / "long.py").write_text("'" + "x" * 100_000 + "'\n")
    done = subprocess.run(
        [*way, "sh", "-c", FULL, "sh", str(mount), *COMMAND], env=environment(shelf, "full"),
        capture_output=True, text=True, timeout=BOUND,
    )  # fmt: skip
    check_complaint(Told(done.returncode, done.stdout, done.stderr), 73, "no space left")


def test_a_failing_disk_exits_74(shelf):
    if not Path("/proc/self/mem").exists():
        pytest.skip("NOT TESTED: a read that ends with EIO; this system has no /proc/self/mem")
    told = dsage(shelf, "submit", "--key", "/proc/self/mem", "2+2")  # reading it from 0 is an EIO
    assert told.status == 74 and "/proc/self/mem: the key cannot be read: Input/output" in told.err


def test_a_host_that_is_away_exits_75(shelf):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
        place = f"ssh://nobody@127.0.0.1:{nobody.getsockname()[1]}/spool"
        check_complaint(dsage(shelf, "status", "-s", place), 75, "127.0.0.1", "refused")


def test_a_forbidden_drop_box_exits_77(world):
    for folder in ("tmp", "incoming"):
        (world.spool / folder).chmod(0o500)
    try:
        told = dsage(world, "submit", "2+2", before=powerless())
    finally:
        for folder in ("tmp", "incoming"):
            (world.spool / folder).chmod(0o700)
    check_complaint(told, 77, "permission denied", "ls -ld")


def test_a_key_that_others_can_read_exits_77(world):
    key = world.home("alice") / ".config/dsage-spool/id_ed25519"
    key.chmod(0o644)
    check_complaint(dsage(world, "submit", "2+2"), 77, "lets others at this key", "chmod 600")


# -- submit ------------------------------------------------------------------------------------


def test_the_forms_of_submit(shop):
    script = shop.home("alice") / "sum.py"
    script.write_text("total = 0\nfor n in range(5):\n    total += n\ntotal\n")
    forms = {
        "4": dsage(shop, "submit", "-w", "2+2"),
        "10": dsage(shop, "submit", "-w", "-f", "sum.py"),
        "1024": dsage(shop, "submit", "-w", "-f", "-", stdin="x = 2^10\nx\n"),
        "a b": dsage(shop, "submit", "-w", "--", "echo", "a b"),
        "--version -w": dsage(shop, "submit", "-w", "--", "echo", "--version", "-w"),
    }
    assert {text: told.out for text, told in forms.items()} == {text: f"{text}\n" for text in forms}
    assert {told.status for told in forms.values()} == {0}


def test_submit_prints_the_job_and_nothing_else(shop):
    told = dsage(shop, "submit", "-t", "a title", "--batch", "lot", "6*7")
    assert re.fullmatch(r"\d{8}T\d{6}-\w{10}\n", told.out) and told.err == ""
    assert dsage(shop, "result", told.job).out == "42\n"
    envelope = (shop.spool / "done" / told.job / "envelope").read_text()
    assert "title: a title\n" in envelope and "batch: lot\n" in envelope


def test_stdout_of_a_command_is_its_result_and_stderr_is_in_the_log(shop):
    job = dsage(shop, "submit", "--", "sh", "-c", "echo out; echo err >&2").job
    assert dsage(shop, "result", job).out == "out\n"
    assert dsage(shop, "log", job).out == "out\n"
    assert dsage(shop, "log", "--stderr", job).out == "err\n"


def test_wait_exits_as_the_worst_of_several_jobs_did(shop):
    good, bad = dsage(shop, "submit", "1").job, dsage(shop, "submit", "--", "false").job
    told = dsage(shop, "wait", good, bad)
    assert told.status == 1
    assert {line.split()[0]: line.split()[1] for line in told.out.splitlines()} == {
        good: "done",
        bad: "failed",
    }
    assert dsage(shop, "wait", good, good).status == 0


def test_json_is_exactly_one_value(shop):
    job = dsage(shop, "submit", "-w", "2+2").submitted
    told = {
        words: dsage(shop, *words.split())
        for words in (
            "status --json", f"show {job} --json", f"result {job} --json", f"wait {job} --json",
            "doctor --json", "factor --local --json 91",
        )
    }  # fmt: skip
    for words, answer in told.items():
        assert answer.status == 0, (words, answer)
        assert answer.json["version"] == 1, words
        assert answer.out.count("\n") == 1, words
    assert told[f"result {job} --json"].json["value"] == "4"
    assert told["factor --local --json 91"].json["factors"] == {"7": 1, "13": 1}


def test_a_failed_job_is_one_json_value_too(shop):
    told = dsage(shop, "result", dsage(shop, "submit", "--", "false").job, "--json")
    assert told.status == 1 and told.json["state"] == "failed" and told.json["error"]


# -- running jobs ------------------------------------------------------------------------------


def test_log_follows_a_running_command(shop):
    gate = shop.root / "gate-of-log"
    job = dsage(shop, "submit", "--", "sh", "-c", GATED, str(gate)).job
    with started(shop, "log", "-f", job) as log:
        assert log.stdout.readline() == "first\n"
        assert shop.where(job) == ["running"]
        gate.touch()
        rest, err = log.communicate(timeout=BOUND)
    assert (log.returncode, rest, err) == (0, "last\n", "")


def test_cancel_kills_a_running_job_with_all_its_processes(shop):
    pids = shop.root / "pids"
    script = 'sleep 1000 & echo $! > "$0.new"; echo $$ >> "$0.new"; mv "$0.new" "$0"; wait'
    job = dsage(shop, "submit", "--", "sh", "-c", script, str(pids)).job
    wait_until(pids.exists, "the job has told its processes")
    assert dsage(shop, "cancel", job) == Told(0, f"{job} cancelled\n", "")
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"{pid} is gone")
    assert dsage(shop, "result", job).status == 3


def test_a_time_limit_ends_a_job(shop):
    told = dsage(shop, "submit", "-w", "--time", "1s", "--", "sleep", "1000")
    check_complaint(told, 1, "time-limit")


def test_a_memory_limit_ends_a_job(shop):
    told = dsage(shop, "submit", "-w", "--memory", "400M", "len(bytearray(1 << 30))")
    check_complaint(told, 1, "memory-limit")
    told = dsage(shop, "submit", "-w", "--memory", "400M", "len(bytearray(1 << 20))")
    assert told.out == "1048576\n"


def test_status_says_who_lacks_the_python_of_a_job(shop):
    job = dsage(shop, "submit", "--needs", "python=cpython-9999", "2+2").job
    wait_for_state(shop, job, "queued")

    def why() -> str:
        rows = dsage(shop, "status", "--json").json["waiting"]
        return next((row["why"] for row in rows if row["job"] == job), "")

    said = wait_until(why, "the job stands in the queue")
    assert re.fullmatch(r"desk lacks python=cpython-9999 \(it has python=\S+\)", said)
    assert "desk lacks" in dsage(shop, "status", COLUMNS="200").out
    assert "desk lacks python=cpython-9999" in dsage(shop, "show", job, COLUMNS="200").out
    assert dsage(shop, "cancel", job).status == 0


# -- order and choice --------------------------------------------------------------------------


def test_priorities_and_predecessors_make_the_order(world):
    world.server()

    def submit(name: str, *options: str) -> str:
        note = f'echo {name} >> "{world.root}/order"'
        job = dsage(world, "submit", *options, "--", "sh", "-c", note).job
        wait_for_state(world, job, "queued")
        return job

    low = submit("low", "-p", "-5")
    submit("usual")
    last = submit("last", "-p", "100", "--after", low)
    submit("high", "-p", "5")
    world.worker("desk")
    wait_for_state(world, last, "done")
    assert (world.root / "order").read_text().split() == ["high", "usual", "low", "last"]


def test_a_job_after_a_failed_one_is_cancelled_with_the_reason(shop):
    bad = dsage(shop, "submit", "--", "false").job
    job = dsage(shop, "submit", "--after", bad, "2+2").job
    told = dsage(shop, "result", job)
    assert told.status == 3 and f"it was to run after {bad}, which is failed" in told.err


def test_a_held_job_waits_until_it_is_released(world):
    world.server()
    job = dsage(world, "submit", "6*7").job
    wait_for_state(world, job, "queued")
    assert dsage(world, "hold", job).status == 0
    wait_for_state(world, job, "held")
    pull = dsage(world, "pull", str(world.spool), "--name", "desk", "--slots", "1")
    assert (pull.status, pull.out, pull.err) == (0, "", "")
    assert world.where(job) == ["held"]
    assert "set it aside" in dsage(world, "show", job, COLUMNS="200").out
    assert dsage(world, "release", job).status == 0
    wait_for_state(world, job, "queued")
    assert dsage(world, "pull", str(world.spool), "--name", "desk", "--slots", "1").status == 0
    assert dsage(world, "result", job, "--timeout", "30s").out == "42\n"


def test_a_tag_is_offered_by_the_worker_that_runs_the_job(shop):
    job = dsage(shop, "submit", "--needs", "telescope", "2+2").job
    wait_for_state(shop, job, "queued")
    dome = shop.worker("dome", "--tag", "telescope", "--max-jobs", "1")
    assert dsage(shop, "result", job, "--timeout", "30s").out == "4\n"
    assert "worker: dome\n" in (shop.spool / "done" / job / "receipt").read_text()
    assert dome.end() == 0


# -- pipes -------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_error(shop):
    done = subprocess.run(
        f"{' '.join(COMMAND)} status --json | true; exit ${{PIPESTATUS[0]}}", shell=True,
        executable=shutil.which("bash"), env=environment(shop), capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_restart_of_the_command_finds_jobs_of_before(shop):
    job = dsage(shop, "submit", "-t", "found again", "7*6").job
    assert dsage(shop, "result", job[-8:]).out == "42\n"
    assert json.loads(dsage(shop, "show", job[-8:], "--json").out)["job"] == job
    assert os.path.isdir(shop.spool / "done" / job)
