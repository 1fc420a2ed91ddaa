"""The layer that predicts tokens, and the cross-entropy of its predictions without ever holding all logits."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

#: Rows of a weight's gradient that are scaled in float32 at a time.
_SCALED_ROWS = 4096


class OutputLayer(nn.Linear):
    """A linear layer over the vocabulary, `nn.Linear` by its weights' names, that also scores target tokens.

    Scoring is a call of the module, so that ZeRO-3, which gathers a module's weights when it is called, does so once
    per forward pass however many chunks that has.
    """

    chunk: int = 1024
    """Tokens whose logits are held at a time."""
    group: dist.ProcessGroup | None = None
    """Ranks with equal weights that see the same samples: each computes the logits of its own share of the vocabulary.
    None: this rank computes all."""

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """A layer to put in a linear one's place, with its very weights: nothing is drawn, and ties hold."""
        layer = cls.__new__(cls)
        layer.__dict__.update(linear.__dict__)
        return layer

    def forward(
        self,
        hidden: Tensor,
        targets: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        logits_bias: Tensor | None = None,
    ) -> Tensor:
        """Logits, [..., vocabulary], or the sum of cross-entropies where ``targets`` are given, a float32 scalar.

        ``hidden`` [..., width]; with targets, int64 [tokens], it is [tokens, width]. ``label_smoothing`` as in
        `torch.nn.functional.cross_entropy`. ``logits_bias`` [vocabulary] is added to logits and gets no gradient.
        """
        if targets is None:
            logits = super().forward(hidden)
            return logits if logits_bias is None else logits + logits_bias
        bias = self.bias
        if bias is not None and logits_bias is not None:
            raise ValueError("logits_bias is for layers without a bias of their own")
        bias = logits_bias.detach() if logits_bias is not None else bias
        tensors = (hidden, self.weight, bias)
        if not torch.is_grad_enabled():  # gradients are computed in forward, and only if they will be taken
            tensors = tuple(None if tensor is None else tensor.detach() for tensor in tensors)  # type: ignore[assignment]
        summed = _SummedCrossEntropy.apply(*tensors, targets, label_smoothing, self.chunk, self.group)
        return cast(Tensor, summed)


def set_loss_chunk(model: nn.Module, chunk: int) -> None:
    """Have all output layers of a model hold the logits of at most ``chunk`` tokens at a time."""
    for layer in model.modules():
        if isinstance(layer, OutputLayer):
            layer.chunk = chunk


def split_vocabulary(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Have ranks that hold equal output layers and see the same samples share the work of scoring.

    Each rank keeps the whole weight (it is tied to the embeddings, which tensor parallelism does not split), computes
    the logits of its share of the vocabulary, and gets the whole gradient.
    """
    for layer in model.modules():
        if isinstance(layer, OutputLayer):
            layer.group = group


class _SummedCrossEntropy(torch.autograd.Function):
    """Sum over tokens of the cross-entropy of ``hidden @ weight.T + bias``, chunk by chunk.

    Gradients are taken in the forward pass, while a chunk's logits are there, as in Liger-Kernel's fused linear
    cross-entropy (Hsu et al. 2024, section 3.2). The products run in the dtype of ``hidden``; logits are float32 from
    then on, and a weight's gradient is added up in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        chunk: int,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        ranks = dist.get_world_size(group) if group is not None else 1
        vocabulary = len(weight)
        share = -(-vocabulary // ranks)
        first = min(share * (dist.get_rank(group) if group is not None else 0), vocabulary)
        own = weight[first : first + share]
        own_bias = bias.flatten()[first : first + share].float() if bias is not None else None

        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if for_hidden else None
        weight_grad = own.new_zeros(own.shape, dtype=torch.float32) if for_weight else None
        bias_grad = own.new_zeros(len(own), dtype=torch.float32) if for_bias else None
        for start in range(0, len(hidden), chunk):
            tokens = slice(start, start + chunk)
            states = hidden[tokens]
            logits = torch.mm(states, own.t()).float()
            if own_bias is not None:
                logits += own_bias
            losses = _probabilities(logits, targets[tokens] - first, vocabulary, smoothing, group)
            total += losses.sum()
            # `logits` are now their gradients.
            gradient = logits.to(states.dtype)
            if hidden_grad is not None:
                torch.mm(gradient, own, out=hidden_grad[tokens])
            if weight_grad is not None:
                weight_grad += torch.mm(gradient.t(), states)
            if bias_grad is not None:
                bias_grad += logits.sum(dim=0)
        if group is not None:
            if hidden_grad is not None:
                dist.all_reduce(hidden_grad, group=group)
            weight_grad = _joined(weight_grad, weight, share, ranks, group)
            bias_grad = _joined(bias_grad, bias, share, ranks, group)
        ctx.gradients = (
            hidden_grad,
            weight_grad.to(weight.dtype) if weight_grad is not None else None,
            bias_grad.to(bias.dtype) if bias_grad is not None and bias is not None else None,
        )
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of a summed cross-entropy can be taken once only")
        gradients, ctx.gradients = ctx.gradients, None
        return (*(None if one is None else _scaled(one, grads[0]) for one in gradients), None, None, None, None)


def _probabilities(
    logits: Tensor, targets: Tensor, vocabulary: int, smoothing: float, group: dist.ProcessGroup | None
) -> Tensor:
    """Cross-entropies, float32 [tokens]; ``logits``, float32 [tokens, share of the vocabulary], become gradients.

    ``targets`` count from the share's first token and may lie outside of it.
    """
    highest = logits.amax(dim=1) if logits.shape[1] else logits.new_full((len(logits),), -torch.inf)
    if group is not None:
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=group)
    logits -= highest[:, None]
    here = (targets >= 0) & (targets < logits.shape[1])
    columns = targets.clamp(0, max(logits.shape[1] - 1, 0))[:, None]
    of_target = logits.gather(1, columns).squeeze(1) * here if logits.shape[1] else torch.zeros_like(highest)
    sums = torch.stack([of_target, logits.sum(dim=1) if smoothing else torch.zeros_like(of_target)])
    logits.exp_()
    sums = torch.cat([sums, logits.sum(dim=1)[None]])
    if group is not None:
        dist.all_reduce(sums, group=group)
    of_target, of_all, exponentials = sums
    logits /= exponentials[:, None]
    if smoothing:
        logits -= smoothing / vocabulary
    if logits.shape[1]:
        logits.scatter_add_(1, columns, ((smoothing - 1) * here)[:, None])
    return exponentials.log() - (1 - smoothing) * of_target - smoothing / vocabulary * of_all


def _joined(own: Tensor | None, like: Tensor | None, share: int, ranks: int, group: dist.ProcessGroup) -> Tensor | None:
    """The gradient of a whole weight or bias from each rank's share of its rows."""
    if own is None or like is None:
        return None
    padded = like.new_zeros((share, *own.shape[1:]))
    padded[: len(own)] = own
    whole = like.new_empty((ranks * share, *own.shape[1:]))
    dist.all_gather_single(whole, padded, group=group)
    return whole[: len(like)]


def _scaled(gradient: Tensor, by: Tensor) -> Tensor:
    """The gradient times a float32 scalar, in place. Multiplied as they are, a GPU would round the scalar first."""
    if gradient.dtype == torch.float32:
        return gradient.mul_(by)
    for rows in gradient.split(_SCALED_ROWS):
        rows.copy_(rows.float() * by)
    return gradient
