"""Train the embedded byte-level BPE on the captions and write it as a tiktoken rank file.

    python -m venv /tmp/bpe && /tmp/bpe/bin/pip install tokenizers==0.23.3 pillow
    /tmp/bpe/bin/python tools/train_tokenizer.py --data model/data/embedded

`tokenizers` is needed here only: what runs loads the file with tiktoken (`model/tokenizer.py`).
The file has one line per token, `base64(bytes) rank`, ranks 0 to 255 being the single bytes; ids
from 4,000 on belong to the special tokens, 4,096 in all. Training is deterministic.
"""

from __future__ import annotations

import argparse
import base64
import lzma
from pathlib import Path

from build_embedded_data import write_sums
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

RANKS = 4_000  # the ids below the special tokens; `model.tokenizer` holds the same number
#: cl100k_base's split without possessive quantifiers; equal to `model.tokenizer.SPLIT`.
SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
HEADER_LINES = 3  # code points, group, subgroup


def main() -> None:
    """Train, write the rank file and refresh the sums."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the embedded directory")
    data: Path = parser.parse_args().data
    table = lzma.decompress((data / "captions.tsv.xz").read_bytes()).decode().splitlines()
    texts = [name for line in table[HEADER_LINES:] for name in line.split("\t")[1:] if name]
    ranks = train(texts)
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    (data / "bpe-4096.tiktoken").write_text("".join(lines))
    write_sums(data)
    print(f"{len(ranks)} ranks from {len(texts)} captions")


def train(texts: list[str]) -> dict[bytes, int]:
    """Return the tokens in the order of their merges, single bytes first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=RANKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    tokenizer.train_from_iterator(texts, trainer)
    spelled = bytes_of_letters()
    ranks = {bytes([value]): value for value in range(256)}
    for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        ranks.setdefault(bytes(spelled[letter] for letter in token), len(ranks))
    return ranks


def bytes_of_letters() -> dict[str, int]:
    """Return the byte behind each letter of GPT-2's printable byte alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [value for value in range(256) if value not in printable]
    letters = {chr(value): value for value in printable}
    letters.update({chr(256 + index): value for index, value in enumerate(hidden)})
    return letters


if __name__ == "__main__":
    main()
