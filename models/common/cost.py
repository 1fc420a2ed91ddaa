"""What a forward and a backward pass cost: a tape on which an architecture records its operations, without torch.

An architecture's `cost.py` walks through its own forward pass with this module's `Tape` in place of torch: every
operation notes its FLOPs and which tensors autograd keeps for the backward pass. `Tape.flops` then has the FLOPs by
part, and `Tape.backward` replays autograd in reverse, so that the memory of activations and gradients is known at every
moment. Only matrix products count as FLOPs (a multiply-add is two), as in PaLM (Chowdhery et al. 2022, appendix B) and
`torch.utils.flop_counter`; attention counts all pairs of tokens, masked ones too.

A frozen part costs its forward pass, and the gradient of its input where something before it learns; it keeps what that
gradient needs and no more: a frozen linear layer keeps nothing, since its gradient is a product with its weight.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

FLOAT32 = 4


class NoCost(Exception):
    """The costs of a model are not known: its architecture has no formulas, or none for a part of this config."""


@dataclass(frozen=True)
class MicroBatch:
    """What one rank takes through the model at once; lengths in tokens, as padded."""

    images: int
    texts: int
    """Pairs of prompt and target."""
    prompt: int
    """Of a prompt, without the first token that the model adds."""
    target: int
    """Of a target, the end-of-text token included."""
    data_ranks: int = 1
    """Ranks over which a contrastive loss gathers."""


@dataclass(eq=False)
class Activation:
    """A tensor of the forward pass: [rows, width]."""

    rows: float
    width: float
    size: int
    """Bytes of an element."""
    grad: bool
    """Whether a gradient flows through it."""

    @property
    def bytes(self) -> float:
        """Its memory."""
        return self.rows * self.width * self.size


@dataclass
class Flops:
    """FLOPs of a part for the recorded micro-batch."""

    forward: float = 0.0
    input_gradient: float = 0.0
    """Of the backward pass, what carries the gradient on to the layers before."""
    weight_gradient: float = 0.0
    """Of the backward pass, the gradients of weights that learn."""
    recomputed: float = 0.0
    """Forward FLOPs that activation checkpointing spends a second time."""

    @property
    def backward(self) -> float:
        """Both kinds of gradients."""
        return self.input_gradient + self.weight_gradient

    @property
    def model(self) -> float:
        """What the computation needs however it is done: the FLOPs of MFU (PaLM, appendix B)."""
        return self.forward + self.backward

    @property
    def hardware(self) -> float:
        """What is executed, recomputation included."""
        return self.model + self.recomputed

    def divided(self, by: float) -> Flops:
        """Each of them divided."""
        return Flops(self.forward / by, self.input_gradient / by, self.weight_gradient / by, self.recomputed / by)


@dataclass(frozen=True)
class BackwardMoment:
    """One operation of the backward pass."""

    activations: float
    """Bytes of activations and of gradients of activations that are alive while it runs."""
    gradients_before: float
    """Elements of weights whose gradient exists already."""
    gradients_made: float
    """Elements of weights whose gradient it makes."""


@dataclass(eq=False)
class _Operation:
    kept: Sequence[Activation]
    kept_bytes: float
    """Kept beside activations: statistics, masks."""
    inputs: Sequence[Activation]
    out: Activation | None
    weights: Mapping[str, float]
    """Name -> elements of the weights that get a gradient."""
    workspace: float
    """Bytes alive only while its backward pass runs."""
    passes: bool
    """Whether the gradients of inputs are that of the output itself (a sum)."""
    handed_over: float
    """Bytes of gradients that the forward pass has made already."""


@dataclass(eq=False)
class _Segment:
    """A checkpointed layer: keeps its inputs alone."""

    inputs: Sequence[Activation]
    operations: list[_Operation] = field(default_factory=list)
    """Those of which there is a backward pass."""
    flops: dict[str, float] = field(default_factory=dict)
    """Part -> FLOPs of its forward pass."""


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
    ) -> None:
        """`trainable`: parts that learn. `size`: bytes of an element in training. `checkpointing`: part -> k, as
        `train.activation_checkpointing`. `tensor_parallel`: ranks that share the split matrices."""
        self.trainable = frozenset(trainable)
        self.size = size
        self.checkpointing = dict(checkpointing or {})
        self.loss_chunk = loss_chunk
        self.tensor_parallel = tensor_parallel
        self.flops: dict[str, Flops] = {}
        """By part, in the order in which parts first compute."""
        self.weights: dict[str, dict[str, float]] = {}
        """Part -> name -> elements, of every weight used, whole, in the order of first use."""
        self.split: dict[str, float] = {}
        """Part -> elements of weights that tensor parallelism splits."""
        self.split_traffic = 0.0
        """Bytes of the tensors that ranks sharing weights add up, forward and backward."""
        self.forward_peak = 0.0
        """Bytes of activations at the most memory-hungry operation of the forward pass."""
        self.forward_peak_loss = 0.0
        """Of which for the chunk of logits and the gradients that the loss makes meanwhile."""
        self._part = ""
        self._scope = ""
        self._operations: list[_Operation | _Segment] = []
        self._segment: _Segment | None = None
        self._kept: dict[int, Activation] = {}
        self._kept_total = 0.0
        self._held: list[Activation] = []

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
        every = self.checkpointing.get(self._part)
        checkpointed = bool(every) and index % (every or 1) == 0 and self._segment is None
        if checkpointed:
            self._segment = _Segment(inputs)
        yield
        self._scope = scope
        if checkpointed and self._segment is not None:
            segment, self._segment = self._segment, None
            if segment.operations:
                self._operations.append(segment)
                self._keep(segment.inputs, 0.0)
                for part, flops in segment.flops.items():
                    self.flops[part].recomputed += flops

    @contextmanager
    def holding(self, *activations: Activation) -> Iterator[None]:
        """Tensors that stay alive meanwhile although no operation keeps them, such as a residual."""
        self._held.extend(activations)
        yield
        del self._held[len(self._held) - len(activations) :]

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
        if key not in used:
            used[key] = elements
            if split:
                self.split[self._part] = self.split.get(self._part, 0.0) + elements
        own = elements / self.tensor_parallel if split else elements
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
            workspace += rows * x.width * (FLOAT32 + self.size)
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

    # The backward pass

    @property
    def kept(self) -> float:
        """Bytes that are kept from the forward pass for the backward pass."""
        return self._kept_total

    def backward(self) -> list[BackwardMoment]:
        """Autograd in reverse, operation by operation."""
        return _Backward(self._operations, self.size).run()

    def _count(self, forward: float, input_gradient: float, weight_gradient: float) -> None:
        flops = self.flops.setdefault(self._part, Flops())
        flops.forward += forward
        flops.input_gradient += input_gradient
        flops.weight_gradient += weight_gradient
        if self._segment is not None:
            self._segment.flops[self._part] = self._segment.flops.get(self._part, 0.0) + forward

    def _keep(self, activations: Sequence[Activation], others: float) -> None:
        for activation in activations:
            if id(activation) not in self._kept:
                self._kept[id(activation)] = activation
                self._kept_total += activation.bytes
        self._kept_total += others

    def _record(
        self,
        out: Activation | None,
        *,
        inputs: Sequence[Activation] = (),
        kept: Sequence[Activation] = (),
        kept_bytes: float = 0.0,
        weights: Mapping[str, float] | None = None,
        workspace: float = 0.0,
        workspace_forward: float = 0.0,
        passes: bool = False,
        moves: bool = True,
        handed_over: float = 0.0,
    ) -> None:
        with_grad = [x for x in inputs if x.grad]
        operation = _Operation(kept, kept_bytes, with_grad, out, weights or {}, workspace, passes, handed_over)
        alive = {id(x): x.bytes for x in (*inputs, *self._held) if id(x) not in self._kept}
        if out is not None and moves:
            alive[id(out)] = out.bytes
        needed = self._kept_total + sum(alive.values()) + workspace_forward
        if needed > self.forward_peak:
            self.forward_peak, self.forward_peak_loss = needed, workspace_forward
        if not (operation.inputs or operation.weights):
            return
        if self._segment is not None:
            self._segment.operations.append(operation)
        else:
            self._operations.append(operation)
            self._keep(kept, kept_bytes + handed_over)


@dataclass(eq=False)
class _Buffer:
    bytes: float
    owners: int = 1


class _Backward:
    """The memory of autograd's backward pass."""

    def __init__(self, operations: Sequence[_Operation | _Segment], size: int) -> None:
        self._operations = operations
        self._size = size
        #: Name of a weight -> uses whose backward pass is still to come.
        self._uses: dict[str, int] = {}
        self._keepers: dict[int, int] = {}
        self._live = 0.0
        self._pending: dict[int, _Buffer] = {}
        #: Names of weights that are used several times -> bytes of the gradients of their later uses.
        self._summed: dict[str, float] = {}
        self._done = 0.0
        self._moments: list[BackwardMoment] = []

    def run(self) -> list[BackwardMoment]:
        for operation in self._operations:
            if isinstance(operation, _Segment):
                self._keep(operation.inputs, 0)
            else:
                self._keep(operation.kept, operation.kept_bytes + operation.handed_over)
            inner = operation.operations if isinstance(operation, _Segment) else [operation]
            for name in (name for each in inner for name in each.weights):
                self._uses[name] = self._uses.get(name, 0) + 1
        for operation in reversed(self._operations):
            if isinstance(operation, _Segment):
                for each in operation.operations:
                    self._keep(each.kept, each.kept_bytes)
                for each in reversed(operation.operations):
                    self._step(each)
                self._release(operation.inputs, 0)
            else:
                self._step(operation)
        return self._moments

    def _keep(self, activations: Sequence[Activation], others: float) -> None:
        for activation in activations:
            self._keepers[id(activation)] = self._keepers.get(id(activation), 0) + 1
            if self._keepers[id(activation)] == 1:
                self._live += activation.bytes
        self._live += others

    def _release(self, activations: Sequence[Activation], others: float) -> None:
        for activation in activations:
            self._keepers[id(activation)] -= 1
            if not self._keepers[id(activation)]:
                self._live -= activation.bytes
        self._live -= others

    def _step(self, operation: _Operation) -> None:
        self._live -= operation.handed_over
        received = self._pending.pop(id(operation.out), None) if operation.out is not None else None
        fresh: list[tuple[Activation, _Buffer]] = []
        for x in operation.inputs:
            if operation.passes and received is not None:
                received.owners += 1
                fresh.append((x, received))
            else:
                self._live += x.bytes
                fresh.append((x, _Buffer(x.bytes)))
        made, partial = self._gradients(operation)
        self._moments.append(BackwardMoment(self._live + partial + operation.workspace, self._done, made))
        self._done += made
        for x, buffer in fresh:
            self._add_up(x, buffer)
        if received is not None:
            self._free(received)
        self._release(operation.kept, operation.kept_bytes)

    def _gradients(self, operation: _Operation) -> tuple[float, float]:
        """Elements whose gradient is complete with this operation, and bytes of those that wait for earlier uses.

        Autograd adds up the gradients of all uses of a weight before it hands them on.
        """
        made = transient = 0.0
        for name, elements in operation.weights.items():
            self._uses[name] -= 1
            if self._uses[name]:
                transient += elements * self._size if name in self._summed else 0
                if name not in self._summed:
                    self._summed[name] = elements * self._size
            else:
                transient += self._summed.pop(name, 0.0)
                made += elements
        return made, transient + sum(self._summed.values())

    def _add_up(self, x: Activation, buffer: _Buffer) -> None:
        """Add a gradient to those of other uses of the activation."""
        earlier = self._pending.get(id(x))
        if earlier is None:
            self._pending[id(x)] = buffer
        elif earlier.owners == 1:
            self._free(buffer)  # added in place
        else:
            self._free(earlier)
            if buffer.owners > 1:
                self._free(buffer)
                self._live += x.bytes
                buffer = _Buffer(x.bytes)
            self._pending[id(x)] = buffer

    def _free(self, buffer: _Buffer) -> None:
        buffer.owners -= 1
        if not buffer.owners:
            self._live -= buffer.bytes
