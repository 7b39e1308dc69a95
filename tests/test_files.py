"""One contract for all forms of `Files`: local, in memory, over sftp-server, over a real sshd."""

from __future__ import annotations

import os
import threading
import time

import pytest

from dsage_spool import wire
from dsage_spool.errors import (
    Denied,
    DiskError,
    Exists,
    FileAnswer,
    Gone,
    NotRegular,
    SpoolError,
    TooBig,
    Unreachable,
    UsageError,
)
from dsage_spool.files import HOW_MANY, Choice, LocalFiles
from dsage_spool.sftp import SftpFiles, plain_root
from memory_files import MemoryFiles
from sshd import SftpProcess

FORMS = ("local", "memory", "sftp", "ssh")
CHUNK = wire.CHUNK


class Place:
    """Files under test, and the folder behind them; `folder` is None in memory."""

    def __init__(self, files, folder=None):
        self.files, self.folder = files, folder

    def plant_link(self, path, target="elsewhere"):
        if self.folder is None:
            self.files.add_other(path)
        else:
            (self.folder / path).symlink_to(target)

    def plant_pipe(self, path):
        if self.folder is None:
            self.files.add_other(path)
        else:
            os.mkfifo(self.folder / path)


@pytest.fixture(scope="module")
def connection(sshd):
    from dsage_spool.address import Address
    from dsage_spool.ssh import Config, Connection

    with Connection.connect(Address("spoolhost"), config=Config(file=str(sshd.config))) as line:
        yield line


@pytest.fixture(params=FORMS)
def place(request, tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    if request.param == "memory":
        yield Place(MemoryFiles())
    elif request.param == "local":
        yield Place(LocalFiles(folder), folder)
    elif request.param == "sftp":
        server = SftpProcess(folder)
        yield Place(SftpFiles(server.stream), folder)
        server.stop()
    else:
        files = request.getfixturevalue("connection").files(str(folder))
        yield Place(files, folder)
        files.close()


@pytest.fixture
def files(place):
    return place.files


@pytest.fixture
def server(tmp_path):
    process = SftpProcess(tmp_path)
    yield process
    process.stop()


@pytest.fixture
def remote(server):
    return SftpFiles(server.stream, timeout=20)


class TestContract:
    def test_what_is_written_is_read(self, files):
        for size in (0, 1, 500, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7):
            data = os.urandom(size)
            files.write("a", data)
            assert files.read("a", size) == data

    def test_a_file_above_the_limit_is_too_big(self, files):
        files.write("a", b"x" * 1000)
        assert files.read("a", 1000) == b"x" * 1000
        with pytest.raises(TooBig):
            files.read("a", 999)

    def test_names_are_listed_without_those_that_begin_with_a_dot(self, files):
        files.make_folder("f")
        for name in ("b", "a", ".hidden", "c é"):
            files.write(f"f/{name}", b"")
        assert sorted(files.names("f")) == ["a", "b", "c é"]
        assert sorted(files.names("")) == ["f"]

    def test_at_most_limit_names_are_listed(self, files):
        files.make_folder("f")
        files.many("write", ((f"f/{n}", b"") for n in range(250)))
        assert len(files.names("f")) == 250
        assert len(files.names("f", 120)) == 120
        assert files.names("f", 0) == []

    def test_local_forms_answer_what_is_chosen_of_the_names(self, place):
        if place.folder is not None and not isinstance(place.files, LocalFiles):
            return  # nobody lists a large folder over a line
        place.files.make_folder("f")
        place.files.many("write", ((f"f/{n}", b"") for n in range(20)))
        assert place.files.names("f", None, HOW_MANY) == 20
        assert place.files.names("f", 7, HOW_MANY) == 7
        least = Choice("the least", min)
        assert place.files.names("f", None, least) == "0" and str(least) == "the least"

    def test_an_undecodable_name_can_be_listed_and_removed(self, place):
        name = b"bad\xff".decode("utf-8", "surrogateescape")
        place.files.write(name, b"x")
        assert place.files.names("") == [name]
        place.files.remove(name)
        assert place.files.names("") == []

    def test_a_look_tells_kind_and_size_and_follows_no_link(self, place):
        place.files.make_folder("f")
        place.files.make_folder("tmp")
        place.files.write("a", b"12345")
        place.plant_link("l", "a")
        place.plant_pipe("p")
        looks = place.files.many("stat", [("f",), ("a",), ("l",), ("p",)])
        assert [look.kind for look in looks] == ["folder", "file", "other", "other"]
        assert looks[1].size == 5
        assert abs(looks[1].mtime - place.files.now()) < 60

    def test_what_is_not_there_is_gone(self, files):
        calls = [
            ("stat", "x"), ("read", "x", 9), ("read_from", "x", 0, 9), ("names", "x"),
            ("resize", "x", 3), ("move", "x", "y"), ("link", "x", "y"), ("remove", "x"),
            ("sync", ["x"]), ("write", "x/y", b""), ("append", "x/y", b""),
            ("drop", "x/t", "y", b""), ("make_folder", "x/y"), ("stat", "x/y"),
        ]  # fmt: skip
        for operation, *arguments in calls:
            with pytest.raises(Gone):
                getattr(files, operation)(*arguments)

    def test_below_a_file_everything_is_gone(self, files):
        files.write("a", b"")
        for operation, *arguments in [("stat", "a/b"), ("names", "a"), ("write", "a/b", b"")]:
            with pytest.raises(Gone):
                getattr(files, operation)(*arguments)

    def test_links_pipes_and_folders_are_not_read(self, place):
        place.files.make_folder("f")
        place.files.write("a", b"secret")
        place.plant_link("l", "a")
        place.plant_pipe("p")
        for path in ("f", "l", "p"):
            for row in (("read", path, 99), ("read_from", path, 0, 99)):
                with pytest.raises(NotRegular):
                    getattr(place.files, row[0])(*row[1:])

    def test_nothing_is_written_through_a_link_or_into_a_folder(self, place):
        place.files.make_folder("f")
        place.files.write("a", b"old")
        place.plant_link("l", "a")
        for path in ("f", "l"):
            for operation in ("write", "append"):
                with pytest.raises(NotRegular):
                    getattr(place.files, operation)(path, b"new")
        assert place.files.read("a", 99) == b"old"

    def test_a_dangling_link_is_not_written_through(self, place):
        place.plant_link("l", "target")
        with pytest.raises(NotRegular):
            place.files.write("l", b"new")
        assert place.files.names("") == ["l"]

    def test_writing_replaces_and_appending_adds(self, files):
        files.write("a", b"a longer text")
        files.write("a", b"short")
        files.append("a", b" and more")
        assert files.read("a", 99) == b"short and more"
        files.append("new", b"begun")
        assert files.read("new", 99) == b"begun"

    def test_large_data_is_appended_in_order(self, files):
        data = os.urandom(3 * CHUNK + 11)
        files.append("a", b"head")
        files.append("a", data)
        assert files.read("a", 10 * CHUNK) == b"head" + data

    def test_a_drop_puts_the_whole_file_in_place_and_leaves_nothing_in_tmp(self, files):
        files.make_folder("tmp")
        for data in (b"one", b"two", b"", b"z" * (2 * CHUNK)):
            files.drop("tmp/x", "a", data)
            assert files.read("a", 3 * CHUNK) == data
        assert files.names("tmp") == []

    def test_a_drop_passes_over_what_a_dead_party_left_in_tmp(self, files):
        files.write("x", b"a longer leftover of an earlier run")
        files.drop("x", "a", b"new")
        assert files.read("a", 99) == b"new"

    def test_a_drop_gives_the_name_a_new_file(self, files):
        files.write("a", b"old")
        files.link("a", "b")
        files.drop("x", "a", b"new")
        assert (files.read("a", 9), files.read("b", 9)) == (b"new", b"old")

    def test_resizing_sets_the_size(self, files):
        files.write("a", b"abc")
        files.resize("a", 5)
        assert files.read("a", 9) == b"abc\0\0"
        files.resize("a", 2)
        assert files.read("a", 9) == b"ab"

    def test_a_link_is_a_second_name_and_exclusive(self, files):
        files.write("a", b"mine")
        files.write("other", b"theirs")
        files.link("a", "lock")
        with pytest.raises(Exists):
            files.link("other", "lock")
        assert files.read("lock", 9) == b"mine"
        files.append("a", b"+")
        assert files.read("lock", 9) == b"mine+"
        files.remove("a")
        assert files.read("lock", 9) == b"mine+"

    def test_a_link_onto_any_name_is_refused(self, place):
        place.files.write("a", b"")
        place.files.make_folder("f")
        place.plant_link("l", "nowhere")
        for path in ("f", "l", "a"):
            with pytest.raises(Exists):
                place.files.link("a", path)

    def test_a_folder_has_no_second_name(self, files):
        files.make_folder("f")
        with pytest.raises(Denied):
            files.link("f", "g")

    def test_moving_replaces_a_file(self, files):
        files.write("a", b"new")
        files.write("b", b"old")
        files.move("a", "b")
        assert files.read("b", 9) == b"new"
        assert files.names("") == ["b"]

    def test_a_folder_moves_with_all_in_it_but_not_onto_one_that_holds_something(self, files):
        for folder in ("f", "g", "empty"):
            files.make_folder(folder)
        files.write("f/a", b"1")
        files.write("g/a", b"2")
        with pytest.raises(Exists):
            files.move("f", "g")
        files.move("f", "empty")
        assert files.read("empty/a", 9) == b"1"
        assert sorted(files.names("")) == ["empty", "g"]

    def test_a_file_is_not_moved_onto_a_folder(self, files):
        files.write("a", b"")
        files.make_folder("f")
        with pytest.raises(NotRegular):
            files.move("a", "f")
        assert sorted(files.names("")) == ["a", "f"]

    def test_a_folder_is_made_once(self, files):
        files.make_folder("f")
        files.write("a", b"")
        for path in ("f", "a"):
            with pytest.raises(Exists):
                files.make_folder(path)

    def test_a_folder_is_not_removed_as_a_name(self, files):
        files.make_folder("f")
        with pytest.raises(NotRegular):
            files.remove("f")
        assert files.names("") == ["f"]

    def test_a_link_is_removed_and_not_its_target(self, place):
        place.files.write("a", b"stays")
        place.plant_link("l", "a")
        place.files.remove("l")
        assert place.files.read("a", 9) == b"stays"

    def test_reading_from_an_offset_follows_what_grows(self, files):
        files.write("log", b"one\n")
        assert files.read_from("log", 0, 99) == b"one\n"
        assert files.read_from("log", 4, 99) == b""
        files.append("log", b"two\nthree\n")
        assert files.read_from("log", 4, 4) == b"two\n"
        assert files.read_from("log", 8, 99) == b"three\n"
        assert files.read_from("log", 1000, 99) == b""
        assert files.read_from("log", 0, 0) == b""

    def test_reading_from_an_offset_in_large_pieces(self, files):
        data = os.urandom(4 * CHUNK + 5)
        files.write("log", data)
        for offset, limit in [(0, len(data)), (7, 2 * CHUNK), (CHUNK, CHUNK), (3, 10 * CHUNK)]:
            assert files.read_from("log", offset, limit) == data[offset : offset + limit]

    def test_following_notices_a_file_that_was_removed_or_replaced(self, files):
        files.write("log", b"one\n")
        assert files.read_from("log", 4, 99) == b""
        files.drop("x", "log", b"one\ntwo\n")
        assert files.read_from("log", 4, 99) == b"two\n"
        files.remove("log")
        with pytest.raises(Gone):
            files.read_from("log", 8, 99)
        files.write("log", b"new")
        assert files.read_from("log", 0, 99) == b"new"

    def test_more_files_are_followed_than_are_kept_open(self, files):
        paths = [f"log{n}" for n in range(20)]
        for text in (b"a", b"b"):
            files.many("append", [(path, text) for path in paths])
        for offset, text in ((0, b"ab"), (1, b"b")):
            rows = [(path, offset, 9) for path in paths]
            assert files.many("read_from", rows) == [text] * 20

    def test_files_and_folders_are_made_durable_again_and_again(self, files):
        for folder in ("incoming", "incoming/deep"):
            files.make_folder(folder)
        files.write("a", b"x")
        for _ in range(3):
            files.sync(["incoming", "a", "incoming/deep", "", "a"])
            files.sync([])
        assert files.durable

    def test_the_host_has_a_clock(self, files):
        files.make_folder("tmp")
        assert abs(files.now() - time.time()) < 60
        assert files.names("tmp") == []

    def test_many_answers_in_order_and_puts_errors_in_their_places(self, files):
        files.many("write", ((f"a{n}", b"%d" % n) for n in range(0, 300, 2)))
        outcomes = files.many("read", ((f"a{n}", 99) for n in range(300)))
        assert outcomes[::2] == [b"%d" % n for n in range(0, 300, 2)]
        assert {type(outcome) for outcome in outcomes[1::2]} == {Gone}
        assert files.many("stat", []) == []

    def test_many_drops_are_all_in_place(self, files):
        files.make_folder("tmp")
        files.make_folder("in")
        rows = [(f"tmp/{n}", f"in/{n}", b"%d" % n * 100) for n in range(100)]
        rows.insert(50, ("nowhere/x", "in/x", b""))
        outcomes = files.many("drop", rows)
        assert isinstance(outcomes.pop(50), Gone)
        assert outcomes == [None] * 100
        assert files.read("in/77", 999) == b"77" * 100

    def test_too_long_a_name_is_an_ordinary_answer(self, files):
        for operation, *arguments in [("stat", "n" * 300), ("write", "n" * 300, b"")]:
            with pytest.raises((NotRegular, Gone)):
                getattr(files, operation)(*arguments)


class TestTheSessionItself:
    def test_a_drop_whose_write_fails_puts_nothing_in_place(self, tmp_path):
        (tmp_path / "a").write_bytes(b"old and whole")
        script = 'trap "" XFSZ; ulimit -f 8; exec "$@"'
        server = SftpProcess(tmp_path, before=("bash", "-c", script, "bash"))
        files = SftpFiles(server.stream)
        with pytest.raises(DiskError):
            files.drop("tmp", "a", b"x" * 100_000)
        server.stop()
        assert (tmp_path / "a").read_bytes() == b"old and whole"

    def test_without_hard_links_a_claim_is_refused_with_a_remedy(self, tmp_path):
        server = SftpProcess(tmp_path, "-P", "hardlink")
        files = SftpFiles(server.stream)
        files.write("a", b"")
        with pytest.raises(SpoolError) as caught:
            files.link("a", "b")
        server.stop()
        assert "no hard links" in str(caught.value) and caught.value.hint

    def test_without_fsync_the_files_say_that_they_are_not_durable(self, tmp_path):
        server = SftpProcess(tmp_path, "-P", "fsync")
        files = SftpFiles(server.stream)
        files.drop("tmp", "a", b"data")
        files.sync(["a"])
        server.stop()
        assert not files.durable
        assert (tmp_path / "a").read_bytes() == b"data"

    def test_without_posix_rename_new_names_can_be_dropped(self, tmp_path):
        server = SftpProcess(tmp_path, "-P", "posix-rename")
        files = SftpFiles(server.stream)
        files.drop("tmp", "a", b"data")
        with pytest.raises(SpoolError) as caught:
            files.drop("tmp", "a", b"other")
        server.stop()
        assert "cannot replace" in str(caught.value)
        assert (tmp_path / "a").read_bytes() == b"data"

    def test_what_the_server_denies_is_denied(self, tmp_path):
        server = SftpProcess(tmp_path, "-R")
        with pytest.raises(Denied):
            SftpFiles(server.stream).write("a", b"")
        server.stop()

    def test_a_killed_server_is_unreachable_and_stays_so(self, server, remote):
        server.process.kill()
        with pytest.raises(Unreachable):
            remote.stat("")
        with pytest.raises(Unreachable):
            remote.stat("")
        outcomes = remote.many("stat", [("",)] * 3)
        assert [type(outcome) for outcome in outcomes] == [Unreachable] * 3

    def test_a_silent_server_is_unreachable_after_the_time_out(self, server):
        files = SftpFiles(server.stream, timeout=0.2)
        os.kill(server.process.pid, 19)  # SIGSTOP
        with pytest.raises(Unreachable, match="no answer in time"):
            files.stat("")

    def test_a_closed_session_is_unreachable(self, server):
        closed = []
        files = SftpFiles(server.stream, on_close=lambda: closed.append(1))
        files.close()
        files.close()
        with pytest.raises(Unreachable):
            files.stat("")
        assert closed == [1]

    def test_another_thread_is_refused(self, remote):
        caught = []

        def look():
            try:
                remote.stat("")
            except UsageError as error:
                caught.append(error)

        remote.stat("")
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert "another thread" in str(caught[0])

    def test_a_session_made_here_may_be_used_first_by_another_thread(self, remote):
        kinds = []
        thread = threading.Thread(target=lambda: kinds.append(remote.stat("").kind))
        thread.start()
        thread.join()
        assert kinds == ["folder"]

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # just this is what is tested
    def test_a_forked_child_is_refused(self, remote):
        child = os.fork()
        if not child:
            try:
                remote.stat("")
            except UsageError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert remote.stat("").kind == "folder"

    def test_a_login_script_that_prints_is_named_as_the_cause(self, tmp_path):
        server = SftpProcess(tmp_path, before=("sh", "-c", "echo Welcome to host; cat"))
        with pytest.raises(SpoolError, match="does not speak SFTP"):
            SftpFiles(server.stream)
        server.stop()

    def test_a_folder_is_kept_open_but_a_replaced_file_is_not(self, server, remote):
        remote.make_folder("incoming")
        remote.write("queue", b"")
        for _ in range(5):
            remote.sync(["incoming", "queue"])
        remote.stat("")
        opened = [os.readlink(f"/proc/{server.process.pid}/fd/{fd}") for fd in _fds(server)]
        assert len([path for path in opened if path.endswith("/incoming")]) == 1
        assert not [path for path in opened if path.endswith("/queue")]

    def test_no_operation_leaves_a_file_open_on_the_server(self, server, remote):
        remote.stat("")
        before = len(_fds(server))
        remote.make_folder("tmp")
        remote.drop("tmp/x", "a", b"x" * 100)
        remote.many("read", [("a", 10)] * 20 + [("a", 1000)] * 20)
        remote.names("")
        remote.now()
        remote.append("a", b"x")
        remote.sync(["a"])
        remote.stat("")
        assert len(_fds(server)) == before

    def test_many_answers_all_rows_however_many_files_are_being_closed(self, remote):
        remote.write("a", b"x")
        for _ in range(3):
            assert remote.many("read", [("a", 1)] * 500) == [b"x"] * 500
            assert remote.stat("a").size == 1

    def test_a_nul_in_a_path_is_refused_before_it_is_sent(self, remote):
        with pytest.raises(SpoolError, match="NUL"):
            remote.stat("a\0b")
        assert remote.stat("").kind == "folder"

    def test_errors_of_the_file_kind_can_be_told_from_failures(self, remote):
        outcomes = remote.many("stat", [("x",)])
        assert isinstance(outcomes[0], FileAnswer)


@pytest.mark.parametrize(
    "root, plain",
    [("", ""), ("~", ""), ("~/", ""), ("~/a/b", "a/b"), ("/srv/x", "/srv/x"), ("a", "a")],
)
def test_a_root_begins_at_the_login_folder(root, plain):
    assert plain_root(root) == plain


def test_the_home_of_another_user_is_refused():
    with pytest.raises(UsageError):
        plain_root("~bob/spool")


class _Counting:
    """A stream that counts how often something is sent, and how long it is waited for."""

    def __init__(self, stream):
        self._stream, self.sent, self._turn, self.trips = stream, 0, "", 0
        self.settimeout, self.close = stream.settimeout, stream.close

    def send(self, data):
        self.sent += 1
        self.trips += self._turn != "send"
        self._turn = "send"
        self._stream.send(data)

    def recv(self, count):
        self._turn = "recv"
        return self._stream.recv(count)


@pytest.mark.parametrize(
    "trips, operation, arguments",
    [
        (1, "stat", ("a",)), (1, "link", ("a", "lock")), (1, "move", ("a", "b")),
        (1, "resize", ("a", 3)), (1, "remove", ("a",)), (2, "write", ("new", b"x" * 100_000)),
        (3, "drop", ("tmp/x", "new", b"x" * 100_000)), (1, "sync", (["tmp"],)),
        (1, "read_from", ("log", 0, 100)),
    ],
)  # fmt: skip
def test_an_operation_costs_few_sends(server, trips, operation, arguments):
    stream = _Counting(server.stream)
    files = SftpFiles(stream)
    files.write("a", b"")
    files.write("log", b"")
    files.make_folder("tmp")
    files.sync(["tmp"])
    files.read_from("log", 0, 100)
    before = stream.sent
    getattr(files, operation)(*arguments)
    assert stream.sent - before == trips


def _fds(server):
    return os.listdir(f"/proc/{server.process.pid}/fd")
