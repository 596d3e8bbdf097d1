"""The byte-level BPE: a tiktoken rank file, and 96 special tokens at the end of the vocabulary.

The embedded file has 4,000 ranks trained on the captions (`tools/train_tokenizer.py`); with the 96
special tokens that makes 4,096 ids. cl100k_base, the file of the big presets, has 100,256 ranks:
100,352 ids. Any other rank file of at most that many ranks will do. No network is used.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tiktoken

from model.data.embedded import read_embedded
from orchestrator.errors import UserError

EMBEDDED_VOCABULARY = 4_096
SENTINELS = 64
#: cl100k_base's split without possessive quantifiers; equal to that of `tools/train_tokenizer.py`.
SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
END = "<|endoftext|>"  #: starts an answer and ends it
PADDING = "<|padding|>"
NAMED = (
    *(END, PADDING, "<sep>", "<image>", "</image>", "<video>", "</video>", "<audio>", "</audio>"),
    *("<|image_patch|>", "<|video_patch|>", "<|audio_frames|>"),
    *("<transcript>", "</transcript>", "<ocr>", "</ocr>", "<reasoning>", "</reasoning>"),
    *("<tool>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
)
RESERVED = tuple(f"<|reserved_{i}|>" for i in range(96 - SENTINELS - len(NAMED)))
#: Characters without a space, or spaces in a row, that are encoded in one piece: tiktoken's split
#: overflows its stack at about a million.
RUN_MAX = 25_000
SPECIAL = (*NAMED, *RESERVED, *(f"<extra_id_{i}>" for i in range(SENTINELS)))


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids and back."""

    encoding: tiktoken.Encoding
    vocabulary: int  #: ids in all; the last `len(SPECIAL)` are the special tokens

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text; never a special token, whatever the text says."""
        if len(text) <= RUN_MAX:
            return tuple(self.encoding.encode_ordinary(text))
        encode = self.encoding.encode_ordinary
        return tuple(token for piece in _pieces(text) for token in encode(piece))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids. Raises UserError naming an id that the file does not have."""
        try:
            return self.encoding.decode(list(ids))
        except KeyError as error:
            unknown = next((one for one in ids if not self._has(one)), None)
            raise UserError(f"token id {unknown} is not in the vocabulary") from error

    def _has(self, token: int) -> bool:
        try:
            self.encoding.decode_single_token_bytes(token)
        except (KeyError, OverflowError):
            return False
        return True

    def text(self, ids: Sequence[int]) -> str:
        """Return an answer: what stands before the end token, without special tokens."""
        end = self.special(END)
        until = ids.index(end) if end in ids else len(ids)
        first_special = self.vocabulary - len(SPECIAL)
        return self.decode([token for token in ids[:until] if token < first_special])

    def special(self, token: str) -> int:
        """Return the id of a special token."""
        return self.vocabulary - len(SPECIAL) + _PLACES[token]


def _pieces(text: str) -> Iterator[str]:
    """Cut a text after every `RUN_MAX` characters of a run of spaces or of none; seldom at all."""
    begun = 0
    for run in re.finditer(r"\s+|\S+", text):
        for cut in range(run.start() + RUN_MAX, run.end(), RUN_MAX):
            yield text[begun:cut]
            begun = cut
    yield text[begun:]


_PLACES = {token: index for index, token in enumerate(SPECIAL)}


@cache
def load() -> Tokenizer:
    """Return the embedded tokenizer."""
    return _build(read_embedded("bpe-4096.tiktoken"), "the embedded file", EMBEDDED_VOCABULARY)


def from_file(path: Path, vocabulary: int) -> Tokenizer:
    """Return a tokenizer of a rank file. Raises UserError if it is none or has too many ranks."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"tokenizer {path}: {error.strerror}; name a tiktoken rank file") from error
    return _build(data, str(path), vocabulary)


def _build(data: bytes, name: str, vocabulary: int) -> Tokenizer:
    ranks = _ranks(data, name)
    room = vocabulary - len(SPECIAL)
    if len(ranks) > room:
        raise UserError(f"{name} has {len(ranks):,} ranks; the model has ids for {room:,}")
    specials = {token: room + index for index, token in enumerate(SPECIAL)}
    encoding = tiktoken.Encoding(
        f"holdfast-{vocabulary}",
        pat_str=SPLIT,
        mergeable_ranks=ranks,
        special_tokens=specials,
    )
    return Tokenizer(encoding, vocabulary)


def _ranks(data: bytes, name: str) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            said = f"{name}, line {number}: expected 'base64 rank', as tiktoken writes it"
            raise UserError(said) from error
    if sorted(ranks.values()) != list(range(len(ranks))) or any(
        bytes([value]) not in ranks for value in range(256)
    ):
        raise UserError(f"{name}: ranks must run from 0 without gaps and hold all single bytes")
    return ranks
