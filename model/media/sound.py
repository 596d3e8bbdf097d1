"""Sound of any rate: opened, resampled, turned into log-mel frames, a few behind each position.

25 ms windows every 10 ms, mel bins as in Slaney's Auditory Toolbox, logarithm floored 8 decades
below the loudest bin, as Whisper does. numpy alone: the workers of the loader need no torch.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray

from model.config import AUDIO, ModelConfig
from model.media.medium import BadSampleError, Medium

HOP_S, WINDOW_S = 0.010, 0.025
RATE_MIN, RATE_MAX = 4_000, 384_000  #: Hz; a header that says something else is damaged
SECONDS_MAX = 600.0
NUMBERS_MAX = 60_000_000  #: samples of all channels: what a header may have us allocate
LOUDEST = 1e3  #: full scale is 1; what is far above was never sound, and would overflow
FLOOR = 1e-10
DECADES = 8.0

Samples = NDArray[np.float32]  #: (n,) in [-1, 1], one channel


def read_sound(data: bytes, name: str, rate: int) -> Samples:
    """Decode WAV, FLAC, Ogg, MP3... at `rate` Hz, channels mixed. Raises BadSampleError."""
    import soundfile  # here: who reads no file needs no libsndfile

    if not data:
        raise BadSampleError("empty-file", f"{name}: 0 bytes; expected sound")
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            _refuse(name, file.samplerate, file.frames, file.channels)
            heard = file.read(file.frames, dtype="float32", always_2d=True)
            found = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, ValueError, MemoryError) as error:
        text = f"{name}: no sound that libsndfile can read ({error}); use WAV, FLAC, Ogg or MP3"
        raise BadSampleError("corrupt-sound", text) from error
    if not len(heard) or not np.isfinite(heard).all():
        raise BadSampleError("corrupt-sound", f"{name}: no samples, or some are not finite")
    loudest = float(np.abs(heard).max())
    if loudest > LOUDEST:
        said = f"{name}: samples up to {loudest:.3g}; sound lies between -1 and 1"
        raise BadSampleError("corrupt-sound", said)
    return resampled(heard.mean(1, dtype=np.float32), found, rate)


class _Bytes(io.BytesIO):
    """A file for libsndfile, which asks for places before the beginning of a damaged one."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place, or stay where there is none."""
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def _refuse(name: str, rate: int, samples: int, channels: int) -> None:
    if not RATE_MIN <= rate <= RATE_MAX:
        said = f"{name}: sample rate {rate} Hz; {RATE_MIN} to {RATE_MAX} Hz are read"
        raise BadSampleError("wrong-sample-rate", said)
    if samples > SECONDS_MAX * rate:
        said = f"{name}: {samples / rate:.0f} s of sound; at most {SECONDS_MAX:.0f} s are read"
        raise BadSampleError("too-long", said)
    if samples * channels > NUMBERS_MAX:
        said = f"{name}: {samples:,} samples of {channels} channels; at most {NUMBERS_MAX:,} in all"
        raise BadSampleError("too-long", said)


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """Return the samples at another rate, band-limited (by their Fourier transform)."""
    if rate == wanted:
        return samples
    return stretched(samples, max(1, round(len(samples) * wanted / rate)))


def stretched(samples: Samples, length: int) -> Samples:
    """Return the same sound in `length` samples: higher and faster if they are fewer."""
    spectrum = np.fft.rfft(samples)
    wanted = np.zeros(length // 2 + 1, spectrum.dtype)
    kept = min(len(spectrum), len(wanted))
    wanted[:kept] = spectrum[:kept]
    out: Samples = np.fft.irfft(wanted, length).astype(np.float32) * np.float32(
        length / len(samples)
    )
    return out


def sound(samples: Samples, config: ModelConfig) -> Medium:
    """Return sound as the model reads it; a short rest is filled up with silence."""
    frames = log_mel(samples, config.sample_rate, config.mels)
    stride = config.audio_stride
    rest = -len(frames) % stride
    filled = np.concatenate([frames, np.full((rest, config.mels), frames.min(), np.float32)])
    rows = filled.reshape(len(filled) // stride, -1)
    return Medium(AUDIO, rows, np.arange(len(rows)))


def log_mel(samples: Samples, rate: int, mels: int) -> NDArray[np.float32]:
    """Return (frames, mels), about -1 to 1; one frame every 10 ms, at least one."""
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    spectrum = np.fft.rfft(cut * np.hanning(window).astype(np.float32), axis=1)
    power = (np.abs(spectrum) ** 2) @ mel_filters(rate, window, mels)
    decades = np.log10(np.maximum(power, FLOOR))
    floored = np.maximum(decades, decades.max() - DECADES)
    out: NDArray[np.float32] = ((floored + 4.0) / 4.0).astype(np.float32)
    return out


@cache
def mel_filters(rate: int, window: int, mels: int) -> NDArray[np.float64]:
    """Return triangles (bins, mels) on Slaney's mel scale, of equal area."""
    bins = np.linspace(0.0, rate / 2, window // 2 + 1)
    edges = _hertz(np.linspace(0.0, _mel(np.array(rate / 2)), mels + 2))
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    area: NDArray[np.float64] = triangles * (2.0 / (edges[2:] - edges[:-2]))
    return area


_LINEAR, _KNEE, _STEP = 200.0 / 3.0, 1_000.0, np.log(6.4) / 27.0


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE / _LINEAR + np.log(np.maximum(hertz, _KNEE) / _KNEE) / _STEP
    out: NDArray[np.float64] = np.where(hertz < _KNEE, hertz / _LINEAR, above)
    return out


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE * np.exp(_STEP * np.maximum(mel - _KNEE / _LINEAR, 0.0))
    out: NDArray[np.float64] = np.where(mel < _KNEE / _LINEAR, mel * _LINEAR, above)
    return out
