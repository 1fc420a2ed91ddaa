"""The decoder language model: OPT, or any that `transformers` has behind AutoModelForCausalLM, as its class is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, OPTConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from models.blip2.config import Blip2Config
from models.common.errors import UserError
from models.common.output_layer import OutputLayer


def language_config(config: Blip2Config, *, pad_id: int, bos_id: int, eos_id: int) -> PreTrainedConfig:
    """The `transformers` config of the language model. Raises UserError for a shape that is none of its families'."""
    language = config.language
    ids: dict[str, Any] = {
        "vocab_size": config.vocabulary,
        "pad_token_id": pad_id,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
    }
    if language.shape is not None:
        return decoder_config({**language.shape, **ids}, "model.language.shape")
    return OPTConfig(
        hidden_size=language.width,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
        ffn_dim=language.mlp_width,
        max_position_embeddings=language.positions,
        dropout=language.dropout,
        init_std=config.initialiser_range,
        **ids,
    )


def decoder_config(shape: Mapping[str, Any], where: str) -> PreTrainedConfig:
    """The `transformers` config that a config.json's contents make. Raises UserError, beginning with ``where``."""
    family = shape["model_type"]
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))  # a class's own may exceed the vocabulary
    try:
        config: PreTrainedConfig = AutoConfig.for_model(**{**ids, **shape})
    except (TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: transformers makes no config of a {family!r} from it ({reason})") from None
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{where}: {family!r} is no family of decoders that transformers has behind AutoModelForCausalLM; give "
            "one, such as llama, mistral, qwen3 or opt"
        )
    return config


def decoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of `transformers` for a decoder's config."""
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    chosen: type[PreTrainedModel] = kind[0] if isinstance(kind, tuple) else kind
    return chosen


def build_language(config: Blip2Config, *, pad_id: int, bos_id: int, eos_id: int) -> PreTrainedModel:
    """The language model, its weights random. Its class, and so its weights' names, are those of `transformers`.

    Raises UserError for a class that is more than a decoder and an output layer.
    """
    described = language_config(config, pad_id=pad_id, bos_id=bos_id, eos_id=eos_id)
    language = decoder_class(described)(described)
    _check_plain(language, config.language.width)
    language.set_output_embeddings(OutputLayer.of(language.get_output_embeddings()))
    return language


def _check_plain(language: PreTrainedModel, width: int) -> None:
    """Raise UserError for a decoder whose embeddings, states or logits are not what the functions below take them for:

    BERT and its like compute between states and output layer, OPT-350M embeds in a width of its own.
    """
    output: Any = language.get_output_embeddings()
    embeddings: Any = language.get_input_embeddings()
    known = {id(weight) for module in (language.base_model, output) if module for weight in module.parameters()}
    plain = output is not None and language.base_model is not language
    if not plain or any(id(weight) not in known for weight in language.parameters()):
        problem = "is more than layers and an output layer"
    elif embeddings.weight.shape[-1] != width:
        problem = "has embeddings of another width than its states"
    else:
        return
    raise UserError(
        f"model.language.shape: the decoder {type(language).__name__} {problem}, which is not supported; give another "
        "family, such as llama, mistral, qwen3 or opt"
    )


def decoder_layers(language: PreTrainedModel) -> nn.ModuleList:
    """The transformer layers of a decoder, in order."""
    for module in language.modules():
        if isinstance(module, nn.ModuleList) and len(module) == language.config.num_hidden_layers:
            return module
    raise UserError(
        f"model.language.shape: adapters find no list of layers in a {language.config.model_type!r}; set "
        "model.bridge=prefix"
    )


def embed(language: PreTrainedModel, ids: Tensor) -> Tensor:
    """Ids, int64 [n, length], as a decoder's layers take them: [n, length, width]."""
    embeddings: Any = language.get_input_embeddings()
    embedded: Tensor = embeddings(ids)
    return embedded


def hidden_states(language: PreTrainedModel, embedded: Tensor) -> Tensor:
    """The decoder's last states, [n, length, width], of embedded rows of equal shape, each beginning with a token.

    Attention is causal and nothing more, for which SDPA has its fastest kernel: right for rows padded on the right,
    whose padding no token attends to. States of padding mean nothing.
    """
    decoder: Any = language.base_model
    states: Tensor = decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return states


def logits_of(language: PreTrainedModel, states: Tensor) -> Tensor:
    """The logits, [..., vocabulary], that a decoder's last states stand for."""
    logits: Tensor = language.get_output_embeddings()(_scaled(language, states))
    cap = _cap(language)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def summed_loss(language: PreTrainedModel, states: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy, summed, of ``targets`` int64 [tokens] that ``states`` [tokens, width] predict: float32 scalar."""
    if _cap(language) is not None:
        logits = logits_of(language, states).float()
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum")
    head: Any = language.get_output_embeddings()
    loss: Tensor = head(_scaled(language, states), targets, label_smoothing=label_smoothing)
    return loss


def _cap(language: PreTrainedModel) -> float | None:
    # Gemma 2 (Gemma Team 2024, section 2): logits never exceed it.
    return getattr(language.config, "final_logit_softcapping", None)


def _scaled(language: PreTrainedModel, states: Tensor) -> Tensor:
    # Instead of the logits, which Cohere multiplies and Granite divides.
    config = language.config
    factor = (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
    return states if factor == 1 else states * factor
