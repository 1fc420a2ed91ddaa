"""A tape on which an architecture records the operations of its forward pass, without torch: FLOPs, weights, memory.

Only matrix products count as FLOPs (a multiply-add is two), as in PaLM (Chowdhery et al. 2022, appendix B) and
`torch.utils.flop_counter`; attention counts all pairs of tokens, masked ones too.

A frozen part costs its forward pass, and the gradient of its input where something before it learns; it keeps what that
gradient needs and no more: a frozen linear layer keeps nothing, since its gradient is a product with its weight.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from models.common.cost import Flops
from models.common.cost_memory import FLOAT32, Activation, ActivationMemory, BackwardMoment


class Tape:
    """Records the operations of one micro-batch on one rank."""

    def __init__(
        self,
        *,
        trainable: Collection[str],
        size: int = 2,
        checkpointing: Mapping[str, int] | None = None,
        loss_chunk: int = 1024,
        tensor_parallel: int = 1,
        on_gpu: bool = True,
    ) -> None:
        """`trainable`: parts that learn. `size`: bytes of an element in training. `checkpointing`: part -> k, as
        `train.activation_checkpointing`. `tensor_parallel`: ranks that share the split matrices. `on_gpu`:
        whether sums of tensors of two dtypes convert numbers as they go; on a CPU torch makes a converted copy."""
        self.trainable = frozenset(trainable)
        self.size = size
        self.checkpointing = dict(checkpointing or {})
        self.loss_chunk = loss_chunk
        self.tensor_parallel = tensor_parallel
        self.on_gpu = on_gpu
        self.flops: dict[str, Flops] = {}
        """By part, in the order in which parts first compute."""
        self.weights: dict[str, dict[str, float]] = {}
        """Part -> name -> elements, of every weight used, whole, in the order of first use."""
        self.layers: dict[tuple[str, str], float] = {}
        """(part, name with number) of a layer -> elements of this rank's weights first used in it, of any part."""
        self.split: dict[str, float] = {}
        """Part -> elements of weights that tensor parallelism splits."""
        self.split_traffic = 0.0
        """Bytes of the tensors that ranks sharing weights add up, forward and backward."""
        self._part = ""
        self._scope = ""
        self._layer: tuple[str, str] | None = None
        self._memory = ActivationMemory(size)
        self._record = self._memory.record
        #: Part -> forward FLOPs of the checkpointed layer that is being recorded.
        self._layer_flops: dict[str, float] | None = None

    # What surrounds operations

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Operations inside belong to this part."""
        before, self._part = self._part, name
        yield
        self._part = before

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Weights inside are named under this one."""
        before, self._scope = self._scope, f"{self._scope}{name}."
        yield
        self._scope = before

    @contextmanager
    def layer(self, name: str, index: int, *inputs: Activation) -> Iterator[None]:
        """A layer of the part, whose inputs are all it keeps if checkpointing says so; `name` scopes its weights."""
        scope, self._scope = self._scope, f"{self._scope}{name}.{index}."
        self._layer = (self._part, f"{name}.{index}")
        every = self.checkpointing.get(self._part)
        if every and index % every == 0 and self._layer_flops is None:
            self._layer_flops = {}
            with self._memory.checkpointed_layer(inputs) as layer:
                yield
            flops, self._layer_flops = self._layer_flops, None
            if layer.operations:
                for part, forward in flops.items():
                    self.flops[part].recomputed += forward
        else:
            yield
        self._scope, self._layer = scope, None

    def holding(self, *activations: Activation) -> AbstractContextManager[None]:
        """Tensors that stay alive meanwhile although no operation keeps them, such as a residual."""
        return self._memory.holding(*activations)

    @property
    def learns(self) -> bool:
        """Whether the current part's weights learn."""
        return self._part in self.trainable

    def tensor(self, rows: float, width: float, *, grad: bool = False, size: int | None = None) -> Activation:
        """A tensor that no recorded operation makes, such as the pixels."""
        return Activation(rows, width, size or self.size, grad)

    # Operations

    def weight(self, name: str, elements: float, *, split: bool = False) -> dict[str, float]:
        """Note a weight of the current part; returns it, if it learns, for the operation that uses it."""
        key = f"{self._scope}{name}"
        used = self.weights.setdefault(self._part, {})
        own = elements / self.tensor_parallel if split else elements
        if key not in used:
            used[key] = elements
            if split:
                self.split[self._part] = self.split.get(self._part, 0.0) + elements
            if self._layer is not None:
                self.layers[self._layer] = self.layers.get(self._layer, 0.0) + own
        return {f"{self._part}.{key}": own} if self.learns else {}

    def parameter(self, rows: float, width: float, name: str, elements: float | None = None) -> Activation:
        """Rows read out of weights: an embedding, positions, query tokens."""
        weights = self.weight(name, rows * width if elements is None else elements)
        out = Activation(rows, width, self.size, self.learns)
        self._record(out, weights=weights)
        return out

    def linear(
        self, x: Activation, outputs: float, name: str, *, bias: bool = True, split: str = "", keep: bool = True
    ) -> Activation:
        """A linear layer [rows, width] -> [rows, outputs]. ``split`` (`column`, `row`): how tensor parallelism cuts it;
        ``keep=False`` if its input is kept by something else already."""
        ranks = self.tensor_parallel if split else 1
        # A column-split layer has a rank's share of the outputs; a row-split one gets a rank's share of the inputs.
        own_outputs = outputs / ranks if split == "column" else outputs
        inputs = x.width * ranks if split == "row" else x.width
        weights = self.weight(name, inputs * outputs + (outputs if bias else 0), split=bool(split))
        flops = 2 * x.rows * x.width * own_outputs
        out = Activation(x.rows, own_outputs, self.size, x.grad or self.learns)
        if ranks > 1:
            self.split_traffic += out.bytes if split == "row" else x.bytes if x.grad else 0
        self._count(flops, flops if x.grad else 0, flops if self.learns else 0)
        self._record(out, inputs=[x], kept=[x] if self.learns and keep else [], weights=weights)
        return out

    def norm(self, x: Activation, name: str) -> Activation:
        """A layer norm: keeps its input, and mean and deviation of each row."""
        weights = self.weight(name, 2 * x.width)
        out = Activation(x.rows, x.width, self.size, x.grad or self.learns)
        kept = [x] if out.grad else []
        self._record(out, inputs=[x], kept=kept, kept_bytes=2 * FLOAT32 * x.rows if kept else 0, weights=weights)
        return out

    def rms_norm(self, x: Activation, name: str, width: float = 0) -> Activation:
        """A root mean square norm as `transformers` writes it: over ``width`` numbers (0: all), in float32, of which it
        keeps a copy, and what the scale multiplies."""
        weights = self.weight(name, width or x.width)
        out = Activation(x.rows, x.width, self.size, x.grad or self.learns)
        copy = x.rows * x.width * FLOAT32 if self.size < FLOAT32 else 0
        normed = x.bytes if self.learns else 0
        kept_bytes = 2 * FLOAT32 * x.rows + normed + copy if out.grad else 0
        kept = [x] if out.grad and not copy else []
        self._record(out, inputs=[x], kept=kept, kept_bytes=kept_bytes, weights=weights)
        return out

    def times(self, x: Activation, y: Activation) -> Activation:
        """A product, number by number; keeps either for the other's gradient."""
        out = Activation(x.rows, x.width, x.size, x.grad or y.grad)
        kept = [t for t, other in ((x, y), (y, x)) if other.grad]
        self._record(out, inputs=[x, y], kept=kept)
        return out

    def activation(self, x: Activation, *, keeps_output: bool = False) -> Activation:
        """A pointwise function, of whose backward pass the input is needed (GELU), or the output (ReLU)."""
        out = Activation(x.rows, x.width, x.size, x.grad)
        kept = [out if keeps_output else x] if x.grad else []
        self._record(out, inputs=[x], kept=kept)
        return out

    def scale(self, x: Activation, weight: str = "") -> Activation:
        """Times a number; times a learned one, which needs the input for its gradient, if ``weight`` names it."""
        weights = self.weight(weight, 1) if weight else {}
        out = Activation(x.rows, x.width, x.size, x.grad or bool(weights))
        self._record(out, inputs=[x], kept=[x] if weights else [], weights=weights)
        return out

    def dropout(self, x: Activation, p: float) -> Activation:
        """Keeps its mask, a byte per element."""
        if not p:
            return x
        out = Activation(x.rows, x.width, x.size, x.grad)
        self._record(out, inputs=[x], kept_bytes=x.rows * x.width if x.grad else 0)
        return out

    def add(self, x: Activation, y: Activation) -> Activation:
        """A sum; keeps nothing."""
        out = Activation(x.rows, x.width, x.size, x.grad or y.grad)
        self._record(out, inputs=[x, y], passes=True)
        return out

    def move(self, *inputs: Activation, rows: float | None = None) -> Activation:
        """A copy of rows: concatenated, gathered, repeated."""
        total = sum(x.rows for x in inputs) if rows is None else rows
        out = Activation(total, inputs[0].width, inputs[0].size, any(x.grad for x in inputs))
        self._record(out, inputs=inputs)
        return out

    def view(self, x: Activation, rows: float) -> Activation:
        """Some of the rows, not copied; its gradient is as large as the whole."""
        out = Activation(rows, x.width, x.size, x.grad)
        self._record(out, inputs=[x], moves=False)
        return out

    def attention(
        self, query: Activation, key: Activation, value: Activation, batch: float, heads: float
    ) -> Activation:
        """Fused attention (Dao et al. 2022): keeps query, key, value, its output, and a float per row and head.

        ``heads`` of the whole layer; the width of the three is this rank's.
        """
        length, memory = query.rows / batch, key.rows / batch
        product = 2 * batch * length * memory * query.width
        grad = query.grad or key.grad or value.grad
        scores = query.grad or key.grad
        self._count(2 * product, product * (query.grad + key.grad + value.grad + scores), 0)
        out = Activation(query.rows, query.width, query.size, grad)
        statistics = FLOAT32 * query.rows * heads / self.tensor_parallel
        kept = [query, key, value, out] if grad else []
        self._record(out, inputs=[query, key, value], kept=kept, kept_bytes=statistics if grad else 0)
        return out

    def product(self, x: Activation, y: Activation, inner: float) -> Activation:
        """Every row of one with every row of the other, over ``inner`` numbers each: [x rows, y rows] in float32."""
        flops = 2 * x.rows * y.rows * inner
        self._count(flops, flops * (x.grad + y.grad), 0)
        out = Activation(x.rows, y.rows, FLOAT32, x.grad or y.grad)
        self._record(out, inputs=[x, y], kept=[t for t, other in ((x, y), (y, x)) if other.grad])
        return out

    def chunked_loss(self, x: Activation, vocabulary: int, name: str) -> None:
        """Cross-entropy over a vocabulary in chunks of rows, its gradients made in the forward pass (Hsu et al. 2024).

        Alive at a time are a chunk's logits in float32, as they come and as their gradient goes in training precision;
        and, if the output weight [vocabulary, width] learns, its gradient in float32 with what a chunk adds. Kept are
        the gradients of the input and of the weight. Ranks that share weights share the vocabulary's rows.
        """
        weights = self.weight(name, vocabulary * x.width)
        rows = vocabulary / self.tensor_parallel
        flops = 2 * x.rows * x.width * rows
        self._count(flops, flops if x.grad else 0, flops if self.learns else 0)
        narrow = 0 if self.size == FLOAT32 else self.size
        workspace = min(self.loss_chunk, x.rows) * rows * (FLOAT32 + narrow)
        made = x.bytes if x.grad else 0
        if self.learns:
            converted = 0 if self.on_gpu or not narrow else FLOAT32
            workspace += rows * x.width * (FLOAT32 + self.size + converted)
            made += vocabulary * x.width * self.size
        self._record(
            None,
            inputs=[x],
            handed_over=made,
            weights=weights,
            workspace_forward=workspace + (x.bytes if x.grad else 0),
        )

    def loss(self, x: Activation) -> None:
        """A loss of a few numbers, computed in float32 from [rows, width]."""
        self._record(None, inputs=[x], kept_bytes=x.rows * x.width * FLOAT32, workspace=x.rows * x.width * FLOAT32)

    # What comes of them

    @property
    def forward_peak(self) -> float:
        """Bytes of activations at the most memory-hungry operation of the forward pass."""
        return self._memory.forward_peak

    @property
    def forward_peak_loss(self) -> float:
        """Of which for the chunk of logits and the gradients that the loss makes meanwhile."""
        return self._memory.forward_peak_loss

    @property
    def kept(self) -> float:
        """Bytes that are kept from the forward pass for the backward pass."""
        return self._memory.kept

    def backward(self) -> list[BackwardMoment]:
        """Autograd in reverse, operation by operation."""
        return self._memory.backward()

    def _count(self, forward: float, input_gradient: float, weight_gradient: float) -> None:
        flops = self.flops.setdefault(self._part, Flops())
        flops.forward += forward
        flops.input_gradient += input_gradient
        flops.weight_gradient += weight_gradient
        if self._layer_flops is not None:
            self._layer_flops[self._part] = self._layer_flops.get(self._part, 0.0) + forward
