"""Source jobs and command jobs in real child processes."""

from __future__ import annotations

import sys

import pytest

from dsage_spool.runner import source as source_text
from signed_jobs import command, make_task, run, slots, source, value_of

on_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="this rests on Linux: /proc, RLIMIT_AS"
)


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    with slots(1, tmp_path_factory.mktemp("slots")) as children:
        yield children


# --- source ---


@pytest.mark.parametrize(
    "text, value",
    [
        ("2+2", 4),
        ("2^10", 1024),
        ("5 ^^ 3", 6),
        ("x = 3\nx ^= 2\nx", 9),
        ("factorint(2^61-1)", {2305843009213693951: 1}),
        ("'2^10'  # 2^10", "2^10"),
        ("def f(n):\n    return n^2\n\n\ndef g(n):\n    return f(n) + 1\n\ng(4)\n", 17),
        ("a = 7", None),
        ("", None),
        ("2^3\r\n3^2\r\n", 9),
    ],
)
def test_source_has_powers_names_and_a_value(children, text, value):
    assert value_of(run(children, source(text))) == value


@pytest.mark.parametrize(
    "text, plain",
    [
        ("2^3^2", "2**3**2"),
        ("a^b # a^b", "a**b # a^b"),
        ("'''a^\nb^''' ^ c^^d", "'''a^\nb^''' ** c^d"),
        ("a^=b; c^^=d", "a**=b; c^=d"),
        ("f'{a:^10}' + r'^'", "f'{a:^10}' + r'^'"),
        ("a^(b\n  ^c)", "a**(b\n  **c)"),
        ("π^2", "π**2"),
        ("a^b \\\n^c", "a**b \\\n**c"),
        ("(a^", "(a^"),
    ],
)
def test_carets_are_read_token_by_token(text, plain):
    assert source_text.prepare(text) == plain


def test_a_traceback_shows_the_lines_of_the_source(children):
    task = source("def half(x):\n    return x/0\n\nhalf(2^3)")
    text = run(children, task).parts["traceback"].decode()
    assert f'File "<{task.job}>", line 2, in half' in text
    assert "return x/0" in text and "half(2**3)" in text and "child.py" not in text


def test_a_syntax_error_shows_its_line(children):
    ended = run(children, source("x = 1\ny = = 2"))
    assert ended.outcome == "raised" and ended.error.startswith("SyntaxError: ")
    assert "y = = 2" in ended.parts["traceback"].decode()


def test_functions_and_objects_of_the_source_can_be_returned(children):
    text = "class Pair:\n    def __init__(self, a):\n        self.a = a^2\n\n[Pair, Pair(3)]"
    ended = run(children, source(text))
    kind, pair = value_of(ended)
    assert ended.codec == "cloudpickle" and pair.a == 9 and kind(2).a == 4


def test_functions_of_the_source_run_in_a_pool(children):
    text = (
        "import multiprocessing\ndef square(n):\n    return n^2\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    squares = pool.map(square, range(4))\nsquares"
    )
    assert value_of(run(children, source(text))) == [0, 1, 4, 9]


def test_source_that_is_no_text_is_refused(children):
    ended = run(children, make_task("source", b"\xff\xfe"))
    assert (ended.outcome, ended.error) == ("refused", "payload: it is not UTF-8 text")


# --- commands ---


def test_a_command_that_succeeds_is_ok(children):
    ended = run(children, command("sh", "-c", "echo $GREETING; pwd", env={"GREETING": "hello"}))
    assert (ended.outcome, ended.codec, ended.exit) == ("ok", "", 0)
    greeting, folder = ended.parts["stdout"].decode().split()
    assert greeting == "hello" and folder.endswith("/work") and set(ended.parts) == {"stdout"}


@pytest.mark.parametrize(
    "argv, status, error",
    [
        (("false",), 1, "exit status 1"),
        (("sh", "-c", "exit 42"), 42, "exit status 42"),
        (("no-such-program",), 127, "no-such-program: no such program on this worker"),
        (("/dev/null",), 126, "/dev/null: it is not a program that may be run here"),
        (("./x", "x"), 127, "./x: no such program on this worker"),
    ],
)
def test_a_command_that_fails_has_a_status(children, argv, status, error):
    ended = run(children, command(*argv))
    assert (ended.outcome, ended.exit, ended.error) == ("exited", status, error)


def test_a_command_killed_by_a_signal_is_killed(children):
    ended = run(children, command("sh", "-c", "kill -TERM $$"))
    assert (ended.outcome, ended.signal, ended.error) == ("killed", 15, "killed by SIGTERM")


@on_linux
def test_a_command_has_its_memory_limit_from_its_first_byte(children):
    ended = run(children, command("sh", "-c", "ulimit -v", memory_limit=64 << 20))
    assert ended.parts["stdout"] == b"65536\n"


@on_linux
def test_a_command_has_default_signals(children):
    lines = run(children, command("grep", "Sig[IB]", "/proc/self/status")).parts["stdout"].split()
    assert lines[::2] == [b"SigBlk:", b"SigIgn:"]
    libc_own = 0b11 << 31  # signals 32 and 33, which no program can change; they may come ignored
    assert [int(word, 16) & ~libc_own for word in lines[1::2]] == [0, 0]


@pytest.mark.parametrize("data", [b"", b"[]", b'{"argv": []}', b'{"argv": ["a\\u0000"]}', b"{1}"])
def test_a_command_that_is_none_is_refused(children, data):
    ended = run(children, make_task("command", data))
    assert ended.outcome == "refused" and ended.error.startswith("payload: ")
