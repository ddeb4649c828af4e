"""Models, by assembly alone."""

from ogive.models.decoder import Decoder
from ogive.models.encoder import Encoder

__all__ = ["Decoder", "Encoder"]
