"""Packs: whole or refused."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from chances import given
from dsage_spool import layout, pack
from dsage_spool.errors import BadFormat, BadVersion

ALLOWED = layout.RESULT_PARTS
PARTS = st.dictionaries(st.sampled_from(sorted(ALLOWED)), st.binary(max_size=300))
SAMPLE = {"receipt": b"a: b\n", "receipt.sig": b"sig\n", "result": b"\x80\x05N."}


@given(PARTS)
def test_what_was_joined_is_what_is_split(parts):
    found = pack.split(pack.join(parts), ALLOWED)
    assert found == parts and list(found) == list(parts)


@given(PARTS, st.binary(min_size=1, max_size=20))
def test_a_padded_pack_is_refused(parts, padding):
    with pytest.raises(BadFormat):
        pack.split(pack.join(parts) + padding, ALLOWED)


def test_each_truncation_is_refused():
    whole = pack.join(SAMPLE)
    for length in range(len(whole)):
        with pytest.raises(BadFormat):
            pack.split(whole[:length], ALLOWED)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data):
    for text in (data, b"dsage-spool-pack: 1\n" + data, b"dsage-spool-pack: 1\npart: " + data):
        try:
            parts = pack.split(text, ALLOWED)
        except BadFormat:
            continue
        assert parts.keys() <= ALLOWED


def test_a_part_that_has_no_place_there_is_refused():
    with pytest.raises(BadFormat, match="payload has no place"):
        pack.split(pack.join({"payload": b""}), ALLOWED)


@pytest.mark.parametrize("first", [b"dsage-spool-pack: 2", b"dsage-spool-pack: 1\r", b"dsage-spool-pack: "])
def test_another_version_is_refused(first):
    with pytest.raises(BadVersion, match="this release reads version 1"):
        pack.split(pack.join(SAMPLE).replace(b"dsage-spool-pack: 1", first, 1), ALLOWED)


@pytest.mark.parametrize("line", [
    b"part: receipt", b"part: receipt -1", b"part:receipt 5", b"part: Receipt 5", b"part: receipt 5 ",
    b"part: ../x 5", b"part: receipt 1_0", b"part: receipt " + b"9" * 16, b"receipt 5", b"part: receipt \xd9\xa3",
])  # fmt: skip
def test_a_line_of_the_head_that_is_not_as_it_should_be_is_refused(line):
    with pytest.raises(BadFormat):
        pack.split(b"dsage-spool-pack: 1\n" + line + b"\n\nxxxxx", ALLOWED)


def test_a_part_that_is_named_twice_is_refused():
    data = b"dsage-spool-pack: 1\npart: result 1\npart: result 1\n\nab"
    with pytest.raises(BadFormat, match="twice"):
        pack.split(data, ALLOWED)


def test_a_head_without_end_is_not_searched_for_one():
    endless = b"dsage-spool-pack: 1\n" + b"part: result 0\n" * 100_000 + b"\n"
    with pytest.raises(BadFormat, match="its head is missing"):
        pack.split(endless, ALLOWED)


def test_huge_sizes_are_counted_and_not_allocated():
    data = b"dsage-spool-pack: 1\npart: result 999999999999999\n\n"
    with pytest.raises(BadFormat, match="do not add up"):
        pack.split(data, ALLOWED)
