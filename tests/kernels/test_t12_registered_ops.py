"""T12: opcheck on every registered operator. There are none yet: nothing here calls torch.library.

The compiled kernels will register theirs; this test then fails and asks for their opcheck.
"""

from __future__ import annotations

import torch

import ogive.kernels  # noqa: F401


def test_ogive_registers_no_operator():
    registered = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("ogive::")]
    assert not registered, f"write torch.library.opcheck over ten inputs each for {registered}"
