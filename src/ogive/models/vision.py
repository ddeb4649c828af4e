"""VisionTransformer: an image as a sequence of patches, and one answer for it."""

from jaxtyping import Float
from torch import Tensor, nn

from ogive.errors import ArgumentError, ArgumentTypeError, unknown
from ogive.layers.checks import whole
from ogive.models.encoder import POOLS
from ogive.models.saving import Saved
from ogive.models.trunk import Stack
from ogive.parts.sites import Sites


class VisionTransformer(Saved, Stack):
    """An image cut into square patches, each projected to the width, read by a stack of blocks.

    Args:
        classes: how many answers there are.
        width, depth, heads, kv_heads, hidden, sites, activation, norm, norm_first, dropout,
            window_size, impl: as in `Decoder`.
        image_size: pixels from edge to edge: a number for squares, or (height, width).
        patch_size: pixels from edge to edge of a patch; divides the image.
        channels: numbers per pixel.
        positions: as in `Decoder`; patches are counted row by row, and `learned` learns one vector
            for each.
        pool: `mean` over the patches, or the `first` one.

    Raises:
        UnknownName, ArgumentError: an argument that does not fit.
    """

    kind = "vision"

    def __init__(
        self,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        *,
        image_size: int | tuple[int, int] = 8,
        patch_size: int = 2,
        channels: int = 1,
        kv_heads: int | None = None,
        hidden: int | None = None,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        activation: str = "gelu",
        norm: str = "layernorm",
        norm_first: bool = True,
        positions: str | None = "learned",
        pool: str = "mean",
        dropout: float = 0.0,
        window_size: tuple[int | None, int | None] | None = None,
        impl: str = "auto",
    ) -> None:
        size, patch, patches = _cut(image_size, patch_size)
        super().__init__(
            whole("width", width),
            depth,
            heads,
            kv_heads=kv_heads,
            hidden=hidden,
            sites=sites,
            activation=activation,
            norm=norm,
            norm_first=norm_first,
            positions=positions,
            max_length=patches,
            dropout=dropout,
            window_size=window_size,
            impl=impl,
        )
        if pool not in POOLS:
            raise unknown("pool", str(pool), POOLS)
        self.image_size, self.patch_size, self.pool = size, patch, pool
        self.channels = whole("channels", channels)
        self.embedding = nn.Linear(channels * patch * patch, width)
        self.head = nn.Linear(width, whole("classes", classes))

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b classes"]:
        """Logits of the classes (batch, classes) for images (batch, channels, height, width)."""
        states = self.run(self.embedding(self._patches(images)))
        return self.head(states.mean(1) if self.pool == "mean" else states[:, 0])

    def _patches(self, images: Tensor) -> Tensor:
        """(batch, patches row by row, channels · patch · patch)."""
        if not isinstance(images, Tensor):
            raise ArgumentTypeError(f"images takes a tensor, not {type(images).__name__}")
        if not images.is_floating_point():
            raise ArgumentTypeError(
                f"images takes floating-point numbers, not {images.dtype}; divide by the brightest"
            )
        fits = (self.channels, *self.image_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != fits:
            raise ArgumentError(
                f"images takes (batch, channels, height, width), the last three {fits}, not "
                f"{tuple(images.shape)}"
            )
        cut = images.unflatten(3, (-1, self.patch_size)).unflatten(2, (-1, self.patch_size))
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _cut(image_size: object, patch_size: int) -> tuple[tuple[int, int], int, int]:
    """(height, width), the patch's side, and how many patches there are."""
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(sides, tuple | list) or len(sides) != 2:
        raise ArgumentTypeError(f"image_size takes pixels or (height, width), not {image_size!r}")
    height, width = (whole("image_size", side) for side in sides)
    patch = whole("patch_size", patch_size)
    if height % patch or width % patch:
        raise ArgumentError(
            f"patch_size={patch} does not divide image_size={height} × {width}: every patch must "
            "be whole"
        )
    return (height, width), patch, height // patch * (width // patch)
