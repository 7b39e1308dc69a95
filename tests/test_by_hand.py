"""What a person can do with `ls`, `cat`, `sha256sum` and OpenSSH alone."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from dsage_spool import layout
from parties import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a job that is done."""
    world = World(tmp_path_factory.mktemp("by-hand"))
    world.server(), world.worker()
    world.open_gate()
    job = world.submit_counted("by hand").id
    world.check_ended_once(job)
    yield world.spool / "done" / job
    world.close()


def verify(folder: Path, name: str, who: str, namespace: str, text: bytes | None = None):
    words = ["-Y", "verify", "-f", "../../roster", "-I", who, "-n", namespace, "-s", f"{name}.sig"]
    text = (folder / name).read_bytes() if text is None else text
    return subprocess.run(["ssh-keygen", *words], cwd=folder, input=text, capture_output=True)


def lines_of(path: Path) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in path.read_text().splitlines())


def test_a_job_is_verified_by_openssh_alone(folder):
    signers = {
        "envelope": (lines_of(folder / "envelope")["submitter"], "job@dsage-spool"),
        "receipt": (lines_of(folder / "receipt")["worker"], "result@dsage-spool"),
    }
    assert signers["envelope"][0] == "alice" and signers["receipt"][0] == "desk"
    for name, (who, namespace) in signers.items():
        good = verify(folder, name, who, namespace)
        assert good.returncode == 0, good.stderr
        assert f'Good "{namespace}" signature for {who}'.encode() in good.stdout
        other = "result@dsage-spool" if namespace.startswith("job") else "job@dsage-spool"
        assert verify(folder, name, who, other).returncode != 0
        text = (folder / name).read_bytes()
        assert verify(folder, name, who, namespace, text + b"priority: 9\n").returncode != 0


def test_the_readme_of_the_spool_tells_the_command_that_verifies(folder):
    readme = (folder.parent.parent / "README").read_text()
    [command] = [line.strip() for line in readme.splitlines() if "ssh-keygen -Y verify" in line]
    done = subprocess.run(
        ["sh", "-c", command.replace("NAME", "alice")], cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_the_hashes_in_the_texts_are_those_of_sha256sum(folder):
    def sha256sum(name: str) -> str:
        done = subprocess.run(["sha256sum", name], cwd=folder, capture_output=True, check=True)
        return done.stdout.decode().split()[0]

    envelope, receipt = lines_of(folder / "envelope"), lines_of(folder / "receipt")
    assert envelope["payload-sha256"] == sha256sum("payload")
    assert int(envelope["payload-size"]) == (folder / "payload").stat().st_size
    assert receipt["envelope-sha256"] == sha256sum("envelope")
    assert f"result={sha256sum('result')}" in receipt["hashes"].split()
    text = (folder / "envelope").read_bytes()
    assert receipt["envelope-sha256"] == hashlib.sha256(text).hexdigest()


def test_ls_shows_the_documented_names_only(folder):
    spool = folder.parent.parent
    readme = (spool / "README").read_text()
    shown = {path.name for path in spool.iterdir()}
    for name in shown - {"README", "server.lock"}:
        assert f"\n  {name}" in readme, f"README does not tell of {name}"
    job = {path.name for path in folder.iterdir()}
    told = layout.JOB_PARTS | layout.RESULT_PARTS | {layout.VERDICT, layout.lease_name(1)}
    assert job <= told
    assert job >= {"envelope", "envelope.sig", "payload", "receipt", "receipt.sig", "result", "verdict"}


def test_all_but_payload_and_result_is_plain_text(folder):
    for path in folder.iterdir():
        if path.name not in ("payload", "result"):
            text = path.read_text("ascii")
            assert text.endswith("\n") and text.replace("\n", "").isprintable(), path.name
    verdict = (folder / "verdict").read_text()
    assert " done: 'by hand' (attempt 1 of 3 by desk, " in verdict
