"""The question: does an activation after the query, key or value projection help?

Run by `ogive demo`; `ogive demo --quick` runs `quick` below. Each variant is trained and scored as
often as the baseline, on the same data in the same order and from the same start, so what is left
of a difference is the variant's. The default takes 7 to 18 minutes on two cores.
"""

from ogive.lab import Study

study = Study(
    name="demo",
    question=(
        "Does a nonlinear activation after the query, key or value projection help attention?"
    ),
    # Real text: the Python documentation that ships with every interpreter, byte by byte.
    tasks=("text",),
    variants={
        # What the question asks for, q = f(xW_q) and so on, with the two activations that people
        # try first. One site at a time: an effect then has one address.
        "relu on query": "query=relu",
        "gelu on query": "query=gelu",
        "relu on key": "key=relu",
        "gelu on key": "key=gelu",
        "relu on value": "value=relu",
        "gelu on value": "value=gelu",
        # The nonlinearity with the best published record in attention, as a yardstick.
        "sigmoid gate on mixed": "mixed=gate(sigmoid)",
        # Controls change what an activation changes as a side effect, but are linear in each
        # token's features, or only rescale them. A variant earns credit by beating these as well.
        "rmsnorm on value": "value=rmsnorm",
        "scale on value": "value=scale(gelu)",
        "constant gate on value": "value=constant_gate",
    },
    controls=("rmsnorm on value", "scale on value", "constant gate on value"),
    # One hundredth of a nat per byte: half a percent of what such a small model scores. Fixed
    # before the first trial ran; a difference that is certainly smaller is called equivalent.
    margin=0.01,
    # Six is the fewest with which an exact sign-flip test can reach 5 %.
    seeds=6,
    # A variant may want another learning rate than the baseline, and would look worse at the
    # baseline's. Every arm tunes its own, on two seeds that the comparison does not use.
    tuning_seeds=2,
    learning_rates=(5e-3, 1e-2, 2e-2),
    # Small enough for minutes on a laptop, large enough that attention matters. At about equal cost
    # a small batch and more steps left the least noise between paired trials (pilots compared
    # sizes by that, not by which variant won; some of their seeds return here).
    model={"width": 64, "depth": 2, "heads": 4, "hidden": 256},
    train={"steps": 600, "batch": 8, "warmup": 40, "evaluations": 3},
    task_options={"text": {"length": 64}},
)

# A first look in one to three minutes: fewer seeds, short training, one learning rate for all.
quick = study.replace(
    name="demo-quick",
    seeds=5,
    learning_rates=(1e-2,),
    train={"steps": 200, "batch": 8, "warmup": 40, "evaluations": 1},
    quick=True,
)
