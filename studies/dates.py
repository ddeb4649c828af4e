"""Four scores between two recurrent networks, on dates in fifteen languages.

Additive attention, with a tanh inside its score, came first, and products of query and key took its
place. Here they differ in nothing else: the same encoder, decoder, data and starts. Training is
short, because every one of them reads all dates when it goes on for twice as long: the question is
which learns sooner. Run with `ogive study dates`; the page shows where each one looks.
"""

from ogive.lab import Study

study = Study(
    name="dates",
    question="Does a tanh inside the score help a recurrent network to read dates?",
    tasks=("dates",),
    baseline="",  # the scaled dot product
    variants={
        "additive": "score=additive(tanh)",
        "dot, not scaled": "score=unscaled_dot",
        "bilinear": "score=bilinear",
    },
    margin=0.01,  # one date in a hundred
    seeds=6,
    learning_rates=(2e-3, 4e-3, 8e-3),
    # A score brings parameters of its own, which nothing else could give back: no budget to match.
    match="none",
    model={"width": 64, "depth": 1, "heads": 1, "hidden": 64},
    train={"steps": 200, "batch": 64, "warmup": 40, "evaluations": 4},
)

quick = study.replace(
    name="dates-quick",
    seeds=2,
    learning_rates=(4e-3,),
    train={"steps": 120, "batch": 64, "warmup": 20, "evaluations": 2},
    quick=True,
)
