"""Parts and sites: everything that can sit in an attention layer, and where."""

from ogive.parts.facts import Facts
from ogive.parts.form import Form, parse_chain, parse_form
from ogive.parts.gates import Gate
from ogive.parts.maps import Activation, Map, Norm
from ogive.parts.measure import measure
from ogive.parts.part import Part, Sizes, build, catalogue
from ogive.parts.presets import Preset, presets, sites_from
from ogive.parts.projections import Projection
from ogive.parts.scores import Score, ScoreMap, score_from
from ogive.parts.sites import Sites
from ogive.parts.weights import ElementwiseWeight, Weight

__all__ = [
    "Activation",
    "ElementwiseWeight",
    "Facts",
    "Form",
    "Gate",
    "Map",
    "Norm",
    "Part",
    "Preset",
    "Projection",
    "Score",
    "ScoreMap",
    "Sites",
    "Sizes",
    "Weight",
    "build",
    "catalogue",
    "measure",
    "parse_chain",
    "parse_form",
    "presets",
    "score_from",
    "sites_from",
]
