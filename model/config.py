"""How big a model is: its dimensions and the presets; `accounting` says what they cost.

The 2024 Reka report gives sizes (7B, 21B) but no dimensions; those of the big presets are our own
choice, made so that 8 divides heads, key-value heads, feed-forward width and vocabulary. `core` is
a placeholder: the report gives no size for it. `demo` is for tests and for
`holdfast demo`, where a step must be quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: The modalities; an index here is what `Prompt.kinds` holds and a row of the kind embedding.
KINDS = ("text", "image", "video", "audio")
TEXT, IMAGE, VIDEO, AUDIO = range(len(KINDS))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The dimensions of an encoder-decoder; everything else follows from them."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    vocabulary: int
    tied: bool  #: the output head is the transposed embedding
    patch: int  #: side of an image or video patch, pixels
    mels: int  #: log-mel bins of an audio frame
    sample_rate: int  #: Hz that sound is resampled to
    tile: int  #: pixels: a picture with a longer side is cut into tiles of this side
    audio_stride: int = 4  #: audio frames (of 10 ms) behind one encoder position
    encoder_theta: float = 10_000.0  #: RoPE base; apart, for long prompts need a bigger one
    decoder_theta: float = 10_000.0
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse dimensions that do not divide; raises ValueError."""
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads")
        if self.head_dim % 2 or self.d_model % 8:
            raise ValueError("positions need an even head_dim and a d_model divisible by 8")
        if self.tile % self.patch:
            raise ValueError(f"a tile of {self.tile} pixels is no whole number of patches")

    @property
    def patch_features(self) -> int:
        """Numbers in one RGB patch."""
        return 3 * self.patch**2

    @property
    def audio_features(self) -> int:
        """Numbers in the audio frames behind one encoder position."""
        return self.mels * self.audio_stride


PRESETS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "demo": ModelConfig(
            d_model=128,
            encoder_layers=2,
            decoder_layers=2,
            heads=4,
            kv_heads=2,
            head_dim=32,
            d_ff=352,
            vocabulary=4_096,
            tied=True,
            patch=8,
            mels=40,
            sample_rate=8_000,
            tile=64,
        ),
        "tiny": ModelConfig(
            d_model=256,
            encoder_layers=4,
            decoder_layers=4,
            heads=4,
            kv_heads=2,
            head_dim=64,
            d_ff=704,
            vocabulary=4_096,
            tied=True,
            patch=4,
            mels=40,
            sample_rate=8_000,
            tile=64,
        ),
        "small": ModelConfig(
            d_model=768,
            encoder_layers=9,
            decoder_layers=9,
            heads=12,
            kv_heads=4,
            head_dim=64,
            d_ff=2_048,
            vocabulary=32_768,
            tied=True,
            patch=16,
            mels=80,
            sample_rate=16_000,
            tile=256,
        ),
        "edge-7b": ModelConfig(
            d_model=4_096,
            encoder_layers=16,
            decoder_layers=16,
            heads=32,
            kv_heads=8,
            head_dim=128,
            d_ff=10_752,
            vocabulary=100_352,
            tied=False,
            patch=16,
            mels=128,
            sample_rate=16_000,
            tile=448,
            encoder_theta=500_000.0,
            decoder_theta=500_000.0,
        ),
        "flash-21b": ModelConfig(
            d_model=6_144,
            encoder_layers=24,
            decoder_layers=24,
            heads=48,
            kv_heads=8,
            head_dim=128,
            d_ff=15_360,
            vocabulary=100_352,
            tied=False,
            patch=16,
            mels=128,
            sample_rate=16_000,
            tile=448,
            encoder_theta=500_000.0,
            decoder_theta=500_000.0,
        ),
        "core": ModelConfig(
            d_model=8_192,
            encoder_layers=40,
            decoder_layers=40,
            heads=64,
            kv_heads=8,
            head_dim=128,
            d_ff=22_528,
            vocabulary=100_352,
            tied=False,
            patch=16,
            mels=128,
            sample_rate=16_000,
            tile=448,
            encoder_theta=500_000.0,
            decoder_theta=500_000.0,
        ),
    }
)
