"""Bad input in a whole run: counted, named, and training goes on; `generate` says what is wrong."""

from __future__ import annotations

import io
import json
import random
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from model import tokenizer, train
from model.__main__ import main
from model.config import PRESETS
from model.data import filters, shards
from model.media import pictures, sound
from model.media.medium import BadSampleError, Medium
from orchestrator.errors import UserError

CONFIG = PRESETS["demo"]
PROSE = "A long sentence about number {0} and what became of {0} in the end. " * 6


def wav(rate: int, peak: float = 0.1) -> bytes:
    buffer = io.BytesIO()
    samples = peak * np.sin(np.arange(800) / 9.0)
    soundfile.write(buffer, samples.astype(np.float32), rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def wav_that_says(rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(800))
    return buffer.getvalue()


def picture(container: str, frames: int = 1) -> bytes:
    buffer = io.BytesIO()
    shades = [Image.new("RGB", (20, 12), (20 * n, 90, 200 - n)) for n in range(frames)]
    more = {"save_all": True, "append_images": shades[1:]} if frames > 1 else {}
    shades[0].save(buffer, container, **more)
    return buffer.getvalue()


#: What is wrong, and the files of a sample that show it.
BAD = {
    "corrupt-image": {"png": picture("PNG")[:-30], "txt": b"a picture"},
    "empty-file": {"jpg": b"", "txt": b"a picture"},
    "corrupt-video": {"gif": picture("GIF", 4)[:-120], "txt": b"a video"},
    "wrong-sample-rate": {"wav": wav_that_says(12), "txt": b"a word"},
    "corrupt-sound": {"wav": wav(8_000, peak=1e30), "txt": b"a word"},
    "too-long": {"txt": b"word " * 2_000_000},  # 10 MB
    "bad-text": {"txt": b"\xff\xfe\x00 no UTF-8"},
    "no-text": {"wav": wav(8_000)},
}


def test_a_run_goes_on_counts_and_names_all_that_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    folder = tmp_path / "web"
    good = [{"txt": PROSE.format(number).encode()} for number in range(8)]
    shards.write([*good, *BAD.values()], folder, per_shard=20)
    (folder / "000001.tar").write_bytes(b"")
    (folder / "000002.tar").write_bytes(b"no tar at all" * 99)
    assert main(["shards", "index", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["damaged"][0].startswith("000001.tar: 0 bytes")
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[[stage]]\nname = "read"\nsteps = 4\nbatch = 8\nmixture = { "shards/web" = 1.0 }\n'
        f'prompt_max = 64\nanswer_max = 16\nshards = "{tmp_path}"\n'
    )
    assert train.main(["--preset", "demo", "--curriculum", str(plan)]) == 0
    told = capsys.readouterr()
    ended = json.loads(told.out)
    assert ended["step"] == 4
    assert 0.0 < ended["loss"] < 10.0
    counts = ended["damaged"]["counts"]
    assert set(counts) == {"shards/web: lost", *(f"shards/web: {flaw}" for flaw in BAD)}
    assert counts["shards/web: lost"] == 2
    named = ended["damaged"]["named"]
    assert len(named) == min(20, sum(counts.values()))
    assert [f"damaged sample: {one}" for one in named] == told.err.splitlines()[: len(named)]
    assert "shards/web: left out: 000001.tar: 0 bytes" in named


def test_a_prompt_of_10_mb_and_a_million_spaces_are_text() -> None:
    ranks = tokenizer.load()
    for text in ("word " * 2_000_000, " " * 1_000_000, "\n \n" * 30_000, "a" * 100_000):
        ids = ranks.encode(text)  # tiktoken alone dies of a million spaces
        assert max(ids) < ranks.vocabulary - len(tokenizer.SPECIAL)
        assert ranks.decode(ids) == text
    said = PROSE.format(3) * 100
    assert ranks.encode(said) == tuple(ranks.encoding.encode_ordinary(said))  # cut nowhere


def test_a_text_of_10_mb_is_dropped_by_the_filters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "long.txt").write_text("word " * 2_000_000)
    (tmp_path / "good.txt").write_text(" ".join(PROSE.format(number) for number in range(9)))
    assert filters.CHARACTERS_MAX == 1_000_000
    assert main(["shards", "build", str(tmp_path), str(tmp_path / "out")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["seen"], said["kept"], said["dropped"]) == (2, 1, {"long": 1})


@pytest.mark.parametrize(
    "row",
    [
        ["../secret.tar", "a", {"txt": [0, 9]}],
        ["a.tar", "a", {"txt": [-5, 9]}],
        ["a.tar", "a", {"txt": ["x", 9]}],
        ["a.tar", "a", "txt"],
        ["a.tar"],
        7,
    ],
)
def test_an_index_that_nobody_wrote_is_refused(tmp_path: Path, row: object) -> None:
    whole = {"version": shards.VERSION, "damaged": [], "samples": [row]}
    (tmp_path / shards.INDEX).write_text(json.dumps(whole))
    with pytest.raises(UserError, match="no index of shards"):
        shards.load(tmp_path)


def as_image(data: bytes) -> list[Medium]:
    return pictures.images(pictures.read_picture(data, "x"), CONFIG)


def as_video(data: bytes) -> list[Medium]:
    return [pictures.video(pictures.read_frames(data, "x"), CONFIG)]


def as_sound(data: bytes) -> list[Medium]:
    return [sound.sound(sound.read_sound(data, "x", 8_000), CONFIG)]


def flac() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(np.arange(900) / 7.0), 8_000, format="FLAC")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (picture("PNG"), as_image),
        (picture("JPEG"), as_image),
        (picture("WEBP"), as_image),
        (picture("GIF", 5), as_video),
        (picture("PNG", 5), as_video),
        (picture("WEBP", 5), as_video),
        (wav(8_000), as_sound),
        (flac(), as_sound),
    ],
    ids=["png", "jpeg", "webp", "gif", "apng", "webp-video", "wav", "flac"],
)
def test_a_file_with_any_bytes_changed_is_read_or_named(
    data: bytes, read: Callable[[bytes], list[Medium]]
) -> None:
    dice = random.Random(7)
    for number in range(60):
        changed = bytearray(data)
        for _ in range(dice.choice((1, 2, 5))):
            at = dice.randrange(len(changed))
            match dice.randrange(4):
                case 0:
                    changed[at] = dice.randrange(256)
                case 1:
                    changed[at : at + 4] = dice.choice(
                        (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff")
                    )
                case 2:
                    del changed[at : at + dice.randrange(1, 9)]
                case _:
                    changed[at:at] = dice.randbytes(dice.randrange(1, 9))
        try:
            media = read(bytes(changed))
        except BadSampleError as error:
            flaw, said = error.flaw, str(error)
            media = []
        else:
            flaw, said = "none", "x: read"
        assert flaw
        assert said.startswith("x: "), number
        assert all(np.isfinite(one.rows).all() for one in media), number


def test_frames_that_would_fill_the_memory_are_refused() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("1", (7_000, 5_000), n % 2) for n in range(3)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(BadSampleError, match="3 frames of 7000x5000 pixels; at most") as caught:
        pictures.read_frames(buffer.getvalue(), "x")
    assert caught.value.flaw == "huge-video"


def test_only_the_formats_that_are_promised_are_opened() -> None:
    for container in ("BMP", "TIFF", "PPM"):
        with pytest.raises(BadSampleError, match="use PNG, JPEG, WebP or GIF"):
            pictures.read_picture(picture(container), "x")
