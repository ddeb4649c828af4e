"""Softmax replaced: which weight functions train, and what they cost, on text and on recall.

Text asks for soft averages over what came before; recall asks for one exact place and punishes a
weight function that cannot point. Run with `ogive study weights`.
"""

from ogive.lab import Study

study = Study(
    name="weights",
    question="Can another function take the place of softmax in attention?",
    tasks=("text", "recall"),
    variants={
        # Of each score on its own, so that a query may attend to nothing.
        "tanh": "weight=tanh",
        "sigmoid": "weight=sigmoid(bias=-log_n)",
        "relu": "weight=relu(length_power=1)",
        "identity": "weight=identity(length_power=1)",
        # Rows still compete, but not by an exponential over all of them.
        "softmax1": "weight=softmax1",
        "softpick": "weight=softpick",
        "entmax15": "weight=entmax15",
    },
    # A hundredth of a nat per byte; two answers in a hundred.
    margin={"text": 0.01, "recall": 0.02},
    seeds=6,
    learning_rates=(3e-3, 6e-3, 1.2e-2),
    # Two blocks: recall takes one to tie a value to its key, and one to find the key again.
    model={"width": 32, "depth": 2, "heads": 2, "hidden": 64},
    train={"steps": 400, "batch": 32, "warmup": 40, "evaluations": 4},
    task_options={"text": {"length": 64, "windows": 256}, "recall": {}},
)

quick = study.replace(
    name="weights-quick",
    seeds=2,
    learning_rates=(6e-3,),
    train={"steps": 100, "batch": 16, "warmup": 10, "evaluations": 2},
    quick=True,
)
