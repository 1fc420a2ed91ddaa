"""The forward pass of a Florence-2, recorded for its costs: see `models/common/cost_tape.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.common.cost import MicroBatch
from models.common.cost_blocks import cross_attention, feed_forward, patches, pre_norm_layer, self_attention
from models.common.cost_memory import Activation
from models.common.cost_tape import Tape
from models.florence2.config import Florence2Config, MaskedAutoencodingSettings


def record(tape: Tape, config: Florence2Config, objective: str, settings: Mapping[str, Any], batch: MicroBatch) -> None:
    """Record one micro-batch of an objective."""
    if objective == "masked_autoencoding":
        _masked_autoencoding(tape, config, MaskedAutoencodingSettings.model_validate(dict(settings)), batch)
    else:
        _sequence_to_sequence(tape, config, batch)


def _vision(tape: Tape, config: Florence2Config, images: int, kept: int | None = None) -> Activation:
    """Encode all patches, or ``kept`` of each image: [images x (1 + patches), width]."""
    vision = config.vision
    with tape.part("vision"):
        x = patches(tape, images, vision.patches, vision.patch_size, vision.width, bias=True)
        if kept is not None:
            x = tape.move(tape.move(x, rows=images * kept), rows=images * (1 + kept))
        for index in range(vision.layers):
            with tape.layer("layers", index, x):
                x = pre_norm_layer(tape, x, images, vision.heads, vision.mlp_width)
        return tape.norm(x, "norm")


def _masked_autoencoding(
    tape: Tape, config: Florence2Config, settings: MaskedAutoencodingSettings, batch: MicroBatch
) -> None:
    vision, light, images = config.vision, config.reconstruction, batch.images
    kept = max(1, min(vision.patches - 1, round(vision.patches * (1 - settings.mask_ratio))))
    encoded = _vision(tape, config, images, kept)
    with tape.part("reconstruction"):
        tokens = tape.linear(encoded, light.width, "embed")
        filled = tape.move(
            tape.view(tokens, images * kept),
            tape.parameter(images * (vision.patches - kept), light.width, "hidden", light.width),
        )
        x = tape.add(
            tape.move(filled, rows=images * (1 + vision.patches)),
            tape.parameter(1 + vision.patches, light.width, "positions"),
        )
        for index in range(light.layers):
            with tape.layer("layers", index, x):
                x = pre_norm_layer(tape, x, images, light.heads, light.mlp_width)
        predicted = tape.linear(tape.norm(x, "norm"), 3 * vision.patch_size**2, "predict")
        tape.loss(tape.view(predicted, images * vision.patches))


def _sequence_to_sequence(tape: Tape, config: Florence2Config, batch: MicroBatch) -> None:
    vision, language, texts = config.vision, config.language, batch.texts
    width, words, positions = language.width, config.vocabulary * language.width, language.positions + 2
    image = tape.view(_vision(tape, config, batch.images), batch.images * vision.patches)
    with tape.part("projector"):
        image = tape.norm(tape.linear(image, width, "projection"), "norm")
        image = tape.move(image, rows=texts * vision.patches)
    with tape.part("language"):
        states = tape.move(image, tape.parameter(texts * batch.prompt, width, "words", words))
        states = tape.add(states, tape.parameter(states.rows, width, "encoder.positions", positions * width))
        states = tape.norm(states, "encoder.norm_embeddings")
        for index in range(language.encoder_layers):
            with tape.layer("encoder", index, states):
                states = pre_norm_layer(
                    tape,
                    states,
                    texts,
                    language.heads,
                    language.mlp_width,
                    dropout=language.dropout,
                )
        states = tape.norm(states, "encoder.norm")
        x = tape.scale(tape.parameter(texts * batch.target, width, "words", words))
        x = tape.add(x, tape.parameter(x.rows, width, "decoder.positions", positions * width))
        x = tape.norm(x, "decoder.norm_embeddings")
        for index in range(language.decoder_layers):
            with tape.layer("decoder", language.encoder_layers + index, x, states):
                x = _decoder_layer(tape, config, x, states, texts)
        tape.chunked_loss(tape.move(tape.norm(x, "decoder.norm")), config.vocabulary, "words")


def _decoder_layer(tape: Tape, config: Florence2Config, x: Activation, states: Activation, texts: int) -> Activation:
    """mBART's: self-attention, attention to the encoder's states, feed-forward; each with a norm before it."""
    language = config.language
    with tape.holding(x):
        attended = self_attention(tape, tape.norm(x, "norm1"), texts, language.heads)
        x = tape.add(x, tape.dropout(attended, language.dropout))
    with tape.holding(x), tape.scope("cross"):
        attended = cross_attention(tape, tape.norm(x, "norm"), states, texts, language.heads)
        x = tape.add(x, tape.dropout(attended, language.dropout))
    with tape.holding(x):
        out = feed_forward(tape, tape.norm(x, "norm2"), language.mlp_width)
        return tape.add(x, tape.dropout(out, language.dropout))
