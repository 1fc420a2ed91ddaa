"""The forward pass of a BLIP2-Adapter, recorded for its costs: see `models/common/cost_tape.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.blip2.config import Blip2Config
from models.blip2.parameter_count import is_like_llama, llama_like
from models.common.cost import MicroBatch, NoCost
from models.common.cost_blocks import (
    cross_attention,
    feed_forward,
    llama_layer,
    patches,
    pre_norm_layer,
    self_attention,
)
from models.common.cost_memory import Activation
from models.common.cost_tape import Tape


def record(tape: Tape, config: Blip2Config, objective: str, settings: Mapping[str, Any], batch: MicroBatch) -> None:
    """Record one micro-batch of an objective; no setting changes what it costs.

    Raises NoCost for a language model of another family than OPT and those with LLaMA's layers.
    """
    shape = config.language.shape
    if objective != "representation" and shape is not None and not is_like_llama(shape):
        raise NoCost(f"{config.name}: the costs of a {shape['model_type']!r} language model are not known")
    image = _vision(tape, config, batch.images)
    if objective == "representation":
        _representation(tape, config, image, batch)
    else:
        _language_modeling(tape, config, image, batch)


def _vision(tape: Tape, config: Blip2Config, images: int) -> Activation:
    """All tokens of each image: [images x tokens, width]."""
    vision = config.vision
    with tape.part("vision"):
        x = patches(
            tape,
            images,
            vision.patches,
            vision.patch_size,
            vision.width,
            bias=vision.family != "clip",
            class_token=vision.family != "siglip",
        )
        if vision.family == "clip":
            x = tape.norm(x, "norm_before")
        for index in range(vision.layers):
            with tape.layer("layers", index, x):
                x = pre_norm_layer(tape, x, images, vision.heads, vision.mlp_width)
        return tape.norm(x, "norm")


def _representation(tape: Tape, config: Blip2Config, image: Activation, batch: MicroBatch) -> None:
    """ITC over all ranks, ITM over the pairs and two hard negatives of each, ITG over the targets."""
    images, texts, tokens = batch.images, batch.texts, 1 + batch.target
    size, queries = config.heads.projection, config.qformer.queries
    ranks = batch.data_ranks
    image_queries = _qformer(tape, config, images, image=image)
    text = _qformer(tape, config, texts, text=tokens)
    with tape.part("heads"):
        image_features = tape.linear(image_queries, size, "image")
        text_features = tape.linear(tape.view(text, texts), size, "text")
        all_images = tape.move(image_features, rows=image_features.rows * ranks)
        all_texts = tape.move(text_features, rows=text_features.rows * ranks)
        tape.loss(tape.product(text_features, all_images, size))
        tape.loss(tape.product(image_features, all_texts, size))
        # Similarities for the hard negatives take no gradient.
        rows = tape.tensor(text_features.rows, size)
        tape.product(rows, tape.tensor(image_features.rows, size), size)
        tape.weight("scale", 1)
    per_image = image.rows / images
    tripled = tape.move(image, rows=3 * texts * per_image)
    pairs = _qformer(tape, config, 3 * texts, image=tripled, text=tokens)
    with tape.part("heads"):
        tape.loss(tape.linear(tape.view(pairs, 3 * texts * queries), 2, "matching"))
    written = _qformer(tape, config, texts, image=tape.move(image, rows=texts * per_image), text=batch.target)
    with tape.part("qformer_text"):
        hidden = tape.move(written, rows=texts * batch.target)
        tape.chunked_loss(hidden, config.vocabulary, "words")


def _qformer(
    tape: Tape, config: Blip2Config, batch: float, *, image: Activation | None = None, text: int = 0
) -> Activation:
    """Queries (if there is an image to attend to) and ``text`` tokens of each of the batch, through all layers."""
    qformer = config.qformer
    width, queries = qformer.width, qformer.queries if image is not None else 0
    parts = []
    if queries:
        with tape.part("qformer"):
            parts.append(tape.parameter(batch * queries, width, "queries", qformer.queries * width))
    if text:
        with tape.part("qformer_text"):
            words = tape.parameter(batch * text, width, "words", config.vocabulary * width)
            positions = tape.parameter(batch * text, width, "positions", qformer.text_positions * width)
            parts.append(tape.add(words, positions))
    with tape.part("qformer"):
        x = tape.move(*parts) if len(parts) > 1 else parts[0]
        x = tape.dropout(tape.norm(x, "norm"), qformer.dropout)
        for index in range(qformer.layers):
            inputs = [x] if image is None else [x, image]
            with tape.layer("layers", index, *inputs):
                x = _qformer_layer(tape, config, x, image, batch, queries, text, index)
    return x


def _qformer_layer(
    tape: Tape,
    config: Blip2Config,
    x: Activation,
    image: Activation | None,
    batch: float,
    queries: int,
    text: int,
    index: int,
) -> Activation:
    """BERT's: the norm comes after the sum; queries alone attend to the image; each kind has its own feed-forward."""
    qformer = config.qformer
    attended = self_attention(tape, x, batch, qformer.heads, split=False)
    x = tape.norm(tape.add(tape.dropout(attended, qformer.dropout), x), "norm")
    outputs = []
    if queries and image is not None:
        own = tape.view(x, batch * queries) if text else x
        if index % qformer.cross_attention_every == 0:
            with tape.scope("cross"):
                attended = cross_attention(tape, own, image, batch, qformer.heads, split=False)
                own = tape.norm(tape.add(tape.dropout(attended, qformer.dropout), own), "norm")
        with tape.scope("query"):
            outputs.append(_post_norm_feed_forward(tape, own, config))
    if text:
        own = tape.view(x, batch * text) if queries else x
        with tape.part("qformer_text"), tape.scope("text"):
            outputs.append(_post_norm_feed_forward(tape, own, config))
    return tape.move(*outputs) if len(outputs) > 1 else outputs[0]


def _post_norm_feed_forward(tape: Tape, x: Activation, config: Blip2Config) -> Activation:
    out = tape.dropout(feed_forward(tape, x, config.qformer.mlp_width, split=False), config.qformer.dropout)
    return tape.norm(tape.add(out, x), "norm")


def _language_modeling(tape: Tape, config: Blip2Config, image: Activation, batch: MicroBatch) -> None:
    """The target's tokens after bos and prompt, through the language model with its adapters or behind its prefix."""
    language, texts = config.language, batch.texts
    width, tokens = language.width, batch.prompt + batch.target  # bos is one more, the last target one less
    queries = tape.move(_qformer(tape, config, batch.images, image=image), rows=texts * config.qformer.queries)
    with tape.part("language"):
        x = tape.parameter(texts * tokens, width, "words", config.vocabulary * width)
    if config.bridge == "prefix":
        with tape.part("projection"):
            x = tape.move(tape.linear(queries, width, "projection"), x)
    with tape.part("language"):
        if language.shape is None:
            x = tape.add(x, tape.parameter(x.rows, width, "positions", (language.positions + 2) * width))
        for index in range(language.layers):
            if index in config.adapter_layers:
                with tape.layer("adapters", index, x, queries), tape.part("adapters"):
                    x = _adapter(tape, x, queries, texts, language.heads)
            with tape.layer("layers", index, x):
                x = _language_layer(tape, config, x, texts)
        tied = True
        if language.shape is None:
            x = tape.norm(x, "norm")
        else:
            x = tape.rms_norm(x, "norm")
            tied = bool(language.shape.get("tie_word_embeddings", False))
        scored = tape.move(x, rows=texts * batch.target)
        tape.chunked_loss(scored, config.vocabulary, "words" if tied else "output")


def _language_layer(tape: Tape, config: Blip2Config, x: Activation, texts: int) -> Activation:
    language = config.language
    if language.shape is None:
        return pre_norm_layer(
            tape, x, texts, language.heads, language.mlp_width, relu=True, scaled=True, dropout=language.dropout
        )
    decoder = llama_like(language.shape)
    return llama_layer(
        tape,
        x,
        texts,
        heads=language.heads,
        key_heads=decoder.keys // decoder.size,
        head_width=decoder.size,
        hidden=language.mlp_width,
        biases=(decoder.biased, decoder.of_attention, decoder.of_mlp),
        query_norms=decoder.normed,
    )


def _adapter(tape: Tape, x: Activation, queries: Activation, texts: int, heads: int) -> Activation:
    """``x + tanh(gate) * attention(norm(x), queries)``, its projections without biases."""
    with tape.holding(x):
        query = tape.linear(tape.norm(x, "norm"), x.width, "query", bias=False)
        key = tape.linear(queries, x.width, "key", bias=False)
        value = tape.linear(queries, x.width, "value", bias=False)
        attended = tape.attention(query, key, value, texts, heads)
        return tape.add(x, tape.scale(tape.linear(attended, x.width, "out", bias=False), "gate"))
