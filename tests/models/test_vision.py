"""VisionTransformer: patches in their order, positions, pools, and images that do not fit."""

from __future__ import annotations

import pytest
import torch

from layers.cases import MIXTURES, close, drawn, shaken
from ogive.errors import ArgumentError, ArgumentTypeError, UnknownName
from ogive.models import VisionTransformer
from sampling import sampled


def test_is_its_parts_in_order():
    model = shaken(VisionTransformer(5, 16, 1, 4, image_size=(4, 6), patch_size=2, channels=3))
    images = drawn(2, 3, 4, 6)
    patches = [
        images[:, :, y : y + 2, x : x + 2].flatten(1)
        for y in range(0, 4, 2)
        for x in range(0, 6, 2)
    ]
    x = model.embedding(torch.stack(patches, 1)) + model.positions.weight
    block = model.blocks[0]
    x = x + block.attention(block.attention_norm(x))
    x = x + block.feedforward(block.feedforward_norm(x))
    close(model(images), model.head(model.norm(x).mean(1)))


@pytest.mark.parametrize("case", sampled(MIXTURES, 8, "vision"))
def test_every_pixel_matters_whatever_sits_where(case):
    model = shaken(
        VisionTransformer(
            5, 24, 1, 4, sites=case.sites, positions=case.positions, kv_heads=case.kv_heads
        )
    )
    images = drawn(1, 1, 8, 8).requires_grad_()
    model(images).square().sum().backward()
    assert bool((images.grad != 0).all())


def test_without_positions_patches_have_no_order():
    images = drawn(2, 1, 8, 8)
    turned = images.roll(2, 2)  # by a whole patch
    blind = shaken(VisionTransformer(5, 16, 2, 4, positions=None))
    close(blind(turned), blind(images))
    seeing = shaken(VisionTransformer(5, 16, 2, 4))
    assert (seeing(turned) - seeing(images)).abs().max() > 1e-3


def test_first_pool_and_saving(tmp_path):
    model = shaken(VisionTransformer(5, 16, 1, 4, pool="first", image_size=(4, 6))).eval()
    images = drawn(2, 1, 4, 6)
    model.save(tmp_path)
    loaded = VisionTransformer.load(tmp_path)
    assert torch.equal(loaded(images), model(images))
    assert loaded.settings["image_size"] == [4, 6]


@pytest.mark.parametrize(
    ("images", "error", "says"),
    [
        (torch.zeros(2, 8, 8), ArgumentError, r"\(1, 8, 8\), not \(2, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8), ArgumentError, r"not \(2, 3, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8).byte(), ArgumentTypeError, "not torch.uint8; divide"),
        ([[0.0]], ArgumentTypeError, "images takes a tensor, not list"),
    ],
)
def test_bad_images(unchecked_shapes, images, error, says):
    with pytest.raises(error, match=says):
        VisionTransformer(5, 16, 1, 4)(images)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"patch_size": 3}, ArgumentError, "patch_size=3 does not divide image_size=8 × 8"),
        ({"patch_size": 0}, ArgumentError, "patch_size"),
        ({"image_size": "8"}, ArgumentTypeError, "image_size takes pixels"),
        ({"image_size": (8, 0)}, ArgumentError, "image_size"),
        ({"heads": 3}, ArgumentError, "does not divide into heads=3"),
        ({"pool": "max"}, UnknownName, "pool 'max'"),
        ({"classes": 0}, ArgumentError, "classes"),
    ],
)
def test_bad_options(options, error, says):
    settings = {"classes": 5, "width": 16, "depth": 1, "heads": 4, **options}
    with pytest.raises(error, match=says):
        VisionTransformer(**settings)
