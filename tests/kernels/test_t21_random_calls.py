"""T21: random sequences of valid calls. Every answer keeps the rule, whatever was called before."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kernels import cases, oracle
from kernels.cases import Case, build_call
from ogive.kernels import attention, last_impl

LIGHT = [w for w in cases.WEIGHTS if w in oracle.ELEMENTWISE or w in ("softmax", "sink", "cog")]
EXAMPLES = 400 if os.environ.get("OGIVE_TEST_ALL") == "1" else 100
STEPS = 20

done = [0]


@st.composite
def valid_cases(draw) -> Case:
    sizes = st.integers(0, 9)
    group = draw(st.sampled_from((1, 2, 3)))
    causal = draw(st.sampled_from(cases.CAUSAL))
    queries = draw(sizes)
    keys = queries if causal == "square" else draw(sizes)
    positional = causal != "none" or queries == keys
    return Case(
        draw(st.integers(0, 10**6)),
        draw(st.sampled_from(cases.SCORES)),
        draw(st.sampled_from(LIGHT)),
        causal,
        draw(st.sampled_from(cases.MASKS)),
        draw(st.sampled_from(cases.BROADCAST)),
        draw(st.sampled_from(cases.WINDOWS)) if positional else None,
        batch=draw(st.integers(0, 3)),
        heads=group * draw(st.integers(1, 2)),
        group=group,
        queries=queries,
        keys=keys,
        width=draw(sizes),
        value_width=draw(sizes),
        dtype=draw(st.sampled_from((torch.float32, torch.float64))),
        scale=draw(st.sampled_from((None, 0.0, 0.5, -1.0))),
        size=draw(st.sampled_from((0.0, 0.5, 2.0))),
    )


class Calls(RuleBasedStateMachine):
    """A user who calls one thing after another; a call remembered must answer as it did."""

    @initialize()
    def nothing_yet(self):
        self.remembered: list[tuple[cases.Call, str, dict[str, torch.Tensor]]] = []
        self.latest: str | None = last_impl()

    @rule(case=valid_cases(), pick=st.integers(0, 2))
    def call(self, case, pick):
        # A distance of zero has a slope that only convention gives; it is tested by name.
        if "power=1" in case.score and (case.size == 0 or case.width == 0):
            return
        call = build_call(case)
        impls = cases.ways_of(case)
        impl = impls[pick % len(impls)]
        found = cases.ours(call, impl)
        self.latest = "sdpa" if impl == "auto" else impl
        broken = cases.broken(call, {impl: found})
        assert not broken, f"{impl} {case}: {broken}"
        self.remembered.append((call, impl, found))
        done[0] += 1

    @rule(at=st.integers(0, 50))
    def call_again(self, at):
        if self.remembered:
            call, impl, before = self.remembered[at % len(self.remembered)]
            again = cases.ours(call, impl)
            self.latest = "sdpa" if impl == "auto" else impl
            assert all(torch.equal(before[n], again[n]) for n in before), str(call.case)

    @rule()
    def a_bad_call(self):
        tensor = torch.ones(1, 1, 2, 2)
        with pytest.raises(ValueError, match="dropout_p"):
            attention(tensor, tensor, tensor, dropout_p=2.0)

    @invariant()
    def the_latest_is_told(self):
        assert last_impl() == getattr(self, "latest", last_impl())


def test_random_sequences(count):
    from hypothesis.stateful import run_state_machine_as_test

    done[0] = 0
    run_state_machine_as_test(
        Calls,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    count("T21", done[0])
