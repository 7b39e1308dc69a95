"""The bytes of SFTP: what is built can be taken apart; what is sent to us is read or refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsage_spool import wire
from dsage_spool.errors import BadFormat


def string(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


def reply(kind: int, body: bytes, number: int = 7) -> bytes:
    return struct.pack(">BI", kind, number) + body


def framed(packet: bytes) -> bytes:
    return struct.pack(">I", len(packet)) + packet


def test_a_frame_has_length_type_id_and_body():
    sent = wire.frame(0x01020304, wire.lstat("ab"))
    assert sent == b"\0\0\0\x0b\x07\x01\x02\x03\x04\0\0\0\x02ab"


def test_opening_carries_flags_and_no_attributes():
    _, body = wire.open_file("a", wire.FOR_READ)
    assert body == string(b"a") + struct.pack(">II", 1, 0)


def test_writing_carries_handle_offset_and_data():
    assert wire.write(b"h", 5, b"data")[1] == string(b"h") + struct.pack(">Q", 5) + string(b"data")


def test_a_hard_link_names_the_old_name_first():
    assert wire.hardlink("old", "new")[1] == (
        string(b"hardlink@openssh.com") + string(b"old") + string(b"new")
    )


def test_setting_the_size_carries_only_the_size():
    assert wire.set_size("a", 9)[1] == string(b"a") + struct.pack(">IQ", 1, 9)


def test_a_status_is_read_with_and_without_text():
    assert wire.parse(reply(101, struct.pack(">I", 4) + string(b"Failure") + string(b""))) == (
        7, wire.Status(4, "Failure"),
    )  # fmt: skip
    assert wire.parse(reply(101, struct.pack(">I", 2))) == (7, wire.Status(2, ""))


def test_handles_and_data_are_read():
    assert wire.parse(reply(102, string(b"\0\1"))) == (7, wire.Handle(b"\0\1"))
    assert wire.parse(reply(103, string(b"data"))) == (7, wire.Data(b"data"))


def test_attributes_are_read_whatever_fields_are_sent():
    everything = struct.pack(">IQIIIIII", 0x8000000F, 5, 1, 2, 0o100644, 10, 11, 1)
    everything += string(b"x") + string(b"y")
    assert wire.parse(reply(105, everything))[1] == wire.Attrs(5, 0o100644, 11)
    assert wire.parse(reply(105, struct.pack(">I", 0)))[1] == wire.Attrs()
    assert wire.parse(reply(105, struct.pack(">III", 8, 1, 2)))[1] == wire.Attrs(0, 0, 2)


def test_names_are_read_with_their_bytes_kept():
    entry = string(b"a\xff") + string(b"-rw") + struct.pack(">I", 0)
    names = wire.parse(reply(104, struct.pack(">I", 2) + entry * 2))[1]
    assert [wire.path_bytes(name) for name in names.names] == [b"a\xff"] * 2


def test_the_version_lists_the_extensions():
    packet = b"\2" + struct.pack(">I", 3) + string(b"fsync@openssh.com") + string(b"1")
    assert wire.parse_version(packet) == (3, {"fsync@openssh.com": "1"})


def test_space_is_counted_in_fragments():
    body = struct.pack(">11Q", 4096, 512, 0, 9, 8, 100, 0, 0, 0, 0, 255)
    assert wire.parse_space(body) == wire.Space(8 * 512, False)


def test_a_nul_is_no_part_of_a_path():
    with pytest.raises(BadFormat):
        wire.lstat("a\0b")


def test_a_lone_surrogate_is_no_part_of_a_path():
    with pytest.raises(BadFormat):
        wire.lstat("\ud800")


@pytest.mark.parametrize("length", [0, wire.LIMIT + 1, 0xFFFFFFFF])
def test_a_packet_of_an_impossible_length_is_refused(length):
    with pytest.raises(BadFormat):
        list(wire.Splitter().feed(struct.pack(">I", length)))


@pytest.mark.parametrize(
    "packet", [b"", b"e", b"\0\0\0\0\0", reply(99, b""), reply(102, b"\0\0\0\5a")]
)
def test_a_broken_packet_is_refused(packet):
    with pytest.raises(BadFormat):
        wire.parse(packet)


def test_a_count_of_billions_ends_with_the_packet():
    with pytest.raises(BadFormat):
        wire.parse(reply(104, b"\xff\xff\xff\xff"))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(1, 50)))
def test_packets_come_out_as_they_went_in_however_they_are_cut(packets, cuts):
    stream, splitter, found = b"".join(map(framed, packets)), wire.Splitter(), []
    for cut in cuts:
        found += splitter.feed(stream[:cut])
        stream = stream[cut:]
    found += splitter.feed(stream)
    assert found == packets


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_stream_is_split_or_refused(pieces):
    splitter = wire.Splitter(limit=1000)
    try:
        for piece in pieces:
            for packet in splitter.feed(piece):
                assert 1 <= len(packet) <= 1000
    except BadFormat:
        pass


@given(st.sampled_from([2, 101, 102, 103, 104, 105, 201, 5]), st.binary(max_size=120))
def test_any_packet_is_read_or_refused(kind, body):
    for read in (wire.parse, wire.parse_version):
        try:
            read(bytes([kind]) + body)
        except BadFormat:
            pass


@given(st.binary(max_size=120))
def test_any_statvfs_reply_is_read_or_refused(body):
    try:
        wire.parse_space(body)
    except BadFormat:
        pass


@given(st.text(), st.binary(max_size=50), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_any_request_can_be_split_from_a_stream(path, data, offset, number):
    requests = [wire.write(data, offset, data), wire.read(data, offset, 5)]
    try:
        requests += [wire.lstat(path), wire.posix_rename(path, path)]
    except BadFormat:
        assert "\0" in path or any("\ud800" <= char <= "\udfff" for char in path)
    frames = [wire.frame(number, request) for request in requests]
    packets = list(wire.Splitter().feed(b"".join(frames)))
    assert packets == [frame[4:] for frame in frames]
    assert all(packet[1:5] == struct.pack(">I", number) for packet in packets)
