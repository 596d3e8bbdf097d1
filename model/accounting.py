"""What a model costs, in closed form: parameters, floating-point operations, checkpoint bytes.

A test holds the parameters equal to the built model on the meta device, and the operations equal to
torch's own counter. Attention is counted in full, also where it is causal, as torch and PaLM's
model-FLOPs convention do. "6 N per token" would be twice too much here: a token visits one stack.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.config import KINDS, ModelConfig

FLOAT_BYTES = 4  #: weights and moments are kept in float32
REFERENCE = (4_096, 4_096)  #: encoder and decoder positions behind `flops_per_token`


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters by part of the model."""

    encoder: int
    decoder: int
    stems: int  #: image and video patches, audio frames, the kind embedding
    embeddings: int  #: tokens in, and tokens out unless tied
    hidden: int  #: of encoder and decoder together: matrices, which Muon updates

    @property
    def total(self) -> int:
        """All parameters, a tied matrix counted once."""
        return self.encoder + self.decoder + self.stems + self.embeddings


@dataclass(frozen=True, slots=True)
class Positions:
    """How much one sample puts through the model."""

    encoder: int  #: prompt positions, media among them
    decoder: int  #: answer positions
    patches: int = 0  #: of the encoder's: image and video patches
    sounds: int = 0  #: of the encoder's: pieces of sound


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Return the closed form of the parameters."""
    d = config.d_model
    attention, feed_forward = _attention(config), 3 * d * config.d_ff
    scales = 2 * config.head_dim  # QK-norm
    hidden = config.encoder_layers * (attention + feed_forward)
    hidden += config.decoder_layers * (2 * attention + feed_forward)
    stems = config.patch_features + config.audio_features + len(KINDS)
    return ParameterCount(
        encoder=config.encoder_layers * (attention + scales + feed_forward + 2 * d) + d,
        decoder=config.decoder_layers * (2 * (attention + scales) + feed_forward + 3 * d) + d,
        stems=stems * d,
        embeddings=config.vocabulary * d * (1 if config.tied else 2),
        hidden=hidden,
    )


def forward_flops(config: ModelConfig, at: Positions) -> int:
    """Return the operations of one sample forward; a multiplication and an addition are two."""
    return _trunk_flops(config, at) + _stem_flops(config, at)


def training_flops(config: ModelConfig, at: Positions) -> int:
    """Return the operations of one sample forward and backward, without recomputation.

    Backward costs twice forward, but for the stems: nobody asks for the gradient of pixels.
    """
    return 3 * _trunk_flops(config, at) + 2 * _stem_flops(config, at)


def flops_per_token(config: ModelConfig) -> int:
    """Return the training operations per position (encoder and decoder) at `REFERENCE`."""
    encoder, decoder = REFERENCE
    flops = training_flops(config, Positions(encoder, decoder))
    return round(flops / (encoder + decoder))


def checkpoint_bytes(config: ModelConfig) -> int:
    """Return the size of weights and moments: one moment under Muon, two under Adam."""
    count = count_parameters(config)
    moments = count.hidden + 2 * (count.total - count.hidden)
    return FLOAT_BYTES * (count.total + moments)


def _attention(config: ModelConfig) -> int:
    """Return the weights of one attention layer's four matrices."""
    wide, narrow = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return 2 * config.d_model * (wide + narrow)


def _trunk_flops(config: ModelConfig, at: Positions) -> int:
    d, wide = config.d_model, config.heads * config.head_dim
    narrow = config.kv_heads * config.head_dim
    feed_forward = 3 * d * config.d_ff
    encoder = at.encoder * (_attention(config) + feed_forward) + 2 * at.encoder**2 * wide
    decoder = at.decoder * (_attention(config) + 2 * d * wide + feed_forward)
    decoder += at.encoder * 2 * d * narrow  # keys and values of the cross-attention
    decoder += 2 * at.decoder * (at.decoder + at.encoder) * wide
    head = at.decoder * d * config.vocabulary
    return 2 * (config.encoder_layers * encoder + config.decoder_layers * decoder + head)


def _stem_flops(config: ModelConfig, at: Positions) -> int:
    features = at.patches * config.patch_features + at.sounds * config.audio_features
    return 2 * features * config.d_model
