"""A Hugging Face model that attends by a sigmoid instead of softmax, trained and asked to go on.

    python examples/huggingface_sigmoid.py

Needs `pip install 'ogive[hf]'`. The model is a small Llama built from a configuration: nothing is
downloaded; `use` works the same on one from `from_pretrained`. It tries the model once, and raises
where a model would ignore what it is told to attend by.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ogive.integrations import huggingface
from ogive.lab import tasks

SITES = "weight=sigmoid(bias=-log_n)"
STEPS = 120


def small_llama(vocabulary: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
        )
    )


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, task: tasks.Task) -> float:
    losses = [model(batch.tokens, labels=batch.tokens).loss.item() for batch in task.held_out()]
    return sum(losses) / len(losses)


def main() -> None:
    torch.manual_seed(0)
    task = tasks.build("text", {"length": 64, "windows": 256})
    model = huggingface.use(small_llama(task.vocabulary), SITES)
    print(f"attends by {model.config._attn_implementation}")
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, STEPS)
    model.train()
    for step in range(STEPS):
        tokens = task.batch(seed=0, step=step, size=8).tokens
        loss = model(tokens, labels=tokens).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 40 == 39:
            print(f"step {step + 1:4}: {loss.item():.3f} nats per byte")
    model.eval()
    print(f"held out: {held_out_loss(model, task):.3f} nats per byte")
    start = torch.tensor([list(b"The ")])
    told = {"attention_mask": torch.ones_like(start), "do_sample": False, "pad_token_id": 0}
    cached, again = (
        model.generate(start, max_new_tokens=40, use_cache=use, **told) for use in (True, False)
    )
    assert torch.equal(cached, again), "what the cache kept is what a full pass computes"
    print(f"it writes: {bytes(cached[0].tolist()).decode(errors='replace')!r}")
    print(f"the function was called {huggingface.calls()[huggingface.name_of(SITES)]:,} times")


if __name__ == "__main__":
    main()
