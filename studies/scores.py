"""Where in the score does its nonlinearity belong? Four scores on the dictionary lookup.

A score that applies its nonlinearity after query and key were added up to one number (GAT) ranks
the keys the same for every query, and so cannot look anything up; one that applies it before
(GATv2, additive) can, and so can the dot product. One layer and no feed-forward network, as in
the paper (2105.14491): the score has to do it alone. Four heads, since a single one often stops
where it answers half of the questions. Run with `ogive study scores`.
"""

from ogive.lab import Study

study = Study(
    name="scores",
    question="Does the place of the nonlinearity in the score decide what attention can express?",
    tasks=("lookup",),
    baseline="",  # the dot product
    variants={
        "gat": "score=gat",
        "gatv2": "score=gatv2",
        "additive": "score=additive(tanh)",
    },
    margin=0.02,  # two answers in a hundred
    seeds=6,
    learning_rates=(1e-3, 3e-3, 1e-2),
    # A score brings parameters of its own, which nothing else could give back: no budget to match.
    match="none",
    model={"width": 64, "depth": 1, "heads": 4, "hidden": 0, "positions": None},
    train={"steps": 500, "batch": 64, "warmup": 50, "evaluations": 5},
)

quick = study.replace(
    name="scores-quick",
    seeds=2,
    learning_rates=(3e-3,),
    train={"steps": 200, "batch": 64, "warmup": 20, "evaluations": 2},
    quick=True,
)
