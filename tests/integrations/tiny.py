"""Tiny random models of transformers, built offline."""

from __future__ import annotations

import functools
import random
import warnings
from typing import Any

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers

VOCABULARY = 60
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}

CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", GROUPED),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "neox": ("GPTNeoXForCausalLM", COMMON),
    "qwen3": ("Qwen3ForCausalLM", {**GROUPED, "head_dim": 12}),
    "gemma2": (
        "Gemma2ForCausalLM",
        {
            **GROUPED,
            "head_dim": 8,
            "attn_logit_softcapping": 1.5,
            "query_pre_attn_scalar": 5,
            "sliding_window": 4,
        },
    ),
    "gpt_oss": (
        "GptOssForCausalLM",
        {
            **GROUPED,
            "intermediate_size": 32,
            "experts_implementation": "eager",
            "head_dim": 8,
            "num_local_experts": 2,
            "num_experts_per_tok": 2,  # one of two would be a step, and rounding crosses it
            "sliding_window": 4,
        },
    ),
    "mistral": ("MistralForCausalLM", {**GROUPED, "sliding_window": 4}),
    "modernbert_decoder": (
        "ModernBertDecoderForCausalLM",
        {**COMMON, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2},
    ),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", COMMON),
    "modernbert": (
        "ModernBertForMaskedLM",
        {**COMMON, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 37,
            "num_layers": 2,
            "num_heads": 4,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 16,
            "decoder_start_token_id": 0,
        },
    ),
}
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("GemmaForCausalLM", {**GROUPED, "head_dim": 8}),
    "gpt_bigcode": (
        "GPTBigCodeForCausalLM",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "mixtral": (
        "MixtralForCausalLM",
        {**GROUPED, "num_local_experts": 2, "experts_implementation": "eager"},
    ),
    "nemotron": ("NemotronForCausalLM", GROUPED),
    "opt": ("OPTForCausalLM", {**COMMON, "ffn_dim": 37, "word_embed_proj_dim": 32}),
    "persimmon": ("PersimmonForCausalLM", COMMON),
    "phi": ("PhiForCausalLM", COMMON),
    "stablelm": ("StableLmForCausalLM", GROUPED),
}
HALF_DEAF: dict[str, tuple[str, dict[str, Any]]] = {
    "longt5": (
        "LongT5ForConditionalGeneration",
        {**OTHERS["t5"][1], "local_radius": 3, "global_block_size": 4},
    ),
}
DEAF: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom": ("BloomForCausalLM", {**COMMON, "n_head": 4, "n_layer": 2}),
    "falcon": ("FalconForCausalLM", {**COMMON, "alibi": False}),
}
ALL = {**CAUSAL, **OTHERS, **MORE, **HALF_DEAF, **DEAF}


def model(name: str, attention: str = "eager", dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model in evaluation, always with the same weights, none of them at a special start."""
    kind, options = ALL[name]
    cls = getattr(transformers, kind)
    torch.manual_seed(0)
    config = cls.config_class(**options, attn_implementation=attention)
    made = cls(config).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise.to(dtype), alpha=0.15)
    return made


@functools.cache
def tokens(batch: int = 2, length: int = 11) -> torch.Tensor:
    pick = random.Random(3)
    return (
        torch.tensor([[pick.randrange(3, VOCABULARY) for _ in range(length)]] * batch).add(
            torch.arange(batch)[:, None] % 2
        )
        % VOCABULARY
    )


def inputs(name: str) -> dict[str, torch.Tensor]:
    if name in ("t5", "longt5"):
        return {"input_ids": tokens(), "decoder_input_ids": tokens()[:, :7]}
    return {"input_ids": tokens()}
