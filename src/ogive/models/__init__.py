"""Models, by assembly alone."""

from ogive.models.decoder import Decoder
from ogive.models.encoder import Encoder
from ogive.models.saving import Saved, kinds, load

__all__ = ["Decoder", "Encoder", "Saved", "kinds", "load"]
