"""The memory of activations in a recorded forward pass, and in the backward pass that autograd makes of it.

Operations are recorded in the order of the forward pass, each with the tensors that autograd keeps for it. From the
record :class:`ActivationMemory` replays autograd in reverse, so that the memory of activations and of their gradients
is known at every moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

FLOAT32 = 4
"""Bytes of an element."""


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
class CheckpointedLayer:
    """A checkpointed layer: keeps its inputs alone."""

    inputs: Sequence[Activation]
    operations: list[_Operation] = field(default_factory=list)
    """Those of which there is a backward pass."""


class ActivationMemory:
    """Records the operations of a forward pass, and replays the backward pass."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of an element in training."""
        self.kept = 0.0
        """Bytes that are kept from the forward pass for the backward pass."""
        self.forward_peak = 0.0
        """Bytes of activations at the most memory-hungry operation of the forward pass."""
        self.forward_peak_loss = 0.0
        """Of which for the chunk of logits and the gradients that the loss makes meanwhile."""
        self._size = size
        self._operations: list[_Operation | CheckpointedLayer] = []
        self._layer: CheckpointedLayer | None = None
        self._kept: dict[int, Activation] = {}
        self._held: list[Activation] = []

    @contextmanager
    def checkpointed_layer(self, inputs: Sequence[Activation]) -> Iterator[CheckpointedLayer]:
        """Of the operations inside only ``inputs`` are kept; they are made again in the backward pass."""
        layer = self._layer = CheckpointedLayer(inputs)
        yield layer
        self._layer = None
        if layer.operations:
            self._operations.append(layer)
            self._keep(inputs, 0.0)

    @contextmanager
    def holding(self, *activations: Activation) -> Iterator[None]:
        """Tensors that stay alive meanwhile although no operation keeps them, such as a residual."""
        self._held.extend(activations)
        yield
        del self._held[len(self._held) - len(activations) :]

    def record(
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
        """Add an operation.

        ``out``, ``inputs``: its tensors; ``kept`` and ``kept_bytes``: what it keeps for its backward pass; ``weights``:
        name -> elements, of those that get a gradient; ``workspace``, ``workspace_forward``: bytes alive only while
        its backward, its forward pass runs; ``passes``: the gradients of the inputs are that of the output itself;
        ``moves``: the output is a tensor of its own; ``handed_over``: bytes of gradients that it makes at once.
        """
        with_grad = [x for x in inputs if x.grad]
        operation = _Operation(kept, kept_bytes, with_grad, out, weights or {}, workspace, passes, handed_over)
        alive = {id(x): x.bytes for x in (*inputs, *self._held) if id(x) not in self._kept}
        if out is not None and moves:
            alive[id(out)] = out.bytes
        needed = self.kept + sum(alive.values()) + workspace_forward
        if needed > self.forward_peak:
            self.forward_peak, self.forward_peak_loss = needed, workspace_forward
        if not (operation.inputs or operation.weights):
            return
        if self._layer is not None:
            self._layer.operations.append(operation)
        else:
            self._operations.append(operation)
            self._keep(kept, kept_bytes + handed_over)

    def backward(self) -> list[BackwardMoment]:
        """Autograd in reverse, operation by operation."""
        return _Backward(self._operations, self._size).run()

    def _keep(self, activations: Sequence[Activation], others: float) -> None:
        for activation in activations:
            if id(activation) not in self._kept:
                self._kept[id(activation)] = activation
                self.kept += activation.bytes
        self.kept += others


@dataclass(eq=False)
class _Buffer:
    bytes: float
    owners: int = 1


class _Backward:
    """The memory of autograd's backward pass."""

    def __init__(self, operations: Sequence[_Operation | CheckpointedLayer], size: int) -> None:
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
            if isinstance(operation, CheckpointedLayer):
                self._keep(operation.inputs, 0)
            else:
                self._keep(operation.kept, operation.kept_bytes + operation.handed_over)
            inner = operation.operations if isinstance(operation, CheckpointedLayer) else [operation]
            for name in (name for each in inner for name in each.weights):
                self._uses[name] = self._uses.get(name, 0) + 1
        for operation in reversed(self._operations):
            if isinstance(operation, CheckpointedLayer):
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
