"""The byte-level BPE: a rank file of the repository in `tiktoken.Encoding`, without network.

4,000 ranks trained on the captions (`tools/train_tokenizer.py`), then 96 special tokens: the ones
that the Reka models use, the placeholders of the three media, and T5's sentinels.
"""

from __future__ import annotations

import base64
from functools import cache

import tiktoken

from model.data.embedded import read_embedded

RANKS = 4_000
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
SPECIAL = (*NAMED, *RESERVED, *(f"<extra_id_{i}>" for i in range(SENTINELS)))


@cache
def load() -> tiktoken.Encoding:
    """Return the tokenizer; `encode_ordinary` never yields a special token."""
    lines = read_embedded("bpe-4096.tiktoken").decode().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, lines)}
    specials = {token: RANKS + index for index, token in enumerate(SPECIAL)}
    return tiktoken.Encoding(
        "holdfast-4096",
        pat_str=SPLIT,
        mergeable_ranks=ranks,
        special_tokens=specials,
        explicit_n_vocab=RANKS + len(SPECIAL),
    )


def special(token: str) -> int:
    """Return the id of a special token."""
    return RANKS + SPECIAL.index(token)
