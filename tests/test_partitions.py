"""Real parties on hosts of their own: the lab that `make prove` torments for minutes, for a moment."""

from __future__ import annotations

import subprocess
import sys
from typing import Iterator

import pytest

from proof import partitions
from proof.hosts import Hosts, why_not

pytestmark = pytest.mark.once
LACKING = why_not()
needs_hosts = pytest.mark.skipif(bool(LACKING), reason=LACKING or "none")

LISTEN = """
import socket
server = socket.create_server(("", 4242))
print("listens", flush=True)
while True:
    server.accept()[0].close()
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 4242), 0.3).close()"
CLAIM_WITHOUT_LOCK = """
from dsage_spool.spool import dropping
plain = dropping.claim
def claim(files, run, wanted):
    plain(files, run, wanted)
    return [True] * len(wanted)
dropping.claim = claim
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts(["one", "two"])
    yield made
    made.close()


@needs_hosts
def test_a_host_that_is_cut_off_hears_nothing_and_comes_back(hosts):
    listen = [*hosts.inside("two"), sys.executable, "-c", LISTEN]
    connect = [*hosts.inside("one"), sys.executable, "-c", CONNECT, hosts.address("two")]

    def heard() -> bool:
        return subprocess.run(connect, capture_output=True).returncode == 0

    with subprocess.Popen(listen, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline() == b"listens\n" and heard()
            for ways in (("in", "out"), ("in",), ("out",)):
                hosts.cut("two", ways)
                assert not heard()
                hosts.heal("two")
                assert heard()
            assert any("4242" in line for line in hosts.listening("two"))
        finally:
            server.kill()


@needs_hosts
def test_a_lab_in_trouble_ends_every_job_once(tmp_path):
    assert partitions.lived(tmp_path, seed=3, faults=3, jobs=24) == []


@needs_hosts
def test_claims_without_a_lock_are_caught(tmp_path):
    (tmp_path / "bug").mkdir()
    (tmp_path / "bug" / "sitecustomize.py").write_text(CLAIM_WITHOUT_LOCK)
    found = partitions.lived(tmp_path, 4, 0, 24, {"PYTHONPATH": str(tmp_path / "bug")})
    assert any("was executed" in text for text in found)
