"""The Q-Former: learned queries that attend to the image and share self-attention with the text of stage 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from models.blip2.config import Blip2Config
from models.common.output_layer import OutputLayer
from models.common.text import positions


def qformer_config(config: Blip2Config) -> Blip2QFormerConfig:
    """The `transformers` config of the Q-Former."""
    qformer = config.qformer
    return Blip2QFormerConfig(
        vocab_size=config.vocabulary,
        hidden_size=qformer.width,
        num_hidden_layers=qformer.layers,
        num_attention_heads=qformer.heads,
        intermediate_size=qformer.mlp_width,
        hidden_dropout_prob=qformer.dropout,
        attention_probs_dropout_prob=qformer.dropout,
        max_position_embeddings=qformer.text_positions,
        cross_attention_frequency=qformer.cross_attention_every,
        encoder_hidden_size=config.vision.width,
        use_qformer_text_input=True,
        initializer_range=config.initialiser_range,
    )


class QueryTokens(nn.Module):
    """The learned queries."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(1, count, width))

    def forward(self, batch: int) -> Tensor:
        """The queries for a batch: [batch, queries, width]."""
        return self.tokens.expand(batch, -1, -1)


class TextEmbeddings(nn.Module):
    """Stage 1's token and position embeddings, and the output layer tied to the former."""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.output = OutputLayer(width, vocabulary, bias=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed right-padded texts: int64 [n, length] -> [n, length, width]."""
        return self.words(ids) + self.positions(positions(mask))


def _for_keys(mask: Tensor) -> Tensor:
    """bool [n, 1, 1, length]: the attention mask that a padding mask [n, length] stands for.

    `transformers` would build it too, after looking whether there is any padding at all, for which a GPU is waited for.
    """
    return mask[:, None, None, :].bool()


class QFormer(nn.Module):
    """`transformers`' Q-Former with its queries and its text embeddings."""

    def __init__(self, config: Blip2Config) -> None:
        super().__init__()
        qformer = config.qformer
        self.queries = QueryTokens(qformer.queries, qformer.width)
        self.text = TextEmbeddings(config.vocabulary, qformer.text_positions, qformer.width)
        self.body = Blip2QFormerModel(qformer_config(config))

    def encode_image(self, image: Tensor) -> Tensor:
        """Queries alone, attending to the image: [m, tokens, vision width] -> [m, queries, width]."""
        return self.body(query_embeds=self.queries(image.shape[0]), encoder_hidden_states=image).last_hidden_state

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Text alone, attention in both directions: [n, length] -> the first token's state [n, width]."""
        states = self.body(query_embeds=self.text(ids, mask), query_length=0, attention_mask=_for_keys(mask))
        return states.last_hidden_state[:, 0]

    def encode_pair(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Queries and text attending to each other: image [n, ...], text [n, length] -> [n, queries, width]."""
        queries = self.queries(len(ids))
        mask = torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1)
        states = self.body(
            query_embeds=torch.cat([queries, self.text(ids, mask[:, queries.shape[1] :])], dim=1),
            query_length=queries.shape[1],
            attention_mask=_for_keys(mask),
            encoder_hidden_states=image,
        )
        return states.last_hidden_state[:, : queries.shape[1]]

    def decode(self, image: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Text attending to the queries and the tokens before; states that predict the next token, [n, length, width].

        Queries attend to each other only (the multimodal causal mask, BLIP-2 section 3.1). Texts are padded on the
        right, where no token attends to the padding, so one mask serves all; `text.output` gives the logits.
        """
        queries = self.queries(len(ids))
        count, length = queries.shape[1], ids.shape[1]
        attended = torch.ones(count + length, count + length, dtype=torch.bool, device=ids.device).tril()
        attended[:count, :count] = True
        states = self.body(
            query_embeds=torch.cat([queries, self.text(ids, mask)], dim=1),
            query_length=count,
            attention_mask=attended[None, None],
            encoder_hidden_states=image,
        )
        return states.last_hidden_state[:, count:]

    def parts(self) -> dict[str, nn.Module]:
        """``qformer`` (used in every stage) and ``qformer_text`` (weights that only stage 1's texts pass through)."""
        shared: list[nn.Module] = [self.queries, self.body.layernorm]
        text: list[nn.Module] = [self.text]
        layers: Any = self.body.encoder.layer
        for layer in layers:
            shared += [layer.attention, layer.intermediate_query, layer.output_query]
            shared += [layer.crossattention] if layer.has_cross_attention else []
            text += [layer.intermediate, layer.output]
        return {"qformer": nn.ModuleList(shared), "qformer_text": nn.ModuleList(text)}
