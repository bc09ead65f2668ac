"""The probe networks: what people bring, written out, with an example input each. Tests and benchmarks cut them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class LastStep(nn.Module):
    """LSTM(1, 16) -> LSTM(16, 4) -> Linear(4, 4) -> ReLU -> Linear(4, 1) on the last step."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.first = kind(1, 16, batch_first=True)
        self.second = kind(16, 4, batch_first=True)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)[0])[0][:, -1])


class BothWays(nn.Module):
    """A bidirectional LSTM of two layers, and a linear reader of its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Sandwich(nn.Module):
    """A GRU between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 12)
        self.gru = nn.GRU(12, 10, batch_first=True)
        self.after = nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.gru(functional.relu(self.before(x)))[0][:, -1])


def mlp() -> nn.Module:
    """13-39-1, as for the Boston housing data."""
    return nn.Sequential(nn.Linear(13, 39), nn.Sigmoid(), nn.Linear(39, 1))


class ResidualCNN(nn.Module):
    """Convolutions with BatchNorm and one residual connection, ending in a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
            nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.head = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 10), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(functional.relu(x + self.body(x)))


class Encoder(nn.Module):
    """A linear embedding, a transformer's encoder layer, a linear reader of the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x))[:, -1])


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """As in torchvision; `width` is 64 there."""

    def __init__(self, width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        for k in range(1, 5):
            blocks = Block(widths[k - 1], widths[k], 1 if k == 1 else 2), Block(widths[k], widths[k], 1)
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _bottleneck(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, filter each channel by itself, narrow."""

    def __init__(self, inputs: int, outputs: int, stride: int, ratio: int) -> None:
        super().__init__()
        hidden = inputs * ratio
        layers: list[nn.Module] = [] if ratio == 1 else [_bottleneck(inputs, hidden, 1)]
        layers += [_bottleneck(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, outputs, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """As in torchvision; `scale` 1 is its own width, `settings` rows of (ratio, channels, blocks, stride)."""

    SETTINGS = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip

    def __init__(self, scale: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        inputs, last = round(32 * scale), round(1280 * scale)
        features: list[nn.Module] = [_bottleneck(3, inputs, 3, 2)]
        for ratio, channels, blocks, stride in self.SETTINGS:
            outputs = round(channels * scale)
            for k in range(blocks):
                features.append(InvertedResidual(inputs, outputs, stride if k == 0 else 1, ratio))
                inputs = outputs
        features.append(_bottleneck(inputs, last, 1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class EncoderDecoder(nn.Module):
    """An encoder's final states are the decoder's first; the decoder reads known inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(3, 8, batch_first=True)
        self.decoder = nn.LSTM(2, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, past: Tensor, future: Tensor) -> Tensor:
        _, (h, c) = self.encoder(past)
        return self.head(self.decoder(future, (h, c))[0])


class CellDecoder(nn.Module):
    """The decoder is a cell that reads its own last output, four steps long."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(1, 8, batch_first=True)
        self.cell = nn.LSTMCell(1, 8)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, c) = self.encoder(x)
        h, c, y = h[0], c[0], x[:, -1]
        outputs = []
        for _ in range(4):
            h, c = self.cell(y, (h, c))
            y = self.head(h)
            outputs.append(y)
        return torch.cat(outputs, dim=1)


class Tower(nn.Module):
    """Four LSTM layers of 1,024 units, each a module of its own or all in one."""

    def __init__(self, width: int = 1024, layers: int = 4, one: bool = False) -> None:
        super().__init__()
        if one:
            self.layers = nn.ModuleList([nn.LSTM(1, width, num_layers=layers, batch_first=True)])
        else:
            self.layers = nn.ModuleList(nn.LSTM(width if k else 1, width, batch_first=True) for k in range(layers))
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)[0]
        return self.head(x[:, -1])


Probe = tuple[Callable[[], nn.Module], Sequence[tuple[int, ...]]]

PROBES: dict[str, Probe] = {
    "LSTM 1-16-4, Linear 4-4-1": (LastStep, [(3, 7, 1)]),
    "bidirectional LSTM, 2 layers": (BothWays, [(3, 7, 3)]),
    "GRU between Linears": (Sandwich, [(3, 7, 3)]),
    "MLP 13-39-1": (mlp, [(3, 13)]),
    "residual CNN with BatchNorm": (ResidualCNN, [(3, 3, 8, 8)]),
    "TransformerEncoderLayer": (Encoder, [(3, 7, 3)]),
    "ResNet-18": (ResNet18, [(2, 3, 32, 32)]),
    "MobileNetV2": (MobileNetV2, [(2, 3, 32, 32)]),
    "encoder-decoder LSTM": (EncoderDecoder, [(3, 7, 3), (3, 4, 2)]),
    "encoder and LSTMCell loop": (CellDecoder, [(3, 7, 1)]),
}


def probe(name: str, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A probe network as if it had been trained (its normalisations have seen data), in evaluation mode; its inputs."""
    build, shapes = PROBES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        inputs = tuple(torch.randn(shape) for shape in shapes)
    return model.eval(), inputs
