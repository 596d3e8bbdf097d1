"""What text is worth training on: quality rules, exact duplicates, near duplicates.

The rules are the plain ones of Gopher (Rae et al. 2021, appendix A) that hold in any language with
spaces; they see text, not truth. Near duplicates are found by MinHash over five-word shingles
(datasketch); the first of a group is kept, so the order of the input matters and nothing else.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

CHARACTERS_MIN, CHARACTERS_MAX = 200, 1_000_000
WORD_MIN, WORD_MAX = 2.0, 12.0  #: mean length of words, characters
SYMBOLS_MAX = 0.10  #: '#' and '...' per word
LETTERS_MIN = 0.5  #: share of the characters that are letters, marks or spaces
REPEATED_MAX = 0.3  #: share of the lines that stand there twice
SHINGLE = 5  #: words
SIMILARITY = 0.8  #: Jaccard, from which two texts count as one
PERMUTATIONS = 128


@dataclass(slots=True)
class Report:
    """What became of the documents."""

    seen: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  #: by reason


def worthy(documents: Iterable[str], report: Report, *, code: bool = False) -> Iterator[str]:
    """Yield the documents worth keeping, counting the others by reason.

    `code` leaves out the rules that only prose can keep.
    """
    from datasketch import MinHash, MinHashLSH

    exact: set[bytes] = set()
    near = MinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS)
    for number, text in enumerate(documents):
        report.seen += 1
        reason = unworthy(text, code=code) or _seen_before(text, exact)
        if reason is None:
            sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
            sketch.update_batch(sorted(shingles(text)))
            if near.query(sketch):
                reason = "near-duplicate"
            else:
                near.insert(number, sketch)
        if reason is None:
            report.kept += 1
            yield text
        else:
            report.dropped[reason] += 1


def unworthy(text: str, *, code: bool = False) -> str | None:
    """Return why a text is not worth keeping, or None."""
    if len(text) < CHARACTERS_MIN:
        return "short"
    if len(text) > CHARACTERS_MAX:
        return "long"
    if "\ufffd" in text or "\x00" in text:
        return "broken-encoding"
    return None if code else _unlike_prose(text)


def _unlike_prose(text: str) -> str | None:
    words = text.split()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if spaced(text) and not WORD_MIN <= sum(map(len, words)) / len(words) <= WORD_MAX:
        return "word-length"
    if (text.count("#") + text.count("...")) / len(words) > SYMBOLS_MAX:
        return "symbols"
    plain = sum(unicodedata.category(one)[0] in "LMZ" for one in text)
    if plain < LETTERS_MIN * len(text):
        return "few-letters"
    if len(lines) - len(set(lines)) > REPEATED_MAX * len(lines):
        return "repeated-lines"
    return None


def spaced(text: str) -> bool:
    """Say whether the script puts spaces between words: Chinese, Japanese and Thai do not."""
    wide = re.findall(r"[\u0e00-\u0e7f\u1000-\u109f\u3040-\u30ff\u4e00-\u9fff]", text)
    return len(wide) < 0.3 * len(text)


def shingles(text: str) -> set[bytes]:
    """Return the runs of five words, or of five letters where words have no spaces."""
    parts = normal(text).split() if spaced(text) else list(normal(text))
    count = max(1, len(parts) - SHINGLE + 1)
    return {" ".join(parts[start : start + SHINGLE]).encode() for start in range(count)}


def normal(text: str) -> str:
    """Return a text as duplicates are compared: one case, one form, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _seen_before(text: str, exact: set[bytes]) -> str | None:
    digest = hashlib.sha256(normal(text).encode()).digest()
    if digest in exact:
        return "duplicate"
    exact.add(digest)
    return None
