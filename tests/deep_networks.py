"""Deep networks whose whole layers are scored: plain, residual, convolutional and recurrent, in float64, with data."""

import torch
from torch import Tensor, nn

from pared.models import Forecaster
from pared.types import Batch


class Block(nn.Module):
    """x + f(x) with a normalisation and a hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class ConvolutionalBlock(nn.Module):
    """x + f(x) of images."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.convolution = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.convolution(self.norm(x)))


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().double()


def deep(width: int = 6) -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 2),
        )
    )  # fmt: skip


def residual() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(4, 5), Block(5), Block(5), nn.Linear(5, 2)))


def convolutional() -> nn.Module:
    """In evaluation mode, so that what blocks return is what is scored."""
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), ConvolutionalBlock(3), ConvolutionalBlock(3), nn.Flatten(), nn.Linear(48, 2)
        )
    ).eval()


def recurrent(cell: str = "lstm") -> nn.Module:
    return Forecaster(1, (4, 4, 3), (), cell=cell, init="torch").double()


NETWORKS = {"deep": deep, "residual": residual, "convolutional": convolutional, "recurrent": recurrent}


def data(name: str, samples: int = 60, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = {"recurrent": (samples, 5, 1), "convolutional": (samples, 1, 4, 4)}.get(name, (samples, 4))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randn(samples, 1 if name == "recurrent" else 2, generator=generator, dtype=torch.float64))
