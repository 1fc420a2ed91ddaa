"""The blocks that transformers are made of, as they are recorded on a `models.common.cost_tape.Tape`."""

from __future__ import annotations

from models.common.cost_memory import Activation
from models.common.cost_tape import Tape


def patches(
    tape: Tape, images: int, count: int, patch_size: int, width: int, *, bias: bool, class_token: bool = True
) -> Activation:
    """Pixels -> a token per patch, and the class token before them: [images x (1 + count), width]."""
    pixels = tape.tensor(images * count, 3 * patch_size**2)
    embedded = tape.linear(pixels, width, "patches", bias=bias)
    if class_token:
        embedded = tape.move(tape.parameter(images, width, "class", width), embedded)
    return tape.add(embedded, tape.parameter(class_token + count, width, "positions"))


def self_attention(
    tape: Tape, x: Activation, batch: float, heads: int, *, scaled: bool = False, split: bool = True
) -> Activation:
    """Projections with biases around attention among the tokens of each row of the batch; ``scaled``: OPT multiplies
    the query before the attention."""
    return cross_attention(tape, x, x, batch, heads, scaled=scaled, split=split)


def cross_attention(
    tape: Tape,
    x: Activation,
    memory: Activation,
    batch: float,
    heads: int,
    *,
    scaled: bool = False,
    split: bool = True,
) -> Activation:
    """Attention to other tokens, [batch x length, any width]; the output is as wide as ``x``."""
    width = x.width
    column, row = ("column", "row") if split else ("", "")
    query = tape.linear(x, width, "query", split=column)
    if scaled:
        query = tape.scale(query)
    key = tape.linear(memory, width, "key", split=column)
    value = tape.linear(memory, width, "value", split=column)
    attended = tape.attention(query, key, value, batch, heads)
    return tape.linear(attended, width, "out", split=row)


def feed_forward(tape: Tape, x: Activation, hidden: int, *, relu: bool = False, split: bool = True) -> Activation:
    """Two linear layers with a function between them."""
    column, row = ("column", "row") if split else ("", "")
    inner = tape.linear(x, hidden, "fc1", split=column)
    return tape.linear(tape.activation(inner, keeps_output=relu), x.width, "fc2", split=row)


def pre_norm_layer(
    tape: Tape,
    x: Activation,
    batch: float,
    heads: int,
    hidden: int,
    *,
    relu: bool = False,
    scaled: bool = False,
    dropout: float = 0.0,
) -> Activation:
    """Self-attention, then feed-forward, each added to what its norm read."""
    with tape.holding(x):
        attended = self_attention(tape, tape.norm(x, "norm1"), batch, heads, scaled=scaled)
        x = tape.add(x, tape.dropout(attended, dropout))
    with tape.holding(x):
        out = feed_forward(tape, tape.norm(x, "norm2"), hidden, relu=relu)
        return tape.add(x, tape.dropout(out, dropout))


def llama_layer(
    tape: Tape,
    x: Activation,
    batch: float,
    *,
    heads: int,
    key_heads: int,
    head_width: int,
    hidden: int,
    biases: tuple[bool, bool, bool],
    query_norms: bool,
) -> Activation:
    """LLaMA's (Touvron et al. 2023, section 2.2), with grouped keys; ``biases``: of query, key and value; of the
    attention's output; of the feed-forward block, which tensor parallelism does not split."""
    of_projections, of_output, of_mlp = biases
    with tape.holding(x):
        normed = tape.rms_norm(x, "norm1")
        query = tape.linear(normed, heads * head_width, "query", bias=of_projections, split="column")
        key = tape.linear(normed, key_heads * head_width, "key", bias=of_projections, split="column")
        value = tape.linear(normed, key_heads * head_width, "value", bias=of_projections, split="column")
        if query_norms:
            query = tape.rms_norm(query, "query_norm", head_width)
            key = tape.rms_norm(key, "key_norm", head_width)
        # Rotary positions: the turned copies are what the attention keeps.
        attended = tape.attention(tape.scale(query), tape.scale(key), value, batch, heads)
        x = tape.add(x, tape.linear(attended, x.width, "out", bias=of_output, split="row"))
    with tape.holding(x):
        normed = tape.rms_norm(x, "norm2")
        gate = tape.activation(tape.linear(normed, hidden, "gate", bias=of_mlp))
        inner = tape.times(gate, tape.linear(normed, hidden, "up", bias=of_mlp))
        return tape.add(x, tape.linear(inner, x.width, "down", bias=of_mlp))
