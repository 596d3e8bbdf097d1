"""Thousands of inputs for each parser; `make fuzz` feeds a million."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import parsers
from tests.fuzz.parsers import PARSERS, SLOW, Parser, feed


@pytest.mark.parametrize("parser", PARSERS, ids=lambda one: one.name)
def test_near_misses_are_read(parser: Parser) -> None:
    feed(parser, 7, 5000)


def test_an_input_that_is_slow_or_ends_in_an_error_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parsers, "SLOW", 0.02)
    odd = list(parsers.inputs(7, 300))[210]

    def slow(raw: bytes) -> None:
        end = time.process_time() + 0.05
        while raw == odd and time.process_time() < end:
            pass

    def fails(raw: bytes) -> None:
        if raw == odd:
            raise KeyError("x")

    for read in (slow, fails):
        with pytest.raises(AssertionError, match="odd, input 7-210"):
            feed(Parser("odd", read), 7, 300)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda one: one.name)
@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=2000))
@example(raw=b"[" * 5000)
@example(raw=b"9" * 400 + b"NVRM: Xid (PCI:000" + b"9" * 400)  # 4 s, found by `make fuzz`
@example(raw=b"a]" * 2000 + b"error")
@example(raw=b"collective " * 400)
@example(raw=b"loss " * 800 + b"nan")
@example(raw=b"checkpoint world_size mismatch " * 130)
@example(raw=b"gpu overheat nvlink nvswitch " * 140)
def test_any_bytes_are_read(parser: Parser, raw: bytes) -> None:
    began = time.process_time()
    parser.read(raw)
    assert time.process_time() - began < SLOW
