"""FeedForward: two projections with an activation, or a gated one, between them."""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from ogive.errors import ArgumentError
from ogive.kernels import maps as kernels
from ogive.kernels.checks import check_dropout
from ogive.layers.checks import whole
from ogive.parts.maps import Activation, Glu, Map
from ogive.parts.part import Part, Sizes, build


class FeedForward(nn.Module):
    """y = f(x W_up) W_down, token by token.

    A gated activation (`glu(silu)`, SwiGLU) has three matrices where a plain one has two. So that
    it costs the same parameters it keeps 2/3 of the hidden width (rounded), whether it is written
    `glu(silu)` or `glu(silu,width=match)`; `glu(silu,width=split)` keeps half of it and costs less.

    Args:
        width: features in and out.
        hidden: features between the projections of a plain network.
        activation: written form of an activation (`gelu`) or of `glu`.
        bias: whether the projections add a bias.
        dropout: probability of dropping a feature between the projections, in training.

    Raises:
        UnknownName, ArgumentError: an activation or size that does not fit.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str = "gelu",
        *,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation_from(activation)
        into = self.activation.width_in(whole("hidden", hidden))
        whole("width", width)
        self.activation.setup(Sizes(width, 1, into, bias))
        self.up_proj = nn.Linear(width, into, bias=bias)
        self.down_proj = nn.Linear(self.activation.width_out(into), width, bias=bias)
        self.dropout = nn.Dropout(check_dropout(dropout))

    def forward(self, x: Float[Tensor, "b t w"]) -> Float[Tensor, "b t w"]:
        """Map x (batch, length, width) to the same shape."""
        h = kernels.run(self.activation, self.up_proj(x), x)
        return self.down_proj(self.dropout(h) if self.dropout.p else h)


def activation_from(written: str | Part) -> Map:
    """A new activation, or a gated one, from its written form.

    Raises:
        UnknownName, ArgumentError: no map of that name, or one that is neither.
    """
    part = build("map", written.form if isinstance(written, Part) else written)
    if isinstance(part, Glu) and part.width == "double":
        return cast(Map, build("map", f"glu({part.act},width=match)"))
    if not isinstance(part, Activation | Glu):
        raise ArgumentError(
            f"activation={str(written)!r} is a {part.kind}, where an activation or glu(…) fits"  # type: ignore[attr-defined]
        )
    return part
