"""Random initial values without the whole model: recorded on the meta device, made where and when they are needed.

A model is constructed on the meta device, which has shapes and no memory, while every operation is recorded. From the
record the values of a tensor are made later, for any range of its elements. They depend on the seed and on the tensor's
name alone, so every division of a model over processes starts from the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from transformers.initialization import TORCH_INIT_FUNCTIONS

from models.common.weights import Values, blocks

M = TypeVar("M", bound=nn.Module)

#: Elements that are drawn at a time. Each block has a generator of its own; another size gives other values.
BLOCK = 1 << 20

_aten = torch.ops.aten

#: torch's initialisers that do nothing on the meta device; they are recorded as operations of their own.
_TRUNCATED_NORMAL = nn.init._no_grad_trunc_normal_
_WHOLE = {name: getattr(nn.init, name) for name in ("orthogonal_", "dirac_", "sparse_")}

#: In-place operations of which an element's result depends on that element alone, by whether they are random and
#: whether they replace what was there.
_RANDOM_FILL = {
    _aten.normal_.default,
    _aten.uniform_.default,
    _aten.exponential_.default,
    _aten.log_normal_.default,
    _TRUNCATED_NORMAL,
}
_FILL = {_aten.fill_.Scalar, _aten.zero_.default} | _RANDOM_FILL
_ELEMENTWISE = _FILL | {
    getattr(getattr(_aten, name), overload)
    for name, overload in (
        ("mul_", "Tensor"),
        ("mul_", "Scalar"),
        ("add_", "Tensor"),
        ("add_", "Scalar"),
        ("sub_", "Tensor"),
        ("div_", "Tensor"),
        ("erfinv_", "default"),
        ("clamp_", "default"),
        ("neg_", "default"),
        ("exp_", "default"),
        ("log_", "default"),
        ("sqrt_", "default"),
        ("pow_", "Scalar"),
    )
}
_CONSTANTS = {_aten.zeros.default: 0.0, _aten.ones.default: 1.0}


@dataclass
class _Operation:
    """One call that was recorded."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


@dataclass
class _Write:
    """An elementwise operation on elements [start, stop) of a storage."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    start: int
    stop: int


@dataclass
class _History:
    """How a storage got its content: as elementwise writes, unless another operation took part."""

    writes: list[_Write] = field(default_factory=list)
    elementwise: bool = True


class _Recorder(TorchDispatchMode):
    """Records every operation; also keeps the tensors of all alive, so that no storage's identity is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[_Operation] = []
        self.histories: dict[int, _History] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.note(func, args, kwargs, result)
        return result

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Record a call that has been made."""
        self.operations.append(_Operation(func, args, kwargs, result))
        if func in _ELEMENTWISE and isinstance(args[0], Tensor):
            self._write(func, args, kwargs)
            return
        inputs = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        written = {_storage(tensor) for tensor in _tensors(result)} - (set() if _mutates(func) else inputs)
        if _mutates(func):
            written |= {_storage(tensor) for tensor in _tensors(args[:1])}
        for storage in written:
            self.histories[storage] = self._first(func, args, result)

    def _write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensor = args[0]
        history = self.histories.setdefault(_storage(tensor), _History())
        start, stop = tensor.storage_offset(), tensor.storage_offset() + tensor.numel()
        extra = tuple(arg.item() if isinstance(arg, Tensor) and not arg.is_meta else arg for arg in args[1:])
        whole = stop - start == tensor.untyped_storage().nbytes() // tensor.element_size()
        if func in _FILL and whole:
            history.writes, history.elementwise = [], True
        history.writes.append(_Write(func, extra, kwargs, start, stop))
        if not tensor.is_contiguous() or any(isinstance(arg, Tensor) for arg in extra):
            history.elementwise = False

    @staticmethod
    def _first(func: Any, args: tuple[Any, ...], result: Any) -> _History:
        """The history of a storage that an operation has just made."""
        if not hasattr(func, "_schema"):
            return _History(elementwise=False)
        if func._schema.name.startswith("aten::empty"):
            return _History()
        value = args[1] if func is _aten.full.default else _CONSTANTS.get(func)
        if value is None or not isinstance(result, Tensor):
            return _History(elementwise=False)
        return _History([_Write(_aten.fill_.Scalar, (value,), {}, 0, result.numel())])


class InitialValues(Values):
    """The values that a recorded construction gives to a tensor."""

    def __init__(self, recorder: _Recorder, tensor: Tensor, seed: int, name: str) -> None:
        super().__init__(tuple(tensor.shape))
        self.dtype = tensor.dtype
        self._recorder, self._tensor = recorder, tensor.detach()
        self._seed, self._name = seed, name

    def flat(self, start: int, stop: int) -> Tensor:
        """See :meth:`Values.flat`."""
        history = self._recorder.histories.get(_storage(self._tensor))
        simple = history is not None and history.elementwise and history.writes and self._tensor.storage_offset() == 0
        if not (simple and self._tensor.is_contiguous()):
            return self._replay().reshape(-1)[start:stop]
        assert history is not None
        pieces = [
            self._block(history.writes, low // BLOCK)[low % BLOCK :][: high - low]
            for low, high in blocks(start, stop, BLOCK)
        ]
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=self.dtype)

    def _block(self, writes: Sequence[_Write], number: int) -> Tensor:
        first, last = number * BLOCK, min((number + 1) * BLOCK, self.numel)
        block = torch.empty(last - first, dtype=self.dtype, device="cpu")
        generator = torch.Generator().manual_seed(_derived_seed(self._seed, self._name, number))
        for write in writes:
            low, high = max(write.start, first), min(write.stop, last)
            if low < high:
                kwargs = {**write.kwargs, "generator": generator} if write.function in _RANDOM_FILL else write.kwargs
                write.function(block[low - first : high - first], *write.args, **kwargs)
        return block

    @lru_cache(maxsize=1)  # noqa: B019 - of all tensors one is kept, since it is asked for in blocks
    def _replay(self) -> Tensor:
        """Run the recorded operations that this tensor depends on, whole, on the CPU."""
        needed = {_storage(self._tensor)}
        chosen = []
        for operation in reversed(self._recorder.operations):
            changed = {_storage(tensor) for tensor in _tensors(operation.result)}
            if _mutates(operation.function):
                changed |= {_storage(tensor) for tensor in _tensors(operation.args[:1])}
            if changed & needed:
                chosen.append(operation)
                needed |= {_storage(tensor) for tensor in _tensors((operation.args, operation.kwargs))}
        made: dict[int, Tensor] = {}
        bases: dict[int, Tensor] = {}

        def real(value: Any) -> Any:
            if isinstance(value, torch.device):
                return torch.device("cpu")
            if not isinstance(value, Tensor) or not value.is_meta:
                return value
            if id(value) in made:
                return made[id(value)]
            base = bases[_storage(value)]  # a parameter, say, which no operation returned
            return base.view(value.dtype).as_strided(value.shape, value.stride(), value.storage_offset())

        with torch.no_grad(), torch.random.fork_rng([]):
            torch.manual_seed(_derived_seed(self._seed, self._name, 0))
            for operation in reversed(chosen):
                result = operation.function(*tree_map(real, operation.args), **tree_map(real, operation.kwargs))
                for meta, tensor in zip(_tensors(operation.result), _tensors(result), strict=True):
                    if meta.is_meta:
                        made[id(meta)] = tensor
                        base = torch.empty(0, dtype=tensor.dtype, device="cpu")
                        bases.setdefault(_storage(meta), base.set_(tensor.untyped_storage()))
            return torch.as_tensor(real(self._tensor)).clone()


def construct(make: Callable[[], M], seed: int) -> tuple[M, dict[str, InitialValues]]:
    """A module on the meta device, and the initial values of its parameters and buffers by name.

    ``make`` constructs it; where it is a `transformers` model its `_init_weights` take part. A tensor that has several
    names (tied weights) is listed under the first.
    """
    recorder = _Recorder()
    with torch.device("meta"), recorder, _initialisers_recorded(recorder):
        module = make()
        if (initialise := getattr(module, "initialize_weights", None)) is not None:
            initialise()  # `transformers` leaves it out on the meta device
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return module, {name: InitialValues(recorder, tensor, seed, name) for name, tensor in tensors}


@contextmanager
def _initialisers_recorded(recorder: _Recorder) -> Iterator[None]:
    """Record calls of the initialisers of torch that return meta tensors as they are.

    No mode of torch's sees them: they return before their first operation, and unlike `normal_` they do not call
    `torch.overrides.handle_torch_function` themselves. So they are replaced in the meantime, as
    `transformers.initialization.guard_torch_init_functions` replaces them.
    """

    def recorded(initialiser: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def initialise(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not tensor.is_meta:
                return initialiser(tensor, *args, **kwargs)
            kwargs.pop("generator", None)
            recorder.note(initialiser, (tensor, *args), kwargs, tensor)
            return tensor

        return initialise

    replaced = {name: recorded(initialiser) for name, initialiser in _WHOLE.items()}
    # `transformers` keeps torch's functions in a table.
    tables = [
        (vars(nn.init), {**replaced, "_no_grad_trunc_normal_": recorded(_TRUNCATED_NORMAL)}),
        (TORCH_INIT_FUNCTIONS, replaced),
    ]
    before = [{name: table[name] for name in functions} for table, functions in tables]
    try:
        for table, functions in tables:
            table.update(functions)
        yield
    finally:
        for (table, _), functions in zip(tables, before, strict=True):
            table.update(functions)


def _mutates(function: Any) -> bool:
    return not hasattr(function, "_schema") or bool(function._schema.is_mutable)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def _derived_seed(seed: int, name: str, number: int) -> int:
    """A 63-bit seed: of equal (seed, name, number) equal, of others as if independent."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/{number}".encode()).digest()[:8]) >> 1
