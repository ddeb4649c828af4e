"""Where the kernels read and write: strides beyond 2³¹, tensors that end where memory ends, one
slice seen many times; memory that runs out; and processes that start after a parallel region.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from kernels import children
from kernels.cases import Case, build_call
from kernels.test_t05_layouts import laid_out_call, lay, results
from ogive.kernels import compiled

pytestmark = pytest.mark.skipif(bool(compiled.missing), reason=str(compiled.missing))
TENSORS = ("query", "key", "value", "attn_mask", "bias", "grad")
NO_ACCESS = 0  # PROT_NONE
FAR = 2**31 + 64
"""A stride in elements that no 32-bit number holds."""


def same(one, two) -> list[str]:
    return [name for name in one if not torch.equal(one[name], two[name])]


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("name", TENSORS)
def test_one_slice_seen_many_times(name, axis, count):
    call = laid_out_call("softmax")
    whole = {"grad": call.grad, "attn_mask": call.options["attn_mask"]} | call.inputs
    one = whole[name].narrow(axis, 0, 1).expand_as(whole[name])
    lay(call, name, lambda _: one.contiguous())
    plain = results(call, "native")
    lay(call, name, lambda _: one)
    assert same(plain, results(call, "native")) == []
    count("T5", 1)


# --- strides beyond 2³¹ -----------------------------------------------------------------------


def far_apart(tensor: Tensor, axis: int, folder) -> Tensor:
    """The tensor with FAR elements between neighbours along an axis, in a file full of holes."""
    sizes, strides, step = list(tensor.shape), [0] * tensor.dim(), 1
    for at in reversed(range(tensor.dim())):
        if at != axis:
            strides[at], step = step, step * sizes[at]
    strides[axis] = FAR
    length = FAR * (sizes[axis] - 1) + step
    path = folder / f"{tensor.data_ptr()}-{axis}"
    with path.open("wb") as file:
        file.truncate(length * tensor.element_size())
    store = torch.from_file(str(path), shared=True, size=length, dtype=tensor.dtype)
    view = store.as_strided(sizes, strides)
    view.copy_(tensor)
    return view


@pytest.mark.skipif(sys.platform != "linux", reason="files full of holes are tried on Linux")
@pytest.mark.parametrize("weight", ["softmax", "tanh"])
@pytest.mark.parametrize(("name", "axis"), [(n, a) for n in TENSORS for a in (1, 2)])
def test_strides_that_32_bits_do_not_hold(name, axis, weight, tmp_path, count):
    call = build_call(
        Case(1, weight=weight, mask="learned bias", heads=2, queries=3, keys=3, width=4)
    )
    call.options["attn_mask"] = torch.ones(1, 2, 3, 3, dtype=torch.bool).tril(1)
    plain = results(call, "native")
    lay(call, name, lambda tensor: far_apart(tensor, axis, tmp_path))
    assert same(plain, results(call, "native")) == []
    count("T16", 1)


# --- where memory ends ------------------------------------------------------------------------


def at_the_end(tensor: Tensor) -> tuple[Tensor, mmap.mmap]:
    """The tensor in memory whose next byte may not be touched."""
    page, size = mmap.PAGESIZE, tensor.numel() * tensor.element_size()
    room = -(-size // page) * page
    memory = mmap.mmap(-1, room + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address + room), ctypes.c_size_t(page), NO_ACCESS):
        raise OSError(ctypes.get_errno(), "mprotect")
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=room - size)
    return flat.view(tensor.shape).copy_(tensor), memory


EDGES = """
import torch
from kernels import cases
from kernels.cases import Case, build_call
from kernels.test_native_memory import TENSORS, at_the_end, same
from kernels.test_t05_layouts import laid_out_call, lay, results
from ogive.kernels import compiled

torch.set_num_threads(1)
kept, done = [], 0
for name in compiled.supported():
    compiled.instruction_set = name
    for weight in ("softmax", "tanh", "relu(length_power=1)"):
        for tensor in TENSORS:
            call = laid_out_call(weight)
            plain = results(call, "native")
            def end(t):
                moved, memory = at_the_end(t)
                kept.append(memory)
                return moved
            lay(call, tensor, end)
            assert same(plain, results(call, "native")) == [], (name, weight, tensor)
            done += 1
print("held", done)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pages are protected on Linux")
def test_nothing_is_touched_beyond_the_end(count):
    """In a process of its own: a touch would end it."""
    ran = _python(children.here() + EDGES)
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr[-2000:]}"
    count("T18", int(ran.stdout.split("held ")[1]))


# --- memory that runs out -----------------------------------------------------------------------

NO_MEMORY = """
import resource, torch
from ogive.kernels import EdgeList, attention, edge_attention
torch.set_num_threads({threads})

def hub(edges, back):
    targets, sources = torch.zeros(edges, dtype=torch.int64), torch.arange(edges) % 50
    graph = EdgeList.build(torch.stack((sources, targets)), 50)
    nodes = [torch.ones(50, 16, 4, requires_grad=back) for _ in range(3)]
    return lambda: edge_attention(*nodes, graph, impl="native")

def wide(width, back):
    rows = [torch.ones(1, 2, 3, n, requires_grad=back) for n in (width, width, 4096)]
    return lambda: attention(*rows, weight="linear(normalise=false)", impl="linear")

call = {name}
for out in [call(40, False)(), call(40, True)()]:  # threads and their memory are there from now on
    if out.requires_grad:
        out.sum().backward()
run = call({size}, {back})
if {back}:
    out = run()
    run = out.sum().backward
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
asked = {size} * 2 * 16 * 4 if {back} and {name} is hub else 0  # torch's own, two numbers an edge
resource.setrlimit(resource.RLIMIT_AS, (held + asked + 2**26, resource.RLIM_INFINITY))
try:
    run()
except MemoryError:
    print("refused")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
run()
print("held")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("name", "size"), [("hub", 2_000_000), ("wide", 4096)])
def test_memory_that_runs_out_is_an_error(name, size, back, threads):
    """On the thread that computes, in the middle of a call; the next call is as any other."""
    if children.sanitizer():
        pytest.skip("a sanitizer's shadow is larger than any limit")
    ran = _python(
        children.here() + NO_MEMORY.format(name=name, size=size, back=back, threads=threads)
    )
    assert ran.returncode == 0, f"{ran.returncode}: {ran.stderr[-2000:]}"
    assert ran.stdout.split() == ["refused", "held"]


# --- processes --------------------------------------------------------------------------------

AFTERWARDS = """
import multiprocessing
import torch
from ogive.kernels import attention

def work(threads):
    torch.set_num_threads(threads)
    q, k, v = torch.ones(3, 2, 4, 130, 8).unbind(0)
    q.requires_grad_()
    attention(q, k, v, weight="tanh", impl="native").sum().backward()
    return float(q.grad.abs().sum())

if __name__ == "__main__":
    work(2)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print("held", len(pool.map(work, [{threads}] * 4)))
"""


@pytest.mark.parametrize(("method", "threads"), [("spawn", 2), ("forkserver", 2), ("fork", 1)])
def test_processes_after_a_parallel_region(method, threads, tmp_path, count):
    """A forked child must say one thread: the pool of OpenMP does not outlive a fork."""
    script = tmp_path / "afterwards.py"
    script.write_text(children.here() + AFTERWARDS.format(method=method, threads=threads))
    ran = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "held 4" in ran.stdout
    count("T17", 1)


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
