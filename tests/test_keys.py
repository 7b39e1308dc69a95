"""Private keys on disk and in a real `ssh-agent`, checked with the real `ssh-keygen`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from dsage_spool import agent
from dsage_spool.agent import agent_signers
from dsage_spool.errors import BadFormat, DiskError, Refused, Unreachable, UsageError
from dsage_spool.keys import find_signer, load_signer, make_key
from dsage_spool.signing import JOB_NAMESPACE, PrivateKeySigner, line_for, sign

KEYGEN = shutil.which("ssh-keygen") or "ssh-keygen is not installed: install openssh-client"
MESSAGE = b"a job\n"
KINDS = ["ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa2048"]
NO_AGENT: dict[str, str] = {}


def _generate(kind: str):
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa2048":
        return rsa.generate_private_key(65537, 2048)
    curves = {"ecdsa256": ec.SECP256R1(), "ecdsa384": ec.SECP384R1(), "ecdsa521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind])


@pytest.fixture(scope="module")
def made():
    keys = {}

    def get(kind: str):
        if kind not in keys:
            keys[kind] = _generate(kind)
        return keys[kind]

    return get


def _save(path: Path, private, word: str = "", form=PrivateFormat.OpenSSH) -> Path:
    how = BestAvailableEncryption(word.encode()) if word else NoEncryption()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(private.private_bytes(Encoding.PEM, form, how))
    path.chmod(0o600)
    path.with_name(path.name + ".pub").write_text(PrivateKeySigner(private).public.text + "\n")
    return path


def _keygen_accepts(tmp_path: Path, signer) -> bool:
    (tmp_path / "roster").write_text(line_for("alice", signer.public, JOB_NAMESPACE) + "\n")
    (tmp_path / "sig").write_text(sign(signer, MESSAGE, JOB_NAMESPACE))
    files = ["-f", str(tmp_path / "roster"), "-s", str(tmp_path / "sig")]
    call = [KEYGEN, "-Y", "verify", *files, "-I", "alice", "-n", JOB_NAMESPACE]
    return subprocess.run(call, input=MESSAGE, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def environ():
    """The environment of a real ssh-agent of this module; its socket's path has to be short."""
    folder = tempfile.mkdtemp(prefix="agent")
    address = f"{folder}/s"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    # The agent says its address once it listens there.
    assert process.stdout and b"SSH_AUTH_SOCK" in process.stdout.readline()
    yield {"SSH_AUTH_SOCK": address, "PATH": os.environ["PATH"]}
    process.terminate()
    process.wait(10)
    process.stdout.close()
    shutil.rmtree(folder)


@pytest.fixture
def add(environ):
    """Gives keys to the agent, and takes all of them back after the test."""

    def to_agent(path: Path) -> None:
        subprocess.run(["ssh-add", "-q", str(path)], env=environ, check=True, capture_output=True)

    yield to_agent
    subprocess.run(["ssh-add", "-D"], env=environ, check=True, capture_output=True)


# --- files ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_key_is_opened_in_openssh_and_pem_form(kind, made, tmp_path):
    for form in (PrivateFormat.OpenSSH, PrivateFormat.PKCS8):
        signer = load_signer(_save(tmp_path / "key", made(kind), form=form), environ=NO_AGENT)
        assert signer.public == PrivateKeySigner(made(kind)).public
    assert _keygen_accepts(tmp_path, signer)


def test_a_key_made_by_ssh_keygen_with_a_passphrase_is_opened(tmp_path):
    path = tmp_path / "key"
    call = [KEYGEN, "-q", "-t", "ed25519", "-N", "open sesame", "-a", "1", "-f", str(path)]
    subprocess.run(call, check=True)
    signer = load_signer(path, lambda: "open sesame", NO_AGENT)
    assert _keygen_accepts(tmp_path, signer)


def test_an_encrypted_pem_key_is_opened(made, tmp_path):
    path = _save(tmp_path / "key", made("ecdsa256"), "word", PrivateFormat.PKCS8)
    assert _keygen_accepts(tmp_path, load_signer(path, lambda: "word", NO_AGENT))


@pytest.mark.parametrize("form", [PrivateFormat.OpenSSH, PrivateFormat.PKCS8])
def test_a_wrong_passphrase_is_refused(form, made, tmp_path):
    path = _save(tmp_path / "key", made("ed25519"), "word", form)
    with pytest.raises(Refused, match="the passphrase does not open it"):
        load_signer(path, lambda: "sword", NO_AGENT)


@pytest.mark.parametrize("ask", [None, lambda: ""])
def test_a_locked_key_without_passphrase_or_agent_is_refused(ask, made, tmp_path):
    path = _save(tmp_path / "key", made("ed25519"), "word")
    with pytest.raises(Refused) as caught:
        load_signer(path, ask, NO_AGENT)
    assert caught.value.hint == f"ssh-add {path}"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_can_reach_is_refused(mode, made, tmp_path):
    path = _save(tmp_path / "key", made("ed25519"))
    path.chmod(mode)
    with pytest.raises(Refused) as caught:
        load_signer(path, environ=NO_AGENT)
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_missing_key_is_an_error_of_usage(tmp_path):
    with pytest.raises(UsageError, match="no such key"):
        load_signer(tmp_path / "none")
    with pytest.raises(UsageError, match="no such key"):
        load_signer(tmp_path)


@pytest.mark.parametrize("body", ["", "AAAA", "!"])
def test_a_damaged_key_is_told(body, tmp_path):
    path = tmp_path / "key"
    path.touch(0o600)
    head, foot = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
    path.write_text(f"{head}\n{body}\n{foot}\n")
    with pytest.raises(BadFormat, match="not a private key"):
        load_signer(path, environ=NO_AGENT)


def test_a_file_too_big_for_a_key_is_not_read_on(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"x" * 100_000)
    with pytest.raises(BadFormat, match="too big"):
        load_signer(path, environ=NO_AGENT)


# --- the agent ---


def test_no_agent_means_no_keys(tmp_path):
    assert agent_signers(NO_AGENT) == []
    assert agent_signers({"SSH_AUTH_SOCK": str(tmp_path / "none")}) == []


def test_a_socket_left_behind_by_a_dead_agent_means_no_keys():
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/s"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(address)
        assert agent_signers({"SSH_AUTH_SOCK": address}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_agent_signs_and_ssh_keygen_accepts(kind, made, environ, add, tmp_path):
    add(_save(tmp_path / "key", made(kind)))
    [signer] = agent_signers(environ)
    assert signer.public == PrivateKeySigner(made(kind)).public
    assert _keygen_accepts(tmp_path, signer)


def test_keys_of_the_agent_come_in_its_order(made, environ, add, tmp_path):
    for kind in ("rsa2048", "ed25519"):
        add(_save(tmp_path / kind, made(kind)))
    assert [held.public.kind for held in agent_signers(environ)] == ["ssh-rsa", "ssh-ed25519"]


def test_a_key_the_agent_has_lost_is_refused(made, environ, add, tmp_path):
    path = _save(tmp_path / "key", made("ed25519"))
    add(path)
    [signer] = agent_signers(environ)
    subprocess.run(["ssh-add", "-d", str(path)], env=environ, check=True, capture_output=True)
    with pytest.raises(Refused, match="did not sign"):
        signer.sign_blob(b"data")


def test_a_locked_key_is_taken_from_the_agent_and_nobody_is_asked(made, environ, add, tmp_path):
    add(_save(tmp_path / "open", made("ed25519")))
    path = _save(tmp_path / "key", made("ed25519"), "word")
    for ask in (None, lambda: pytest.fail("asked for the passphrase")):
        assert _keygen_accepts(tmp_path, load_signer(path, ask, environ))


def test_a_public_key_stands_for_the_one_in_the_agent(made, environ, add, tmp_path):
    path = _save(tmp_path / "key", made("ecdsa256"))
    public = path.with_name("key.pub")
    with pytest.raises(Refused) as caught:
        load_signer(public, environ=environ)
    assert caught.value.hint == f"ssh-add {path}"
    add(path)
    assert _keygen_accepts(tmp_path, load_signer(public, environ=environ))


@pytest.fixture
def bad_agent():
    """An agent in a thread that gives the same answer to each question, or never one (None)."""
    folder, started = tempfile.mkdtemp(prefix="agent"), []

    def start(answer: bytes | None) -> dict[str, str]:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/s")
        listener.listen()
        thread = threading.Thread(target=_answer_always, args=(listener, answer))
        thread.start()
        started.append((listener, thread))
        return {"SSH_AUTH_SOCK": f"{folder}/s"}

    yield start
    for listener, thread in started:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()
    shutil.rmtree(folder)


def _answer_always(listener: socket.socket, answer: bytes | None) -> None:
    while True:
        try:
            line = listener.accept()[0]
        except OSError:
            return
        with line:
            if answer is not None:
                line.recv(4096)
                line.sendall(answer)
            else:
                while line.recv(4096):
                    pass


NONSENSE = [b"", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1\x63", b"\0\0\0\x09"]
NONSENSE.append(b"\0\0\0\5\x0c\0\0\0\1")  # one key is promised and none comes


@pytest.mark.parametrize("answer", NONSENSE)
def test_an_agent_that_answers_nonsense_is_told(answer, bad_agent):
    with pytest.raises(Unreachable, match="^ssh agent: no good answer"):
        agent_signers(bad_agent(answer))


def test_an_agent_that_never_answers_is_given_up(bad_agent, monkeypatch):
    monkeypatch.setattr(agent, "LIST_SECONDS", 0.05)
    with pytest.raises(Unreachable, match="timed out"):
        agent_signers(bad_agent(None))


def test_an_agent_that_fails_has_no_keys(bad_agent):
    assert agent_signers(bad_agent(b"\0\0\0\1\5")) == []


# --- which key ---


def test_keys_are_found_in_the_promised_order(made, environ, add, tmp_path):
    home, config = tmp_path / "home", tmp_path / "config"
    with pytest.raises(UsageError, match="none in the usual places"):
        find_signer(None, home, environ)
    add(_save(tmp_path / "agents", ed25519.Ed25519PrivateKey.generate()))
    steps = [
        (tmp_path / "agents", None, {}),
        (home / ".ssh/id_rsa", None, {}),
        (home / ".ssh/id_ecdsa", None, {}),
        (home / ".ssh/id_ed25519", None, {}),
        (home / ".config/dsage-spool/id_ed25519", None, {}),
        (config / "dsage-spool/id_ed25519", None, {"XDG_CONFIG_HOME": str(config)}),
        (tmp_path / "named", None, {"DSAGE_SPOOL_KEY": str(tmp_path / "named")}),
        (home / "given", "~/given", {}),
    ]
    more: dict[str, str] = {}
    for path, given, variables in steps:
        if not path.exists():
            kind = {"id_rsa": "rsa2048", "id_ecdsa": "ecdsa256"}.get(path.name)
            _save(path, made(kind) if kind else ed25519.Ed25519PrivateKey.generate())
        more.update(variables)
        found = find_signer(given, home, {**environ, **more})
        assert found.public.text in path.with_name(path.name + ".pub").read_text(), path


def test_a_named_key_that_is_missing_is_not_replaced_by_another(made, tmp_path):
    _save(tmp_path / ".ssh/id_ed25519", made("ed25519"))
    with pytest.raises(UsageError, match="no such key"):
        find_signer("/nonexistent/key", tmp_path, NO_AGENT)
    with pytest.raises(UsageError, match="no such key"):
        find_signer(None, tmp_path, {"DSAGE_SPOOL_KEY": "/nonexistent/key"})


# --- a new key ---


def test_a_new_key_is_private_and_openssh_can_use_it(tmp_path):
    path = tmp_path / "config" / "id_ed25519"
    signer = make_key(path, "alice at home")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    public = path.with_name("id_ed25519.pub").read_text()
    assert public == f"{signer.public.text} alice at home\n"
    told = subprocess.run([KEYGEN, "-y", "-f", str(path)], capture_output=True, check=True)
    assert told.stdout.decode().strip() == signer.public.text
    assert _keygen_accepts(tmp_path, signer)


def test_a_key_that_is_there_is_kept(tmp_path):
    path = tmp_path / "key"
    first = make_key(path, "one")
    path.with_name("key.pub").unlink()
    assert make_key(path, "two").public == first.public
    assert path.with_name("key.pub").read_text().endswith(" two\n")


def test_all_who_make_a_key_at_once_end_with_the_same_one(tmp_path):
    path, together = tmp_path / "new" / "key", threading.Barrier(8)

    def one(_: int) -> bytes:
        together.wait(10)
        return make_key(path, "").public.blob

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    assert sorted(os.listdir(path.parent)) == ["key", "key.pub"]


def test_a_key_that_the_disk_does_not_show_is_an_error_of_ours(tmp_path, monkeypatch):
    def failing(self):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "is_file", failing)
    with pytest.raises(DiskError) as told:
        find_signer(None, tmp_path, {})
    assert "cannot be looked at: Input/output error" in told.value.message and told.value.hint
