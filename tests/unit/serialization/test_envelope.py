"""The byte layout: offsets, alignment, and what happens to damaged bytes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mray.serialization import envelope

# The same cases every time, and no limit on the time of one.
steady = settings(deadline=None, derandomize=True)


def laid_out(inband: bytes, buffers: list[bytes]) -> bytes:
    head, offsets, size = envelope.vectored_head(len(inband), [len(b) for b in buffers])
    data = bytearray(size)
    data[: len(head)] = head
    data[len(head) : len(head) + len(inband)] = inband
    for offset, buffer in zip(offsets, buffers, strict=True):
        data[offset : offset + len(buffer)] = buffer
    return bytes(data)


@steady
@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), max_size=6))
def test_splitting_undoes_laying_out(inband: bytes, buffers: list[bytes]) -> None:
    pickled, views = envelope.split_vectored(memoryview(laid_out(inband, buffers)))
    assert bytes(pickled) == inband
    assert [bytes(view) for view in views] == buffers


@steady
@given(st.integers(0, 500), st.lists(st.integers(0, 500), min_size=1, max_size=6))
def test_buffers_are_aligned_and_do_not_overlap(inband: int, lengths: list[int]) -> None:
    head, offsets, size = envelope.vectored_head(inband, lengths)
    end = len(head) + inband
    for offset, length in zip(offsets, lengths, strict=True):
        assert offset % envelope.ALIGNMENT == 0
        assert 0 <= offset - end < envelope.ALIGNMENT
        end = offset + length
    assert size == end


def test_a_plain_pickle_is_its_own_envelope() -> None:
    assert pickle.dumps(None, 5) == envelope.NONE
    assert pickle.dumps([1], 5)[0] == envelope.KIND_PICKLE


@pytest.mark.parametrize("size", [2, 15, 16, 40, 70, 130])
def test_a_cut_off_value_is_refused(size: int) -> None:
    data = laid_out(b"x" * 10, [b"y" * 10, b"z" * 10])
    assert len(data) > 130
    with pytest.raises(envelope.EnvelopeError, match="cut off"):
        envelope.split_vectored(memoryview(data)[:size])


def test_another_version_is_refused() -> None:
    data = bytearray(laid_out(b"x", [b"y"]))
    data[1] = 9
    with pytest.raises(envelope.EnvelopeError, match="another version"):
        envelope.split_vectored(memoryview(data))


def test_is_error_looks_at_the_kind_only() -> None:
    assert envelope.is_error(envelope.ERROR_PREFIX + b"junk")
    assert envelope.is_error(memoryview(envelope.ERROR_PREFIX))
    assert not envelope.is_error(envelope.NONE)
