"""Maps of what a network looks at, and numbers with known answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bench.models import gradcam, networks
from bench.models.networks import Normalised


def test_an_even_map_has_spread_1_and_half_its_mass_in_the_central_half() -> None:
    even = torch.ones(2, 32, 32)
    assert gradcam.spread(even).tolist() == pytest.approx([1.0, 1.0])
    assert gradcam.central(even).tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
    assert gradcam.central(torch.ones(1, 7, 9)).tolist() == pytest.approx([0.5], abs=1e-5)


def test_a_single_pixel_has_no_spread_and_lies_inside_or_outside() -> None:
    maps = torch.zeros(2, 16, 16)
    maps[0, 8, 8] = 0.3
    maps[1, 0, 15] = 1.0
    assert gradcam.spread(maps).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert gradcam.central(maps).tolist() == pytest.approx([1.0, 0.0])


def test_spread_and_share_do_not_depend_on_the_scale_of_a_map() -> None:
    maps = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(gradcam.spread(maps), gradcam.spread(5 * maps), atol=1e-6)
    assert torch.allclose(gradcam.central(maps), gradcam.central(5 * maps), atol=1e-6)


def test_an_empty_map_has_no_numbers() -> None:
    empty = torch.zeros(1, 8, 8)
    assert math.isnan(gradcam.spread(empty))
    assert math.isnan(gradcam.central(empty))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resnet8", "Basic"), ("resnet44-bottleneck", "Bottleneck"), ("wrn-40-2", None)],
)
def test_the_last_stage_of_every_family_is_known(name: str, kind: str | None) -> None:
    network = networks.build(name, classes=3, mean=[0.5] * 3, std=[0.5] * 3, seed=0)
    stage = gradcam.last_stage(network.network)
    assert kind is None or type(stage).__name__ == kind
    with pytest.raises(ValueError, match="Linear does not end in convolutions"):
        gradcam.last_stage(nn.Linear(2, 2))


class Quarter(nn.Module):
    """Sees brightness and knows class 1 by it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, images: Tensor) -> Tensor:
        total = self.conv(images).mean((1, 2, 3))
        return torch.stack([-total, total], 1)


@pytest.mark.slow
def test_the_map_is_bright_where_the_class_comes_from() -> None:
    pytest.importorskip("pytorch_grad_cam", reason="the library grad-cam is not installed")
    images = torch.zeros(2, 1, 16, 16)
    images[0, :, :8, :8] = 1.0
    images[1, :, 8:, 8:] = 1.0
    network = Normalised(Quarter(), torch.tensor([0.0]), torch.tensor([1.0])).eval()
    found = gradcam.maps(network, images, torch.tensor([1, 1]))
    assert found.shape == (2, 16, 16)
    assert torch.equal(found.round(), images[:, 0])
    shown = gradcam.overlay(images, found)
    assert shown.shape == (2, 3, 16, 16)
    assert float(shown[0, :, :8, :8].mean()) > float(shown[0, :, 8:, 8:].mean())


@pytest.mark.slow
def test_maps_of_a_network_leave_it_as_it_was() -> None:
    pytest.importorskip("pytorch_grad_cam", reason="the library grad-cam is not installed")
    network = networks.build("resnet8", classes=4, mean=[0.5] * 3, std=[0.5] * 3, seed=0).eval()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = network(images)
    found = gradcam.maps(network, images, torch.tensor([0, 1, 2]))
    assert found.shape == (3, 16, 16)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(network(images), before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_transformer_has_no_maps() -> None:
    network = networks.build("vit-96-6", classes=3, mean=[0.5] * 3, std=[0.5] * 3, seed=0)
    with pytest.raises(ValueError, match="VisionTransformer does not end in convolutions"):
        gradcam.last_stage(network.network)
