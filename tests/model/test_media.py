"""Pictures, sounds and videos of any shape, and those that are none."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from PIL import Image

from model.config import PRESETS
from model.media import pictures, sound
from model.media.medium import BadSampleError, patches

unhurried = given_settings(deadline=None)  # the machine may be busy

CONFIG = PRESETS["demo"]  # patches of 8, tiles of 64 pixels


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 100, 50)).save(buffer, "PNG")
    return buffer.getvalue()


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0, container: str = "WAV") -> bytes:
    buffer = io.BytesIO()
    times = np.arange(round(rate * seconds)) / rate
    soundfile.write(buffer, 0.5 * np.sin(2 * np.pi * hertz * times), rate, format=container)
    return buffer.getvalue()


def wav_that_says(rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(800))
    return buffer.getvalue()


@unhurried
@given(st.integers(1, 400), st.integers(1, 400))
def test_a_picture_of_any_size_becomes_whole_patches(height: int, width: int) -> None:
    media = pictures.images(np.zeros((height, width, 3), np.uint8), CONFIG)
    assert 1 <= len(media) <= 1 + pictures.TILES_MAX
    assert (len(media) > 1) == (max(height, width) > CONFIG.tile)
    for medium in media:
        assert medium.rows.shape == (len(medium.places), CONFIG.patch_features)
        assert 1 <= len(medium) <= (CONFIG.tile // CONFIG.patch) ** 2


def test_a_wide_picture_gets_a_wide_grid() -> None:
    assert pictures.grid(64, 256, 64) == (1, 4)
    assert pictures.grid(192, 192, 64) == (3, 3)
    assert pictures.grid(65, 65, 64) in {(1, 1), (2, 2)}


def test_patches_are_cut_in_reading_order() -> None:
    frames = np.arange(2 * 3 * 4 * 6, dtype=np.float32).reshape(2, 3, 4, 6)
    rows, places = patches(frames, 2)
    assert places.tolist()[:4] == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]]
    assert np.array_equal(rows[4].reshape(3, 2, 2), frames[0, :, 2:4, 2:4])
    assert np.array_equal(rows[6].reshape(3, 2, 2), frames[1, :, 0:2, 0:2])


def test_an_animation_is_sampled_evenly() -> None:
    frames = [Image.new("RGB", (16, 16), (number, 0, 0)) for number in range(0, 240, 4)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    read = pictures.read_frames(buffer.getvalue(), "a.png")
    assert len(read) == pictures.FRAMES_MAX
    reds = [int(frame[0, 0, 0]) for frame in read]
    assert reds == sorted(set(reds))
    assert pictures.video(read, CONFIG).places[:, 0].max() == pictures.FRAMES_MAX - 1


@pytest.mark.parametrize(
    ("data", "flaw", "says"),
    [
        (b"", "empty-file", "x.png: 0 bytes"),
        (b"hello", "corrupt-image", "x.png: no picture that Pillow can read"),
        (png(40, 40)[:60], "corrupt-image", "x.png"),
        (png(400, 4), "odd-shape", "400x4 pixels"),
        (png(9_000, 9_000), "huge-image", "9000x9000 pixels; at most 50,000,000"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, flaw: str, says: str) -> None:
    with pytest.raises(BadSampleError, match=says) as caught:
        pictures.read_picture(data, "x.png")
    assert caught.value.flaw == flaw


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG"])
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_sound_of_any_rate_keeps_its_pitch_and_length(container: str, rate: int) -> None:
    heard = sound.read_sound(tone(rate, container=container), "x", 8_000)
    assert len(heard) == pytest.approx(4_000, abs=2)
    spectrum = np.abs(np.fft.rfft(heard))
    assert spectrum.argmax() * 8_000 / len(heard) == pytest.approx(440, abs=3)
    assert np.abs(heard).max() == pytest.approx(0.5, rel=0.15)


def test_a_tone_lights_the_mel_bins_around_it() -> None:
    low, high = (
        sound.log_mel(sound.read_sound(tone(8_000, hertz=hertz), "x", 8_000), 8_000, 40)
        for hertz in (300.0, 2_000.0)
    )
    assert low.shape == (48, 40)  # 0.5 s in windows of 25 ms every 10 ms
    assert low.mean(0).argmax() < high.mean(0).argmax()
    assert -1.1 <= low.min() < low.max() <= 1.7


@pytest.mark.parametrize(
    ("data", "flaw", "says"),
    [
        (b"", "empty-file", "x.wav: 0 bytes"),
        (b"RIFFnothing", "corrupt-sound", "x.wav: no sound that libsndfile can read"),
        (wav_that_says(12), "wrong-sample-rate", "sample rate 12 Hz; 4000 to 384000 Hz"),
        (wav_that_says(2_000_000), "wrong-sample-rate", "sample rate 2000000 Hz"),
        (tone(8_000, seconds=0.0), "corrupt-sound", "no samples"),
    ],
)
def test_what_is_no_sound_is_named(data: bytes, flaw: str, says: str) -> None:
    with pytest.raises(BadSampleError, match=says) as caught:
        sound.read_sound(data, "x.wav", 8_000)
    assert caught.value.flaw == flaw


def test_sound_is_filled_up_to_whole_positions() -> None:
    medium = sound.sound(np.zeros(1_000, np.float32), CONFIG)
    assert medium.rows.shape == (3, CONFIG.audio_features)
    assert np.isfinite(medium.rows).all()
