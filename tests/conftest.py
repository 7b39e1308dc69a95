"""Fixtures that several test modules share."""

from __future__ import annotations

import pytest

from parties import SHORT, World
from sshd import Sshd


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """One sshd on loopback for a whole test process. Do not stop or freeze it: make your own."""
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def world(tmp_path):
    """A spool with real parties; its lease does not end during a test. All it started is killed."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def hasty_world(tmp_path):
    """The same with a lease of two seconds."""
    made = World(tmp_path, lease=SHORT)
    yield made
    made.close()
