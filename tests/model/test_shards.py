"""Shards on disk: read at random, and damaged in every way that was thought of."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import tokenizer
from model.config import PRESETS
from model.curriculum import Stage
from model.data import filters, shards, sources
from model.data.feed import TRIES_MAX, Feed, Tally
from model.data.loader import REPLACED_MAX, Loader, Want
from model.data.order import Stream
from model.data.samples import Form, Sample
from model.media.medium import BadSampleError
from orchestrator.errors import PermanentError, UserError

FORM = Form(PRESETS["demo"], tokenizer.load(), prompt_max=128)
PROSE = "A long sentence about number {0} and what became of {0} in the end. " * 6


def texts(count: int) -> list[dict[str, bytes]]:
    return [{"txt": PROSE.format(number).encode()} for number in range(count)]


def feed(folder: Path, batch: int = 4) -> Feed:
    stage = Stage(name="t", steps=9, mixture={"shards/web": 1.0}, shards=str(folder))
    return Feed(sources.of_stage(stage), Stream(0, 0, (1.0,)), batch, FORM)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (9, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_was_written_is_read_in_any_order(tmp_path: Path) -> None:
    written = texts(25)
    shards.write(written, tmp_path, per_shard=10)
    assert len(list(tmp_path.glob("*.tar"))) == 3
    found = shards.load(tmp_path)
    assert len(found) == 25
    assert [found.read(number) for number in (24, 0, 13)] == [written[n] for n in (24, 0, 13)]


def test_equal_samples_give_equal_tars_that_any_reader_knows(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shards.write(texts(3), tmp_path / name)
    tars = [(tmp_path / name / "000000.tar").read_bytes() for name in ("one", "two")]
    assert hashlib.sha256(tars[0]).digest() == hashlib.sha256(tars[1]).digest()
    with tarfile.open(tmp_path / "one" / "000000.tar") as tar:
        assert tar.getnames() == [f"{number:09d}.txt" for number in range(3)]


def test_a_damaged_tar_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    shards.write(texts(20), tmp_path, per_shard=10)
    (tmp_path / "000001.tar").write_bytes(b"")
    (tmp_path / "000002.tar").write_bytes(b"no tar at all" * 99)
    found = shards.index(tmp_path)
    assert len(found) == 10
    assert [one.split(":")[0] for one in found.damaged] == ["000001.tar", "000002.tar"]
    assert "0 bytes" in found.damaged[0]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, "make it with: python -m model shards index"),
        ("{}", "no index of shards"),
        ('{"version": 9}', "version 9, expected 1"),
        ('{"version": 1, "damaged": ["a.tar: 0 bytes"], "samples": []}', "no samples; damaged tar"),
    ],
)
def test_a_bad_index_says_what_to_do(tmp_path: Path, body: str | None, says: str) -> None:
    if body is not None:
        (tmp_path / shards.INDEX).write_text(body)
    with pytest.raises(UserError, match=says):
        shards.load(tmp_path)


BAD = {
    "corrupt-image": {"png": b"\x89PNG broken", "txt": b"a picture"},
    "corrupt-sound": {"wav": b"RIFF broken", "txt": b"a word"},
    "no-text": {"png": png()},
    "bad-text": {"txt": b"\xff\xfe broken"},
    "too-long": {"txt": b"word " * 2_000_000},  # 10 MB
    "too-short": {"txt": b"a"},
    "empty-file": {"png": b"", "txt": b"a picture"},
}


@pytest.mark.parametrize("flaw", BAD)
def test_training_goes_on_without_a_damaged_sample(tmp_path: Path, flaw: str) -> None:
    shards.write([*texts(3), BAD[flaw]], tmp_path / "web")
    tally = Tally()
    one = feed(tmp_path)
    batches = [[one.sample(number, index, tally) for index in range(4)] for number in range(1, 4)]
    assert len(batches) == 3
    assert tally.counts[f"shards/web: {flaw}"] >= 3  # once in each pass; more as a substitute
    assert "shards/web, item 3: " in tally.named[0]
    again = Tally()
    assert one.sample(2, 1, again).prompt == batches[1][1].prompt  # still a pure function


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_shard_that_fails_after_it_was_indexed_is_counted(tmp_path: Path, harm: str) -> None:
    shards.write(texts(20), tmp_path / "web", per_shard=10)
    one = feed(tmp_path)
    bad = tmp_path / "web" / "000001.tar"
    if harm == "gone":
        bad.unlink()
    else:
        os.truncate(bad, 700)
    tally = Tally()
    for index in range(4):
        one.sample(3, index, tally)
        one.sample(4, index, tally)
    assert set(tally.counts) <= {"shards/web: missing-shard", "shards/web: short-shard"}
    assert tally.counts.total() > 0


def test_a_source_that_is_damaged_all_through_ends_the_run(tmp_path: Path) -> None:
    shards.write([{"txt": b"\xff"}] * 3, tmp_path / "web")
    with pytest.raises(PermanentError, match=f"{TRIES_MAX} samples running cannot be used"):
        feed(tmp_path).sample(1, 0, Tally())


def test_pictures_in_shards_are_captioned(tmp_path: Path) -> None:
    shards.write([{"png": png(), "txt": b"a dark picture"}], tmp_path / "web")
    made = feed(tmp_path).sample(1, 0, Tally())
    assert FORM.tokenizer.decode(made.answer) == "a dark picture"
    assert len(made.media) == 1


# ------------------------------------------------------------------------ workers that die


@dataclass(frozen=True)
class Deadly:
    """A source whose item kills its worker, the first time or always."""

    marker: Path
    always: bool = False

    def __len__(self) -> int:
        return 100

    def sample(self, item: int, dice: np.random.Generator, form: Form) -> Sample:
        if self.always or not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Sample((300 + item,), (0,), (5, 6))


def deadly_feed(marker: Path, *, always: bool = False) -> Feed:
    return Feed({"deadly": Deadly(marker, always)}, Stream(0, 0, (1.0,)), 3, FORM)


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    marker = tmp_path / "was killed"
    loader = Loader([deadly_feed(marker)], rank=0, world=1, workers=1)
    try:
        batches = [loader.get(Want(0, number)) for number in (1, 2)]
    finally:
        loader.close()
    assert loader.replaced == 1
    here = Loader([deadly_feed(marker)], rank=0, world=1, workers=0)
    for number, batch in enumerate(batches, 1):
        assert batch.prompt.tokens.tolist() == here.get(Want(0, number)).prompt.tokens.tolist()


def test_workers_that_always_die_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REPLACED_MAX > 2
    monkeypatch.setattr("model.data.loader.REPLACED_MAX", 1)
    loader = Loader([deadly_feed(tmp_path / "x", always=True)], rank=0, world=1, workers=1)
    with pytest.raises(PermanentError, match="pools of 1 workers died on batch 1 of stage 0"):
        loader.get(Want(0, 1))
    loader.close()


# ------------------------------------------------------------------------ what is kept


def test_filters_drop_and_count_what_is_not_worth_it() -> None:
    good = " ".join(f"Sentence {n} tells about the {n * 7} hills." for n in range(40))
    near = good.replace("Sentence 3 tells", "Sentence three tells")
    documents = [
        good,
        good.upper(),  # an exact duplicate but for its case
        near,
        "short",
        "\ufffd" * 300,
        "nothing # " * 300,
        "12345 67890 " * 40,
        "the same line\n" * 50,
        " ".join(["w" * 40] * 20),
    ]
    report = filters.Report()
    assert list(filters.worthy(documents, report)) == [good]
    assert report.seen == 9
    assert report.kept == 1
    assert dict(report.dropped) == {
        "duplicate": 1,
        "near-duplicate": 1,
        "short": 1,
        "broken-encoding": 1,
        "symbols": 1,
        "few-letters": 1,
        "repeated-lines": 1,
        "word-length": 1,
    }


def test_scripts_without_spaces_are_not_taken_for_long_words() -> None:
    line = "".join(chr(0x4E00 + n * 37 % 9_000) for n in range(400))
    assert filters.unworthy(line) is None


def test_code_need_not_look_like_prose() -> None:
    code = "\n".join(f"x_{n} = [{n}] # {{}}" for n in range(60))
    assert filters.unworthy(code) is not None
    assert filters.unworthy(code, code=True) is None


def test_a_flaw_is_a_users_error() -> None:
    assert BadSampleError("flaw", "words").exit_code == 2
