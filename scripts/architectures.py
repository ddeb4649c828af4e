"""Which architectures of Hugging Face transformers attend by Ogive's parts, and how exactly?

    python scripts/architectures.py llama bert t5                     # these
    python scripts/architectures.py > docs/huggingface_models.md      # every text architecture

For each, a tiny random model is built offline and made to attend with softmax through Ogive: how
far are its outputs from those of its own eager attention? Then with tanh in place of softmax, in
float64: does any output move when only later tokens change? Models that do not fit are listed with
what they said.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections import Counter

os.environ["HF_HUB_OFFLINE"] = "1"  # read while transformers is imported

import torch
import transformers
from transformers.models.auto import modeling_auto

from ogive.integrations import huggingface

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()

PAGE = """# Hugging Face architectures that were tried

Printed by `python {command}` with transformers {version}. For every text architecture a tiny random
model was built offline and told to attend by Ogive (`ogive.integrations.huggingface.use`).

| word | means |
|---|---|
| exact | with softmax its outputs are those of its own eager attention, to the share of the largest output that is given; then tanh took the place of softmax, and the last column says whether an output moved when only later tokens changed, as it must in encoders |
| differs | it ran, and was further than 1e-5 from its own attention |
| refused | `use` raised, and said why; the model was left as it was |
| unbuilt | no model came of the small sizes that the script gives to all configurations: nothing is known |

| model type | class | outcome | detail |
|---|---|---|---|"""  # noqa: E501

# Names that configurations give to the same few sizes. What a configuration does not know, it
# keeps as an attribute that nobody reads.
SMALL = {
    "vocab_size": 64, "hidden_size": 32, "n_embd": 32, "d_model": 32, "dim": 32, "n_embed": 32,
    "embedding_size": 32, "emb_dim": 32,
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "n_layers": 2, "encoder_layers": 2,
    "decoder_layers": 2, "num_decoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "num_heads": 4, "n_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "d_kv": 8,
    "intermediate_size": 32, "ffn_dim": 32, "d_ff": 32, "hidden_dim": 32, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 8, "qk_head_dim": 12, "rotary_dim": 4,
    "max_position_embeddings": 64, "n_positions": 64, "n_ctx": 64, "max_seq_len": 64,
    "sliding_window": 5, "local_attention": 6,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0,
    "cls_token_id": 1, "sep_token_id": 2,
    "attn_pdrop": 0.0,
}  # fmt: skip


def main(wanted: list[str]) -> None:
    """Try every architecture, or those that are named, and print a page with a row for each."""
    print(PAGE.format(version=transformers.__version__, command=" ".join(sys.argv)), flush=True)
    outcomes: Counter[str] = Counter()
    for name, kind in architectures(wanted):
        verdict, detail = outcome(name, kind)
        outcomes[verdict] += 1
        shown = detail.replace("|", "\\|").replace("<", "&lt;")
        print(f"| {name} | {kind} | {verdict} | {shown} |", flush=True)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in outcomes.most_common())
    print(f"\nTogether: {counts}.")


def architectures(wanted: list[str]) -> list[tuple[str, str]]:
    """(model type, class) of every text architecture: decoders, then encoders, then both."""
    found: dict[str, str] = {}
    for mapping in (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    ):
        for name, kind in mapping.items():
            found.setdefault(name, kind if isinstance(kind, str) else kind[0])
    return [(n, k) for n, k in sorted(found.items()) if not wanted or n in wanted]


def outcome(name: str, kind: str) -> tuple[str, str]:
    """What happened on one architecture: a word, and the numbers or the reason."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            model, inputs = build(name, kind)
    except Exception as error:
        return "unbuilt", said(error)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            gap = difference(model, inputs)
            huggingface.use(model, "weight=tanh", inputs)
            leak = future(model, inputs)
    except Exception as error:
        return "refused", said(error)
    return "exact" if gap < 1e-5 else "differs", f"eager − softmax {gap:.1e}, {leak}"


def build(name: str, kind: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A tiny random model in evaluation, and tokens that it takes."""
    config_class = transformers.CONFIG_MAPPING[name]
    known = config_class().to_dict()
    sizes = {key: value for key, value in SMALL.items() if key in known}
    if "qk_rope_head_dim" in known:  # there head_dim is what rotary positions turn
        sizes["head_dim"] = sizes["qk_rope_head_dim"]
    config = config_class(**sizes, attn_implementation="eager", experts_implementation="eager")
    with torch.device("meta"):
        count = sum(p.numel() for p in getattr(transformers, kind)(config).parameters())
    if count > 20_000_000:
        raise ValueError("its configuration does not shrink with the usual names")
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).eval()
    tokens = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": tokens}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = tokens[:, :9]
    first(model, inputs)
    return model, inputs


def first(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits, or whatever comes first."""
    with torch.no_grad():
        output = model(**inputs)
    return next(v for v in output.values() if torch.is_tensor(v) and v.is_floating_point())


def difference(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    """Softmax through Ogive beside the model's own, as a share of its largest output."""
    wanted = first(model, inputs)
    huggingface.use(model, "weight=softmax", inputs)
    came = first(model, inputs)
    return ((wanted - came).abs().max() / wanted.abs().max()).item()


def future(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> str:
    """Whether outputs before token 7 move when the tokens from there on change."""
    model.double()
    name = "decoder_input_ids" if "decoder_input_ids" in inputs else "input_ids"
    later = inputs[name].clone()
    later[:, 7:] = (later[:, 7:] + 1) % 64
    a, b = first(model, inputs), first(model, {**inputs, name: later})
    if a.dim() < 3 or a.shape[1] != later.shape[1]:
        return "no output per token"
    moved = (a[:, :7] - b[:, :7]).abs().max() / (a[:, 7:] - b[:, 7:]).abs().max()
    # Mixtures of experts regroup their tokens, and sums of float64 with them.
    return "causal with tanh" if moved < 1e-11 else f"sees later tokens (by {moved:.0e})"


def said(error: Exception) -> str:
    """The first line of an error, shortened."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:150] if lines else ''}"


if __name__ == "__main__":
    main(sys.argv[1:])
