"""Models, by assembly alone."""

from ogive.models.decoder import Decoder
from ogive.models.encoder import Encoder
from ogive.models.graph import GraphNetwork
from ogive.models.saving import Saved, kinds, load
from ogive.models.seq2seq import Seq2Seq
from ogive.models.translator import Translator
from ogive.models.vision import VisionTransformer

__all__ = [
    "Decoder",
    "Encoder",
    "GraphNetwork",
    "Saved",
    "Seq2Seq",
    "Translator",
    "VisionTransformer",
    "kinds",
    "load",
]
