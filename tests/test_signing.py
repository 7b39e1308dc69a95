"""Signatures and rosters, compared with the real `ssh-keygen` in both directions."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dsage_spool import signing, sshkey
from dsage_spool.errors import BadFormat, BadSignature, Refused, UsageError
from dsage_spool.signing import (
    JOB_NAMESPACE,
    RESULT_NAMESPACE,
    PrivateKeySigner,
    PublicKey,
    Roster,
    line_for,
    parse_signature,
    sign,
)
from dsage_spool.sshkey import wire_integer, wire_string

KEYGEN = shutil.which("ssh-keygen") or "ssh-keygen is not installed: install openssh-client"
NOW = 1_800_000_000
SECOND = timedelta(seconds=1)
MESSAGE = b"spool: 1\ntitle: factor\n"


def _generate(kind: str):
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    curves = {"ecdsa256": ec.SECP256R1(), "ecdsa384": ec.SECP384R1(), "ecdsa521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind])


KINDS = ["ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa2048", "rsa3072"]


@pytest.fixture(scope="module")
def made():
    """Private keys by kind, each made once and only when asked for."""
    keys = {}

    def get(kind: str):
        if kind not in keys:
            keys[kind] = _generate(kind)
        return keys[kind]

    return get


@pytest.fixture(scope="module")
def alice(made) -> PrivateKeySigner:
    return PrivateKeySigner(made("ed25519"))


@pytest.fixture(scope="module")
def roster(alice) -> Roster:
    return Roster.parse(line_for("alice", alice.public, JOB_NAMESPACE, "alice at home"))


def _keygen_says(
    tmp_path: Path, roster: str, who: str, space: str, text: str, *options: str
) -> bool:
    (tmp_path / "roster").write_text(roster)
    (tmp_path / "sig").write_text(text)
    files = ["-f", str(tmp_path / "roster"), "-s", str(tmp_path / "sig")]
    call = [KEYGEN, "-Y", "verify", *files, "-I", who, "-n", space, *options]
    return subprocess.run(call, input=MESSAGE, capture_output=True).returncode == 0


def _we_say(roster: str, who: str, space: str, text: str, now: float = NOW) -> bool:
    try:
        Roster.parse(roster).verify(MESSAGE, text, who, space, now)
    except BadSignature:
        return False
    return True


def _keygen_signs(tmp_path: Path, private, namespace: str, message: bytes, *options: str) -> str:
    path = tmp_path / "key"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    call = [KEYGEN, "-Y", "sign", "-f", str(path), "-n", namespace, *options]
    return subprocess.run(call, input=message, capture_output=True, check=True).stdout.decode()


# --- both ways with OpenSSH ---


@pytest.mark.parametrize("kind", KINDS)
def test_ssh_keygen_accepts_what_we_sign(kind, made, tmp_path):
    signer = PrivateKeySigner(made(kind))
    line = line_for("alice", signer.public, JOB_NAMESPACE)
    text = sign(signer, MESSAGE, JOB_NAMESPACE)
    assert _keygen_says(tmp_path, line, "alice", JOB_NAMESPACE, text)
    assert not _keygen_says(tmp_path, line, "bob", JOB_NAMESPACE, text)
    assert not _keygen_says(tmp_path, line, "alice", RESULT_NAMESPACE, text)


@pytest.mark.parametrize("kind", KINDS)
def test_we_accept_what_ssh_keygen_signs(kind, made, tmp_path):
    signer = PrivateKeySigner(made(kind))
    roster = Roster.parse(line_for("alice", signer.public, JOB_NAMESPACE))
    text = _keygen_signs(tmp_path, made(kind), JOB_NAMESPACE, MESSAGE)
    assert roster.verify(MESSAGE, text, "alice", JOB_NAMESPACE, NOW) == signer.public
    with pytest.raises(BadSignature, match="has not signed these bytes"):
        roster.verify(MESSAGE + b"x", text, "alice", JOB_NAMESPACE, NOW)


def test_an_ed25519_signature_is_byte_for_byte_the_one_of_ssh_keygen(made, alice, tmp_path):
    theirs = _keygen_signs(tmp_path, made("ed25519"), "file", MESSAGE)
    assert sign(alice, MESSAGE, "file") == theirs


def test_an_rsa_signature_is_byte_for_byte_the_one_of_ssh_keygen(made, tmp_path):
    signer = PrivateKeySigner(made("rsa2048"))
    theirs = _keygen_signs(tmp_path, made("rsa2048"), "file", MESSAGE)
    assert sign(signer, MESSAGE, "file") == theirs


def test_a_signature_over_a_sha256_digest_is_accepted(made, alice, roster, tmp_path):
    options = ("-O", "hashalg=sha256")
    text = _keygen_signs(tmp_path, made("ed25519"), JOB_NAMESPACE, MESSAGE, *options)
    assert parse_signature(text).hash_name == "sha256"
    assert roster.verify(MESSAGE, text, "alice", JOB_NAMESPACE, NOW) == alice.public


def test_the_empty_message_can_be_signed(alice, roster):
    text = sign(alice, b"", JOB_NAMESPACE)
    assert roster.verify(b"", text, "alice", JOB_NAMESPACE, NOW) == alice.public


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_and_text_are_those_of_ssh_keygen(kind, made, tmp_path):
    public = PrivateKeySigner(made(kind)).public
    path = tmp_path / "key.pub"
    path.write_text(f"{public.text} a comment\n")
    told = subprocess.run([KEYGEN, "-lf", str(path)], capture_output=True, check=True)
    assert told.stdout.decode().split()[1] == public.fingerprint
    assert PublicKey.parse(path.read_text()) == public
    assert PublicKey(public.blob).text == public.text


class SoftToken:
    """What a FIDO token does when OpenSSH asks it to sign (PROTOCOL.u2f), in software."""

    def __init__(self, flags: int = 1) -> None:
        self.key, self.flags = ed25519.Ed25519PrivateKey.generate(), flags
        raw = self.key.public_key().public_bytes_raw()
        parts = (b"sk-ssh-ed25519@openssh.com", raw, b"ssh:")
        self.public = PublicKey(b"".join(map(wire_string, parts)))

    def sign_blob(self, data: bytes) -> bytes:
        told = bytes([self.flags]) + (7).to_bytes(4, "big")
        hashed = hashlib.sha256(b"ssh:").digest() + told + hashlib.sha256(data).digest()
        kind = wire_string(b"sk-ssh-ed25519@openssh.com")
        return kind + wire_string(self.key.sign(hashed)) + told


def test_a_token_signature_is_accepted_here_and_by_ssh_keygen(tmp_path):
    token = SoftToken()
    line = line_for("alice", token.public, JOB_NAMESPACE)
    text = sign(token, MESSAGE, JOB_NAMESPACE)
    assert _we_say(line, "alice", JOB_NAMESPACE, text)
    assert _keygen_says(tmp_path, line, "alice", JOB_NAMESPACE, text)


def test_a_token_that_nobody_touched_is_refused():
    token = SoftToken(flags=0)
    text = sign(token, MESSAGE, JOB_NAMESPACE)
    with pytest.raises(BadSignature, match="was not touched"):
        parse_signature(text).check(token.public, MESSAGE)


# --- tampering ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_tampered_byte_of_the_message_is_refused(kind, made):
    signer = PrivateKeySigner(made(kind))
    roster = Roster.parse(line_for("alice", signer.public, JOB_NAMESPACE))
    text = sign(signer, MESSAGE, JOB_NAMESPACE)
    for at in range(len(MESSAGE)):
        forged = MESSAGE[:at] + bytes([MESSAGE[at] ^ 1]) + MESSAGE[at + 1 :]
        with pytest.raises(BadSignature):
            roster.verify(forged, text, "alice", JOB_NAMESPACE, NOW)


def _armored(blob: bytes) -> str:
    return f"{signing._BEGIN}\n{base64.b64encode(blob).decode()}\n{signing._END}\n"


def _blob_of(text: str) -> bytes:
    return base64.b64decode("".join(text.splitlines()[1:-1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flip", [0x01, 0x80])
def test_a_tampered_byte_of_the_signature_is_refused(kind, flip, made):
    signer = PrivateKeySigner(made(kind))
    roster = Roster.parse(line_for("alice", signer.public, JOB_NAMESPACE))
    blob = _blob_of(sign(signer, MESSAGE, JOB_NAMESPACE))
    assert roster.verify(MESSAGE, _armored(blob), "alice", JOB_NAMESPACE, NOW) == signer.public
    for at in range(len(blob)):
        forged = _armored(blob[:at] + bytes([blob[at] ^ flip]) + blob[at + 1 :])
        with pytest.raises(BadSignature):
            roster.verify(MESSAGE, forged, "alice", JOB_NAMESPACE, NOW)


def test_a_tampered_character_of_the_armor_is_refused(alice, roster):
    text = sign(alice, MESSAGE, JOB_NAMESPACE)
    for at in range(len(text)):
        for other in "Az=\x00":
            if text[at] == other:
                continue
            with pytest.raises(BadSignature):
                forged = text[:at] + other + text[at + 1 :]
                roster.verify(MESSAGE, forged, "alice", JOB_NAMESPACE, NOW)


def test_a_signature_cut_short_anywhere_is_refused(alice, roster):
    blob = _blob_of(sign(alice, MESSAGE, JOB_NAMESPACE))
    for size in range(len(blob)):
        with pytest.raises(BadSignature):
            roster.verify(MESSAGE, _armored(blob[:size]), "alice", JOB_NAMESPACE, NOW)


@pytest.mark.parametrize("text", ["", "\n", "hello", "x" * 20_000, signing._BEGIN, _armored(b"")])
def test_what_is_not_a_signature_is_refused_with_a_sentence(text):
    with pytest.raises(BadSignature, match="^signature: "):
        parse_signature(text)


def test_bytes_after_the_end_of_a_signature_are_refused(alice):
    blob = _blob_of(sign(alice, MESSAGE, JOB_NAMESPACE))
    with pytest.raises(BadSignature, match="follow its end"):
        parse_signature(_armored(blob + b"\0"))


def test_line_ends_of_windows_are_accepted(alice, roster):
    text = sign(alice, MESSAGE, JOB_NAMESPACE).replace("\n", "\r\n")
    assert roster.verify(MESSAGE, text, "alice", JOB_NAMESPACE, NOW) == alice.public


def test_an_rsa_signature_with_sha1_is_refused(made):
    signer = PrivateKeySigner(made("rsa2048"))
    blob = signer.sign_blob(b"data")
    old = wire_string(b"ssh-rsa") + blob[len(wire_string(b"rsa-sha2-512")) :]
    signer.public.verify(blob, b"data")
    with pytest.raises(BadSignature, match="too weak"):
        signer.public.verify(old, b"data")


def test_an_rsa_key_below_2048_bits_is_refused():
    with pytest.raises(Refused, match="1024 bits"):
        PrivateKeySigner(rsa.generate_private_key(65537, 1024))


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 !!!!", "ssh-ed25519 AAAA x"])
def test_what_is_not_a_public_key_is_refused(text):
    with pytest.raises(BadFormat, match="^public key: "):
        PublicKey.parse(text)


def test_a_public_key_that_names_another_kind_is_refused(alice):
    with pytest.raises(BadFormat, match="but is ssh-ed25519"):
        PublicKey.parse(alice.public.text.replace("ssh-ed25519", "ssh-rsa"))


def test_a_point_off_the_curve_is_refused(made):
    blob = PrivateKeySigner(made("ecdsa256")).public.blob
    with pytest.raises(BadFormat):
        PublicKey(blob[:-1] + bytes([blob[-1] ^ 1]))


def test_a_key_of_an_unknown_kind_is_refused():
    with pytest.raises(Refused, match="'ssh-dss' is not supported"):
        PublicKey(wire_string(b"ssh-dss") + wire_string(b"x"))


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 2**255, 2**256 - 1])
def test_wire_integers_read_back_as_they_were_written(number):
    reader = sshkey.WireReader(wire_integer(number))
    assert reader.integer() == number
    reader.end()


@pytest.mark.parametrize("raw", [b"\0", b"\0\x01", b"\x80", b"\xff\xff"])
def test_a_padded_or_negative_wire_integer_is_refused(raw):
    with pytest.raises(ValueError):
        sshkey.WireReader(wire_string(raw)).integer()


# --- which check failed ---


def test_the_message_says_which_check_failed(alice, made, roster):
    text = sign(alice, MESSAGE, JOB_NAMESPACE)
    stranger = sign(PrivateKeySigner(made("ecdsa256")), MESSAGE, JOB_NAMESPACE)
    other = sign(alice, MESSAGE, RESULT_NAMESPACE)
    mark = alice.public.fingerprint

    def told(*call) -> str:
        with pytest.raises(BadSignature) as caught:
            roster.verify(*call, NOW)
        return caught.value.message

    assert told(MESSAGE, stranger, "alice", JOB_NAMESPACE).endswith(": not in the roster")
    by_bob = f"key {mark}: in the roster, but not for 'bob'"
    assert told(MESSAGE, text, "bob", JOB_NAMESPACE) == by_bob
    assert "made for namespace 'job@dsage-spool'" in told(MESSAGE, text, "alice", RESULT_NAMESPACE)
    assert told(MESSAGE, other, "alice", RESULT_NAMESPACE) == (
        f"key {mark}: not in the roster for 'alice' in namespace result@dsage-spool"
    )
    assert "has not signed these bytes" in told(b"other", text, "alice", JOB_NAMESPACE)


def test_a_message_never_carries_control_characters(alice, roster):
    text = sign(alice, MESSAGE, "a\x1b]52;c;x\x07\u202e")
    with pytest.raises(BadSignature) as caught:
        roster.verify(MESSAGE, text, "alice\x1b[2J", JOB_NAMESPACE, NOW)
    assert caught.value.message.isprintable()


def test_an_empty_namespace_cannot_be_signed(alice):
    with pytest.raises(UsageError):
        sign(alice, MESSAGE, "")


# --- rosters, case by case with ssh-keygen ---

LINES = {
    "plain": ("alice {key}", "alice", True),
    "comment": ("# people\n\nalice {key} alice at home\n", "alice", True),
    "another name": ("bob {key}", "alice", False),
    "one of several": ("bob,alice,carol {key}", "alice", True),
    "star": ("* {key}", "alice", True),
    "star behind": ("al* {key}", "alice", True),
    "star within": ("a*c? {key}", "alice", True),
    "question mark": ("alic? {key}", "alice", True),
    "one question mark too many": ("alice? {key}", "alice", False),
    "question mark is one byte": ("zo? {key}", "zoë", False),
    "stars that cross": ("*a*b*c* {key}", "xaabbxc", True),
    "stars that do not": ("*a*b*c*d {key}", "xaabbxc", False),
    "case counts": ("Alice {key}", "alice", False),
    "refused by name": ("*,!alice {key}", "alice", False),
    "refused first": ("!alice,* {key}", "alice", False),
    "another is refused": ("*,!bob {key}", "alice", True),
    "only a refusal": ("!bob {key}", "alice", False),
    "refused by pattern": ("*,!*@evil {key}", "alice@evil", False),
    "quoted": ('"alice smith" {key}', "alice smith", True),
    "quoted list": ('"alice smith,bob" {key}', "bob", True),
    "quoted hash": ('"#alice" {key}', "#alice", True),
    "unquoted hash": ("#alice {key}", "#alice", False),
    "indented": (" \talice\t{key}", "alice", True),
    "namespace": ('alice namespaces="job@dsage-spool" {key}', "alice", True),
    "namespace in a list": ('alice namespaces="file,job@*" {key}', "alice", True),
    "other namespace": ('alice namespaces="file,result@*" {key}', "alice", False),
    "namespace refused": ('alice namespaces="*,!job@*" {key}', "alice", False),
    "no namespace": ('alice namespaces="" {key}', "alice", False),
    "option in capitals": ('alice NameSpaces="file" {key}', "alice", False),
    "two namespaces": ('alice namespaces="file",namespaces="*" {key}', "alice", False),
    "unknown option": ("alice no-touch {key}", "alice", False),
    "unknown option with value": ('alice from="*" {key}', "alice", False),
    "unquoted value": ("alice namespaces=* {key}", "alice", False),
    "unended quote": ('alice namespaces="* {key}', "alice", False),
    "comma at the end": ('alice namespaces="*", {key}', "alice", False),
    "authority": ("alice cert-authority {key}", "alice", False),
    "authority and namespace": ('alice cert-authority,namespaces="*" {key}', "alice", False),
    "authority, then the key": ("alice cert-authority {key}\nalice {key}", "alice", True),
    "second line": ("bob {key}\nalice {key}", "alice", True),
    "key cut short": ("alice {short}", "alice", False),
    "no key": ("alice", "alice", False),
    "after, past": ('alice valid-after="20200101" {key}', "alice", True),
    "after, future": ('alice valid-after="20400101" {key}', "alice", False),
    "before, past": ('alice valid-before="20200101Z" {key}', "alice", False),
    "before, future": ('alice valid-before="20400101Z" {key}', "alice", True),
    "within": ('alice valid-after="202001011200",valid-before="20400101" {key}', "alice", True),
    "to the second": ('alice valid-before="20400101120000" {key}', "alice", True),
    "utc in letters": ('alice valid-before="20400101UTC" {key}', "alice", True),
    "the wrong way round": ('alice valid-after="2040",valid-before="2020" {key}', "alice", False),
    "ends before it begins": (
        'alice valid-after="20100101",valid-before="20090101" {key}',
        "alice",
        False,
    ),
    "not a date": ('alice valid-before="tomorrow" {key}', "alice", False),
    "no such day": ('alice valid-before="20401301" {key}', "alice", False),
}


@pytest.mark.parametrize("case", LINES)
def test_a_roster_line_means_what_it_means_to_ssh_keygen(case, alice, tmp_path):
    line, who, expected = LINES[case]
    roster = line.format(key=alice.public.text, short=alice.public.text[:-8])
    text = sign(alice, MESSAGE, JOB_NAMESPACE)
    now = datetime.fromtimestamp(NOW, timezone.utc).strftime("verify-time=%Y%m%d%H%M%SZ")
    theirs = _keygen_says(tmp_path, roster, who, JOB_NAMESPACE, text, "-O", now)
    assert (_we_say(roster, who, JOB_NAMESPACE, text), theirs) == (expected, expected)


@pytest.fixture
def new_york(monkeypatch):
    """Local time is that of a place with summer time."""
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("name", ["valid-after", "valid-before"])
@pytest.mark.parametrize("month", ["01", "07"])
@pytest.mark.parametrize("zone, hours", [("", 5), ("Z", 0)])
def test_the_edges_of_validity_are_those_of_ssh_keygen(
    name, month, zone, hours, alice, tmp_path, new_york
):
    moment = datetime(2031, int(month), 6, 7 + hours, 8, 9, tzinfo=timezone.utc)
    roster = f'alice {name}="2031{month}06070809{zone}" {alice.public.text}'
    text = sign(alice, MESSAGE, JOB_NAMESPACE)
    said = []
    for now in (moment - SECOND, moment, moment + SECOND):
        clock = now.strftime("verify-time=%Y%m%d%H%M%SZ")
        ours = _we_say(roster, "alice", JOB_NAMESPACE, text, now.timestamp() + 0.9)
        theirs = _keygen_says(tmp_path, roster, "alice", JOB_NAMESPACE, text, "-O", clock)
        said.append((ours, theirs))
    after = name == "valid-after"
    assert said == [(not after, not after), (True, True), (after, after)]


def test_the_message_says_since_when_a_key_is_expired(alice):
    text = sign(alice, MESSAGE, JOB_NAMESPACE)
    old = Roster.parse(f'alice valid-before="20200101Z" {alice.public.text}')
    with pytest.raises(BadSignature, match="for 'alice' expired, since 2020-01-01 00:00:00Z"):
        old.verify(MESSAGE, text, "alice", JOB_NAMESPACE, NOW)
    new = Roster.parse(f'alice valid-after="20400101Z" {alice.public.text}')
    with pytest.raises(BadSignature, match="not yet valid, only from 2040-01-01 00:00:00Z"):
        new.verify(MESSAGE, text, "alice", JOB_NAMESPACE, NOW)


def test_a_line_that_is_not_understood_is_told_with_its_number_and_trusts_nobody(alice):
    key = alice.public.text
    lines = ["# people", f"alice {key}", f'bob from="*" {key}', "carol", f"alice ssh-dss AA {key}"]
    roster = Roster.parse("\n".join(lines))
    assert [entry.principals for entry in roster.entries] == ["alice"]
    assert [problem.split(":")[0] for problem in roster.problems] == ["line 3", "line 4", "line 5"]
    assert roster.problems[0] == "line 3: option 'from' is not known"


def test_a_roster_line_with_a_short_rsa_key_trusts_nobody():
    numbers = wire_integer(65537) + wire_integer(2**1023 + 1)
    blob = base64.b64encode(wire_string(b"ssh-rsa") + numbers).decode()
    roster = Roster.parse(f"alice ssh-rsa {blob}")
    assert not roster.entries
    assert roster.problems == ["line 1: RSA key of 1024 bits: outside 2048 to 16384"]


def test_an_authority_line_is_kept_and_told(alice):
    roster = Roster.parse(f"alice cert-authority {alice.public.text}")
    assert roster.entries[0].authority
    assert roster.names(JOB_NAMESPACE) == []
    assert "cert-authority" in roster.problems[0]


def test_names_and_principals_come_in_order_and_without_patterns(alice, made):
    worker = PrivateKeySigner(made("ecdsa256")).public
    roster = Roster.parse(
        f'alice,bob,*@lab {alice.public.text}\nw1 namespaces="result@*" {worker.text}\n'
        f"*,!eve {alice.public.text}\nbob,eve,!eve {alice.public.text}"
    )
    assert roster.people() == ["alice", "bob"]
    assert roster.workers() == ["alice", "bob", "w1"]
    assert roster.principals(JOB_NAMESPACE, alice.public) == ["alice", "bob"]
    assert roster.principals(JOB_NAMESPACE, worker) == []
    assert roster.principals(RESULT_NAMESPACE, worker) == ["w1"]


@pytest.mark.parametrize("name", ["alice", "alice@lab", "alice smith", "#1", "zoë", "a'b"])
def test_a_line_made_for_a_name_verifies_here_and_with_ssh_keygen(name, alice, tmp_path):
    line = line_for(name, alice.public, JOB_NAMESPACE, "made by a test")
    text = sign(alice, MESSAGE, JOB_NAMESPACE)
    assert _we_say(line, name, JOB_NAMESPACE, text)
    assert _keygen_says(tmp_path, line, name, JOB_NAMESPACE, text)
    assert Roster.parse(line).entries[0].comment == "made by a test"


BAD_NAMES = ["", "*", "al?ce", "!bob", "a,b", 'a"b', "a\nb", "a\tb", "\x1b[2J"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_line_is_made_for_a_name_that_means_something_else(name, alice):
    with pytest.raises(UsageError):
        line_for(name, alice.public, JOB_NAMESPACE)


@pytest.mark.parametrize("comment", ["a\nbob ssh-ed25519 AAAA", "\x1b[2J"])
def test_no_line_is_made_with_a_comment_that_breaks_out_of_it(comment, alice):
    with pytest.raises(UsageError):
        line_for("alice", alice.public, JOB_NAMESPACE, comment)


def test_a_pattern_full_of_stars_is_no_burden(alice):
    assert not signing.listed("a" * 2000, "*a" * 200 + "b")
