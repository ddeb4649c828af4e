"""Training: it learns, repeats to the bit, scores what it should, and says when it diverges."""

from __future__ import annotations

import json
import math
import platform
from itertools import pairwise

import pytest
import torch

from ogive.errors import ArgumentError, StudyError, TrialDiverged, UnknownName
from ogive.lab import tasks
from ogive.lab.average import WeightAverage
from ogive.lab.machine import environment, keep_freed_memory
from ogive.lab.pairing import initialise
from ogive.lab.train import Recipe, _optimizer, train

SMALL = {"width": 16, "depth": 1, "heads": 2, "hidden": 32}


def trial(name="recall", sites="", model=None, seed=0, options=None, **settings):
    """A small trial's configuration."""
    task = tasks.build(name, options)
    return {
        "task": {"name": name, "version": task.version(), "options": task.options},
        "sites": sites,
        "model": SMALL if model is None else model,
        "train": {"steps": 12, "batch": 8, "lr": 3e-3, "warmup": 2} | settings,
        "seed": seed,
    }


def default_trial(name, sites="", **settings):
    """The task's own model and recipe."""
    task = tasks.build(name)
    return trial(name, sites, dict(task.default_model), **(task.default_train | settings))


def unigram_entropy(task):
    """Nats per byte of the held-out tail under its own byte frequencies."""
    counts = torch.bincount(task.tail.long()).double()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum())


def test_text_is_learnt():
    """Below the entropy of single bytes, and of what no model of single bytes could score."""
    task = tasks.build("text")
    result = train(default_trial("text", steps=150))
    assert 1.5 < result["score"] < unigram_entropy(task) - 0.5


def test_a_model_that_reads_nothing_stays_above():
    """The wrong twin: without its rotary positions and attention, only single bytes are known."""
    task = tasks.build("text")

    class Blind(torch.nn.Module):
        def forward(self, tokens):
            counts = torch.bincount(task.training.long(), minlength=256) + 1.0
            return counts.log().expand(*tokens.shape, 256)

    assert task.evaluate(Blind()) >= unigram_entropy(task)


@pytest.mark.parametrize(
    ("score", "solves"),
    [("dot", True), ("gatv2(leaky_relu)", True), ("gat(leaky_relu)", False)],
)
def test_the_place_of_the_nonlinearity_decides_lookup(score, solves):
    """Static attention cannot answer every question; dynamic attention can (2105.14491)."""
    model = dict(tasks.build("lookup").default_model)
    config = trial(
        "lookup", f"score={score}", model, options={"keys": 8}, steps=350, batch=16, lr=4e-3
    )
    accuracy = train(config)["score"]
    assert accuracy > 0.99 if solves else accuracy < 0.5


def test_recall_is_learnt():
    """Well beyond 1/4, which knowing the values that were shown would give."""
    assert train(default_trial("recall"))["score"] > 0.9


def test_the_same_trial_twice_is_the_same_to_the_last_bit():
    config = trial(model=SMALL | {"dropout": 0.2}, ema=0.9)
    first = train(config)
    torch.manual_seed(5)
    torch.rand(3)
    again = train(config)
    assert first["score"] == again["score"]
    assert first["curve"] == again["curve"]
    assert train(config | {"seed": 1})["curve"] != first["curve"]


def test_dropout_drops():
    config = trial(steps=3)
    dropping = trial(steps=3, model=SMALL | {"dropout": 0.5})
    assert train(config)["curve"] != train(dropping)["curve"]


def test_the_callers_torch_is_left_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    train(trial(steps=2))
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == threads


def test_the_result_is_plain_data_and_whole():
    result = train(trial())
    assert json.loads(json.dumps(result)) == result
    assert list(result) == [
        "score",
        "metric",
        "unit",
        "higher_is_better",
        "curve",
        "parameters",
        "flops_per_token",
        "step_ms",
        "seconds",
        "environment",
        "diverged",
    ]
    assert result["metric"] == "accuracy"
    assert result["higher_is_better"] is True
    assert result["step_ms"] > 0
    assert result["seconds"] > 12 * 0.5 * result["step_ms"] / 1000


def test_the_curve_ends_with_the_score():
    steps, evaluations = 90, 4
    result = train(trial(steps=steps, evaluations=evaluations))
    at, losses, held_out = zip(*result["curve"], strict=True)
    assert list(at) == sorted(set(at))
    assert at[-1] == steps
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(score is not None for score in held_out) == evaluations
    assert held_out[-1] == result["score"]


def test_every_step_is_reported():
    seen = []
    train(trial(steps=5), on_step=lambda step, loss: seen.append((step, loss)))
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5]
    assert seen[0][1] == pytest.approx(math.log(32), rel=0.3)


def test_only_the_allow_list_is_recorded(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    recorded = environment()
    assert set(recorded) == {
        "ogive",
        "python",
        "torch",
        "system",
        "machine",
        "processor",
        "vectors",
        "kernels",
        "threads",
    }
    assert "hunter2" not in json.dumps(recorded)


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_an_absurd_learning_rate_is_a_diverged_trial():
    with pytest.raises(TrialDiverged, match=r"loss became (nan|inf) at step \d+ of 12 .*1e\+30"):
        train(trial(lr=1e30, clip=0.0))


def test_a_score_that_is_no_number_is_a_diverged_trial(monkeypatch):
    monkeypatch.setattr("ogive.lab.tasks.recall.Recall.evaluate", lambda self, model: math.nan)
    with pytest.raises(TrialDiverged, match="held-out score became nan after step 3"):
        train(trial(evaluations=4))


def test_other_data_than_planned_are_refused():
    config = trial()
    config["task"]["version"] = "0" * 16
    with pytest.raises(StudyError, match="hands out other data now .*plan the study again"):
        train(config)


def test_a_missing_key_is_named():
    config = trial()
    del config["seed"]
    with pytest.raises(StudyError, match="needs the key 'seed'; it has task, sites, model, train"):
        train(config)


def test_an_unknown_setting_is_told_the_known_ones():
    with pytest.raises(UnknownName, match="train setting 'step'; did you mean 'steps'"):
        train(trial(step=3))


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"steps": 2.0},
        {"batch": True},
        {"lr": -1.0},
        {"lr": math.nan},
        {"lr": "fast"},
        {"clip": math.inf},
        {"ema": 1.0},
        {"evaluations": 0},
    ],
)
def test_a_setting_that_does_not_fit(settings):
    with pytest.raises(ArgumentError, match=f"train setting {next(iter(settings))} takes a"):
        Recipe.read(settings)


def test_the_rate_warms_up_and_comes_down():
    recipe = Recipe(steps=100, lr=1.0, warmup=10)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[-1] < 0.001


def test_only_matrices_with_a_random_start_decay():
    sites = "mixed=constant_gate value=rmsnorm(gain=true),conv(2) query=gelu output=additive"
    model = tasks.build("recall").model(SMALL, sites)
    optimizer = _optimizer(model, Recipe(), initialise(model, 0))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, plain = ({names[id(p)] for p in g["params"]} for g in optimizer.param_groups)
    assert len(decayed | plain) == len(names) == len(decayed) + len(plain)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    assert optimizer.param_groups[1]["weight_decay"] == 0
    for name in names.values():
        never = any(word in name for word in ("norm", "bias", "constant_gate", "conv"))
        assert (name in plain) == never, name


def test_the_average_is_the_average():
    parameter = torch.nn.Parameter(torch.zeros(3))
    average = WeightAverage([parameter], 0.9)
    kept = 0.0
    for step in range(1, 200):
        parameter.data.fill_(float(step))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        kept = decay * kept + (1 - decay) * step
    with average.in_place():
        assert torch.allclose(parameter, torch.full((3,), kept))
    assert torch.equal(parameter, torch.full((3,), 199.0))


def test_the_average_is_what_is_scored():
    last, averaged = train(trial("text", steps=30)), train(trial("text", steps=30, ema=0.95))
    assert last["curve"][0][1] == averaged["curve"][0][1]
    assert last["score"] != averaged["score"]
