"""Where in a graph's attention does a nonlinearity pay? Scores and activations on US air routes.

The dot product has no activation of its own. GAT applies one after query and key were added up to
one number, GATv2 before, and either can take another activation; the graph layers' σ acts on the
mixed site. The control at that site is a norm, which rescales and bends nothing else. Run with
`ogive study routes`.
"""

from ogive.lab import Study

study = Study(
    name="routes",
    question="Does a nonlinearity in the score or after it help attention over a graph?",
    tasks=("routes",),
    baseline="",  # the scaled dot product
    variants={
        "gat": "score=gat",
        "gatv2": "score=gatv2",
        "gatv2 with tanh": "score=gatv2(tanh)",
        "gatv2 with gelu": "score=gatv2(gelu)",
        "elu on mixed": "mixed=elu",
        "gat with elu on mixed": "score=gat mixed=elu",
        "rmsnorm on mixed": "mixed=rmsnorm",
    },
    controls=("rmsnorm on mixed",),
    margin=0.02,  # two airports in a hundred
    seeds=8,
    tuning_seeds=2,
    learning_rates=(4e-3, 8e-3, 1.6e-2),
    # A score brings parameters of its own, which nothing else could give back: no budget to match.
    match="none",
    model={"width": 32, "depth": 2, "heads": 4, "hidden": 64, "dropout": 0.3},
    train={"steps": 200, "batch": 64, "warmup": 20, "evaluations": 4},
)

quick = study.replace(
    name="routes-quick",
    seeds=2,
    learning_rates=(8e-3,),
    train={"steps": 80, "batch": 64, "warmup": 10, "evaluations": 2},
    quick=True,
)
