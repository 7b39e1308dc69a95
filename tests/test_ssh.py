"""SSH connections against real sshd processes on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from dsage_spool import known_hosts, ssh_config
from dsage_spool.address import Address, parse_address
from dsage_spool.errors import Refused, SpoolError, Unreachable, UsageError
from dsage_spool.files import LocalFiles
from dsage_spool.line import Liveness
from dsage_spool.places import open_files
from dsage_spool.ssh import Config, Connection
from sshd import SOON, Sshd, make_key, program


@pytest.fixture
def config(sshd, tmp_path):
    """Writes a client's config; `config(**options)` is a Config that reads it."""

    def write(text="", interval=0.5, **options):
        path = tmp_path / "config"
        path.write_text(text + sshd.client_config(**options))
        return Config(file=str(path), interval=interval, timeout=SOON)

    return write


@pytest.fixture
def own_sshd(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    server = Sshd(folder)
    yield server
    for pid in [server.process.pid, *server.sessions()]:
        os.kill(pid, signal.SIGCONT)
    server.stop()


def own_config(server, interval=0.5):
    return Config(file=str(server.config), interval=interval, timeout=SOON)


def connect(config, host="spoolhost", **address):
    return Connection.connect(Address(host, **address), config=config)


def works(config, host="spoolhost"):
    with connect(config, host) as line:
        return line.files("/").stat("").kind == "folder"


@pytest.mark.parametrize(
    "text, address",
    [
        ("alice@host:spool", Address("host", "spool", "alice")),
        ("host:/srv/spool", Address("host", "/srv/spool")),
        ("host:~/spool", Address("host", "~/spool")),
        ("host:", Address("host")),
        ("h.example.org:a:b", Address("h.example.org", "a:b")),
        ("[::1]:spool", Address("::1", "spool")),
        ("ssh://alice@host:2222/srv/x", Address("host", "/srv/x", "alice", 2222)),
        ("ssh://host", Address("host")),
        ("ssh://host/~/spool", Address("host", "~/spool")),
        ("ssh://[::1]:22/x", Address("::1", "/x", "", 22)),
        ("spool", None), ("/srv/spool", None), ("./a:b", None), ("a/b:c", None), ("~/x", None),
        (r"C:\x", None), ("C:/x", None), ("", None), (":x", None), ("a b:c", None),
    ],
)  # fmt: skip
def test_addresses_are_told_from_paths(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["-oProxyCommand=x:y", "ssh://-oProxyCommand=x/y", "ssh://h:port/x", "ssh:///x", "-l@h:x"],
)
def test_an_address_that_ssh_would_misread_is_refused(text):
    try:
        assert parse_address(text) is None and not text.startswith("ssh:")
    except UsageError:
        pass


def test_a_path_opens_local_files_without_importing_paramiko(tmp_path):
    code = (
        "import sys; from dsage_spool.places import open_files; "
        f"print(open_files({str(tmp_path)!r}).stat('').kind, 'paramiko' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "folder False\n"
    assert isinstance(open_files(str(tmp_path)), LocalFiles)


def test_an_address_opens_remote_files_and_closing_them_ends_the_connection(sshd, tmp_path):
    files = open_files(f"spoolhost:{tmp_path}", file=str(sshd.config))
    files.write("a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    files.close()
    with pytest.raises(Unreachable):
        files.stat("a")


def test_the_config_file_may_be_named_by_the_environment(sshd, monkeypatch):
    monkeypatch.setenv("DSAGE_SPOOL_SSH_CONFIG", str(sshd.config))
    assert Config().file == str(sshd.config)
    assert works(Config())


def test_without_the_ssh_program_the_config_is_read_all_the_same(sshd):
    assert works(Config(file=str(sshd.config), ssh=""))


def test_an_include_that_would_be_passed_over_is_refused(tmp_path):
    (tmp_path / "config").write_text("Host x\n  Include other\n")
    with pytest.raises(Refused, match="Include"):
        connect(Config(file=str(tmp_path / "config"), ssh=""), "x")


def test_a_broken_config_is_refused_with_what_ssh_says(tmp_path):
    (tmp_path / "config").write_text("NoSuchOption yes\n")
    with pytest.raises(Refused) as caught:
        connect(Config(file=str(tmp_path / "config")), "x")
    assert "ssh -G x" in caught.value.hint


class TestHostKeys:
    def test_an_unknown_one_is_refused_with_a_remedy(self, config, tmp_path):
        with pytest.raises(Refused) as caught:
            connect(config(UserKnownHostsFile=str(tmp_path / "none")))
        assert "unknown host key ssh-ed25519 SHA256:" in caught.value.message
        assert "ssh -p" in caught.value.hint

    def test_the_fingerprint_is_the_one_ssh_keygen_prints(self, sshd, config, tmp_path):
        command = [program("ssh-keygen"), "-lf", str(sshd.folder / "host_key.pub")]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        with pytest.raises(Refused, match=printed.split()[1].replace("+", r"\+")):
            connect(config(UserKnownHostsFile=str(tmp_path / "none")))

    def test_a_changed_one_is_refused_loudly(self, sshd, config, tmp_path):
        make_key(tmp_path / "other")
        kind, blob = (tmp_path / "other.pub").read_text().split()[:2]
        (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {kind} {blob}\n")
        with pytest.raises(Refused, match="THE HOST KEY HAS CHANGED"):
            connect(config(UserKnownHostsFile=str(tmp_path / "known")))

    def test_lines_of_other_kinds_break_nothing(self, sshd, config, tmp_path):
        make_key(tmp_path / "other")
        other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
        text = f"@cert-authority *.example.org {other}\n@revoked * {other}\ngarbage\n\n# note\n"
        text += "host ssh-ed25519 not*base64\n" + (sshd.folder / "known_hosts").read_text()
        (tmp_path / "known").write_text(text)
        assert works(config(UserKnownHostsFile=str(tmp_path / "known")))

    def test_a_revoked_one_is_refused_though_it_is_known(self, sshd, config, tmp_path):
        key = " ".join((sshd.folder / "host_key.pub").read_text().split()[:2])
        text = (sshd.folder / "known_hosts").read_text() + f"@revoked * {key}\n"
        (tmp_path / "known").write_text(text)
        with pytest.raises(Refused, match="revoked"):
            connect(config(UserKnownHostsFile=str(tmp_path / "known")))

    def test_hashed_names_are_found(self, sshd, config, tmp_path):
        shutil.copy(sshd.folder / "known_hosts", tmp_path / "known")
        command = [program("ssh-keygen"), "-q", "-H", "-f", str(tmp_path / "known")]
        subprocess.run(command, check=True, capture_output=True)
        assert "127.0.0.1" not in (tmp_path / "known").read_text()
        assert works(config(UserKnownHostsFile=str(tmp_path / "known")))

    def test_an_alias_is_the_name_on_file(self, sshd, config, tmp_path):
        text = (sshd.folder / "known_hosts").read_text().split(" ", 1)[1]
        (tmp_path / "known").write_text(f"thebox {text}")
        options = {"UserKnownHostsFile": str(tmp_path / "known"), "HostKeyAlias": "thebox"}
        assert works(config(**options))


@pytest.mark.parametrize(
    "hosts, name, matches",
    [
        ("host", "host", True), ("host", "hosts", False), ("HOST", "host", True),
        ("*.org,!bad.org", "good.org", True), ("*.org,!bad.org", "bad.org", False),
        ("[host]:2222", "[host]:2222", True), ("[host]:2222", "host", False),
        ("h?st", "host", True), ("[h]*", "[h]:5", True),
        ("|1|x|y", "host", False), ("|1|", "h", False),
    ],
)  # fmt: skip
def test_patterns_match_as_for_ssh(hosts, name, matches):
    key = known_hosts.HostKey("", hosts, "ssh-ed25519", b"")
    assert bool(known_hosts.of_host([key], name)) is matches


def test_a_hash_matches_its_name_only():
    salt = b"s" * 20
    digest = base64.b64encode(hmac.new(salt, b"host", hashlib.sha1).digest()).decode()
    key = known_hosts.HostKey("", f"|1|{base64.b64encode(salt).decode()}|{digest}", "k", b"")
    assert known_hosts.of_host([key], "host") and not known_hosts.of_host([key], "other")


def test_a_key_known_only_by_an_authority_is_not_known():
    key = known_hosts.HostKey("@cert-authority", "*", "k", b"ca")
    assert known_hosts.judge([key], "k", b"shown") == known_hosts.BY_AUTHORITY


class TestLogin:
    def test_a_wrong_key_is_refused_with_what_was_tried(self, config, tmp_path):
        make_key(tmp_path / "wrong")
        with pytest.raises(Refused) as caught:
            connect(config(IdentityFile=str(tmp_path / "wrong")))
        assert "login refused" in caught.value.message
        assert str(tmp_path / "wrong") in caught.value.message
        assert "authorized_keys" in caught.value.hint

    def test_without_any_key_the_remedy_is_to_make_one(self, config, tmp_path):
        with pytest.raises(Refused) as caught:
            connect(config(IdentityFile=str(tmp_path / "none")))
        assert "no key to try" in caught.value.message and "ssh-keygen" in caught.value.hint

    def test_an_encrypted_key_without_agent_is_passed_over_with_a_hint(self, config, tmp_path):
        make_key(tmp_path / "locked", passphrase="secret")
        with pytest.raises(Refused) as caught:
            connect(config(IdentityFile=str(tmp_path / "locked")))
        assert f"ssh-add {tmp_path / 'locked'}" in caught.value.hint

    @pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
    def test_keys_of_other_kinds_log_in(self, sshd, config, tmp_path, kind):
        make_key(tmp_path / "key", kind)
        with allowed(sshd, (tmp_path / "key.pub").read_text()):
            assert works(config(IdentityFile=str(tmp_path / "key")))

    def test_a_certificate_beside_the_key_logs_in(self, sshd, config, tmp_path):
        for name in ("ca", "key"):
            make_key(tmp_path / name)
        sign = [program("ssh-keygen"), "-q", "-s", str(tmp_path / "ca"), "-I", "x"]
        sign += ["-n", "worker1", str(tmp_path / "key.pub")]
        subprocess.run(sign, check=True, capture_output=True)
        authority = (tmp_path / "ca.pub").read_text()
        with allowed(sshd, f'cert-authority,principals="worker1" {authority}'):
            assert works(config(IdentityFile=str(tmp_path / "key")))

    def test_an_agent_logs_in_even_for_an_encrypted_key(self, sshd, config, tmp_path, agent):
        make_key(tmp_path / "key")
        subprocess.run(
            [program("ssh-add"), "-q", str(tmp_path / "key")],
            env={**os.environ, "SSH_AUTH_SOCK": agent}, check=True, capture_output=True,
        )  # fmt: skip
        rekey = [program("ssh-keygen"), "-q", "-p", "-N", "secret", "-f", str(tmp_path / "key")]
        subprocess.run(rekey, check=True, capture_output=True)
        with allowed(sshd, (tmp_path / "key.pub").read_text()):
            assert works(config(IdentityFile=str(tmp_path / "key"), IdentityAgent=agent))

    def test_an_agent_that_is_gone_is_named_and_no_obstacle(self, config, tmp_path):
        assert works(config(IdentityAgent=str(tmp_path / "none")))
        with pytest.raises(Refused) as caught:
            connect(config(IdentityAgent=str(tmp_path / "none"), IdentityFile="/none"))
        assert "agent" in caught.value.hint


class allowed:
    """One more line in a server's authorized_keys for a while."""

    def __init__(self, server, line):
        self.path, self.line = server.folder / "authorized_keys", line

    def __enter__(self):
        self.before = self.path.read_text()
        self.path.write_text(self.before + self.line)

    def __exit__(self, *_):
        self.path.write_text(self.before)


@pytest.fixture
def agent():
    # Not in tmp_path: the name of a socket has at most 107 bytes.
    folder = tempfile.mkdtemp()
    path = f"{folder}/agent"
    command = [program("ssh-agent"), "-D", "-a", path]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(path))
    yield path
    process.terminate()
    process.wait()
    shutil.rmtree(folder)


def wait_for(condition, bound=SOON):
    until = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.01)


class TestTheWayThere:
    def test_a_jump_leads_through_another_host(self, sshd, own_sshd, tmp_path):
        text = own_sshd.client_config("inner", ProxyJump="outer") + sshd.client_config("outer")
        (tmp_path / "config").write_text(text)
        before = set(sshd.sessions())
        with connect(Config(file=str(tmp_path / "config"), timeout=SOON), "inner") as line:
            assert line.files("/").stat("").kind == "folder"
            assert set(sshd.sessions()) - before and own_sshd.sessions()
        wait_for(lambda: not set(sshd.sessions()) - before)

    def test_two_jumps_lead_through_two_hosts(self, sshd, own_sshd, tmp_path):
        text = own_sshd.client_config("inner", ProxyJump="outer,again")
        text += sshd.client_config("outer") + sshd.client_config("again")
        (tmp_path / "config").write_text(text)
        assert works(Config(file=str(tmp_path / "config"), timeout=SOON), "inner")

    def test_each_hop_is_pinned(self, sshd, own_sshd, tmp_path):
        text = own_sshd.client_config("inner", ProxyJump="outer")
        text += sshd.client_config("outer", UserKnownHostsFile="/dev/null")
        (tmp_path / "config").write_text(text)
        with pytest.raises(Refused, match="unknown host key"):
            connect(Config(file=str(tmp_path / "config")), "inner")

    def test_a_jump_in_a_circle_ends(self, sshd, tmp_path):
        (tmp_path / "config").write_text(sshd.client_config("a", ProxyJump="a"))
        with pytest.raises(SpoolError):
            connect(Config(file=str(tmp_path / "config"), ssh=""), "a")

    def test_a_jump_to_a_dead_port_is_unreachable(self, sshd, tmp_path):
        text = sshd.client_config("inner", ProxyJump="outer", Port="1")
        text += sshd.client_config("outer")
        (tmp_path / "config").write_text(text)
        with pytest.raises(Unreachable):
            connect(Config(file=str(tmp_path / "config")), "inner")

    def test_a_proxy_command_is_the_line(self, sshd, config, tmp_path):
        relay = tmp_path / "relay.py"
        relay.write_text(RELAY)
        assert works(config(ProxyCommand=f"{sys.executable} {relay} %h %p"))

    def test_a_proxy_command_that_ends_is_unreachable(self, config):
        with pytest.raises(Unreachable):
            connect(config(ProxyCommand="exit 1"))


RELAY = """
import os, socket, sys, threading
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def out():
    while data := line.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=out, daemon=True).start()
while data := os.read(0, 65536):
    line.sendall(data)
"""


class TestFailures:
    def test_nobody_listening_is_unreachable(self, config):
        with pytest.raises(Unreachable, match="refused"):
            connect(config(Port="1"))

    def test_an_unknown_name_is_unreachable(self, config):
        with pytest.raises(Unreachable):
            connect(config(HostName="no-such-host.invalid"))

    def test_a_server_without_a_banner_is_unreachable_in_time(self, config):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            slow = config(Port=str(mute.getsockname()[1]))
            began = time.monotonic()
            with pytest.raises(Unreachable):
                connect(Config(file=slow.file, timeout=0.3))
            assert time.monotonic() - began < 5

    def test_a_line_dropped_at_once_is_unreachable_with_a_hint(self, config):
        with socket.create_server(("127.0.0.1", 0)) as full:
            threading.Thread(target=lambda: full.accept()[0].close()).start()
            with pytest.raises(Unreachable) as caught:
                connect(config(Port=str(full.getsockname()[1])))
        assert "MaxStartups" in caught.value.hint

    def test_nothing_stays_open_after_a_failure(self, config, tmp_path):
        make_key(tmp_path / "wrong")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(Refused):
                connect(config(IdentityFile=str(tmp_path / "wrong")))
        wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)

    def test_nothing_is_printed_for_a_failure(self, config, capfd):
        with pytest.raises(Unreachable):
            connect(config(Port="1"))
        assert capfd.readouterr() == ("", "")
        assert not logging.getLogger("paramiko").propagate

    def test_a_killed_server_is_noticed(self, own_sshd):
        with connect(own_config(own_sshd)) as line:
            files = line.files("/")
            for pid in own_sshd.sessions():
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(Unreachable):
                files.stat("")
            wait_for(lambda: not line.alive)
            with pytest.raises(Unreachable):
                line.files()

    def test_a_frozen_server_is_noticed_within_seconds(self, own_sshd):
        with connect(own_config(own_sshd)) as line:
            files = line.files("/")
            for pid in own_sshd.sessions():
                os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(Unreachable, match="no sign of life"):
                files.stat("")
            assert time.monotonic() - began < 10
            with pytest.raises(Unreachable):
                line.files()

    def test_an_idle_line_to_a_frozen_server_dies_too(self, own_sshd):
        with connect(own_config(own_sshd)) as line:
            for pid in own_sshd.sessions():
                os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: not line.alive)

    def test_a_living_line_is_left_alone(self, config):
        with connect(config(interval=0.05)) as line:
            files = line.files("/")
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                files.stat("")
            assert line.alive

    def test_a_host_without_sftp_is_refused_with_a_remedy(self, tmp_path):
        server = Sshd(tmp_path, Subsystem="other /bin/false")
        try:
            with connect(own_config(server)) as line, pytest.raises(Refused) as caught:
                line.files()
        finally:
            server.stop()
        assert "Subsystem sftp" in caught.value.hint

    def test_more_sessions_than_the_host_allows_are_refused(self, tmp_path):
        server = Sshd(tmp_path, MaxSessions="2")
        try:
            with connect(own_config(server)) as line:
                kept = [line.files("/"), line.files("/")]
                with pytest.raises(Refused, match="no further session"):
                    line.files("/")
                assert [files.stat("").kind for files in kept] == ["folder"] * 2
        finally:
            server.stop()

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # just this is what is tested
    def test_a_connection_is_refused_after_a_fork(self, config):
        with connect(config()) as line:
            child = os.fork()
            if not child:
                try:
                    line.files()
                except UsageError:
                    os._exit(7)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_two_threads_work_with_a_session_each(config, tmp_path):
    outcomes = []

    def work(line, name):
        files = line.files(str(tmp_path))
        rows = [(f"{name}{n}", name.encode()) for n in range(50)]
        files.many("write", rows)
        outcomes.append(files.many("read", [(path, 9) for path, _ in rows]))
        files.close()

    with connect(config()) as line:
        threads = [threading.Thread(target=work, args=(line, name)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == [[b"a"] * 50, [b"b"] * 50]


class _FakeTransport:
    """Answers keepalives until `answers` are used up."""

    def __init__(self, answers):
        self.answers, self.active, self.closed = answers, True, threading.Event()

    def is_active(self):
        return self.active

    def global_request(self, kind, wait):
        self.answers -= 1
        if self.answers < 0:
            self.closed.wait(SOON)

    def close(self):
        self.active = False
        self.closed.set()


def test_three_missed_keepalives_end_a_line():
    transport = _FakeTransport(answers=2)
    began = time.monotonic()
    liveness = Liveness(transport, 0.05)
    assert transport.closed.wait(SOON)
    assert time.monotonic() - began >= 0.15
    assert liveness.reason.startswith("no sign of life")


def test_tokens_and_homes_in_a_config_are_expanded():
    settings = ssh_config.read_settings(
        "hostname box\nport 2222\nidentityfile ~/k_%h_%r\nproxycommand nc %h %p %%\n"
        "userknownhostsfile ~/a /b\nidentityagent none\nconnecttimeout 4\nidentitiesonly yes\n"
    )
    login = ssh_config.login_from(settings, Address("alias", user="u"))
    home = os.path.expanduser("~")
    assert login.identity_files == (f"{home}/k_box_u",)
    assert login.proxy_command == "nc box 2222 %"
    assert login.known_hosts == (f"{home}/a", "/b")
    assert (login.agent, login.timeout, login.identities_only) == ("", 4.0, True)
