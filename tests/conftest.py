"""Fixtures that several test modules share."""

from __future__ import annotations

import pytest

from sshd import Sshd


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    """One sshd on loopback for a whole test process. Do not stop or freeze it: make your own."""
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()
