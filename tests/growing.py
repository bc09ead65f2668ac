"""One small network of every kind that grows, with an input, and problems: what the laws of growth are tried on."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pared.surgery import trace
from pared.types import Batch


class Net(nn.Module):
    """Named layers and a forward on them."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def _image(forward, **layers):
    return Net(forward, **layers), (3, 2, 6, 6)


def _window(forward, **layers):
    return Net(forward, **layers), (3, 5, 2)


def _row(forward, **layers):
    return Net(forward, **layers), (6, 3)


def cnn():
    def forward(m, x):
        x = F.relu(m.norm(m.first(x)))
        x = F.relu(m.deep(x))
        x = x + m.grouped(x)
        return m.last(F.relu(m.point(x)).flatten(1))

    return _image(
        forward,
        first=nn.Conv2d(2, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
        deep=nn.Conv2d(4, 8, 3, padding=1, groups=4),
        grouped=nn.Conv2d(8, 8, 3, padding=1, groups=2),
        point=nn.Conv2d(8, 3, 2, stride=2),
        last=nn.Linear(27, 2),
    )


def group_norm():
    return _image(
        lambda m, x: m.b(F.relu(m.norm(m.a(x)))).flatten(1),
        a=nn.Conv2d(2, 6, 3), norm=nn.GroupNorm(3, 6), b=nn.Conv2d(6, 2, 2),
    )  # fmt: skip


def transposed():
    return _image(
        lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))),
        a=nn.Conv2d(2, 4, 3), b=nn.ConvTranspose2d(4, 6, 3, groups=2), c=nn.ConvTranspose2d(6, 2, 2),
    )  # fmt: skip


def joined():
    return _image(
        lambda m, x: m.c(torch.cat([torch.relu(m.a(x)), torch.tanh(m.b(x))], 1).flatten(1)),
        a=nn.Conv2d(2, 3, 3), b=nn.Conv2d(2, 4, 3), c=nn.Linear(112, 2),
    )  # fmt: skip


def attention():
    def forward(m, x):
        h = m.a(x)
        return m.b(m.attention(h, h, h, need_weights=False)[0])

    return _window(
        forward, a=nn.Linear(2, 8), attention=nn.MultiheadAttention(8, 2, batch_first=True), b=nn.Linear(8, 2)
    )


def one_head():
    def forward(m, x):
        h = torch.tanh(m.a(x))
        return m.b(m.attention(h, x, x)[0])

    return _window(
        forward, a=nn.Linear(2, 4), attention=nn.MultiheadAttention(4, 1, kdim=2, vdim=2, batch_first=True),
        b=nn.Linear(4, 2),
    )  # fmt: skip


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True, dropout=0.0)
    return _window(lambda m, x: m.b(m.layer(m.a(x))), a=nn.Linear(2, 8), layer=layer, b=nn.Linear(8, 2))


def bidirectional():
    return _window(
        lambda m, x: m.last(m.lstm(x)[0][:, -1]),
        lstm=nn.LSTM(2, 3, 2, bidirectional=True, batch_first=True), last=nn.Linear(6, 2),
    )  # fmt: skip


def projected():
    return _window(
        lambda m, x: m.last(m.lstm(x)[0][:, -1]),
        lstm=nn.LSTM(2, 9, 2, proj_size=3, batch_first=True), last=nn.Linear(3, 2),
    )  # fmt: skip


def encoder_decoder():
    def forward(m, x):
        _, state = m.encoder(x)
        return m.last(m.decoder(x[:, :2], state)[0])

    return _window(
        forward,
        encoder=nn.LSTM(2, 4, batch_first=True), decoder=nn.LSTM(2, 4, batch_first=True), last=nn.Linear(4, 2),
    )  # fmt: skip


def packed():
    def forward(m, x):
        out, _ = m.gru(pack_padded_sequence(x, torch.tensor([5, 4, 2]), batch_first=True))
        return m.last(pad_packed_sequence(out, batch_first=True)[0])

    return _window(forward, gru=nn.GRU(2, 4, bias=False, batch_first=True), last=nn.Linear(4, 2))


def recurrent(kind, **more):
    def forward(m, x):
        return m.last(m.after(m.rnn(torch.tanh(m.before(x)))[0][:, -1]))

    return lambda: _window(
        forward,
        before=nn.Linear(2, 3), rnn=kind(3, 4, 2, batch_first=True, **more), after=nn.Linear(4, 3),
        last=nn.Linear(3, 2),
    )  # fmt: skip


def cells(kind):
    def forward(m, x):
        state = m.cell(x[:, 0])
        for t in range(1, 5):
            state = m.cell(x[:, t], state)
        return m.last(state[0] if kind is nn.LSTMCell else state)

    return lambda: _window(forward, cell=kind(2, 4), last=nn.Linear(4, 2))


def embedded():
    def forward(m, x):
        return m.last(torch.tanh(m.middle(m.table(x.abs().mul(3).long().clamp(max=6)))).mean(1))

    return _window(forward, table=nn.Embedding(7, 3, padding_idx=0), middle=nn.Linear(3, 4), last=nn.Linear(4, 2))


def tied():
    def forward(m, x):
        return F.linear(torch.tanh(m.encoder(x)), m.encoder.weight.T) + F.linear(torch.relu(m.other(x)), m.last.weight)

    return _row(forward, encoder=nn.Linear(3, 5), other=nn.Linear(3, 4), last=nn.Linear(4, 3, bias=False))


def shared():
    """One layer used twice, and one weight under two names."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return _row(
        lambda m, x: m.last(torch.tanh(m.second(torch.tanh(m.first(torch.tanh(m.first(m.enter(x)))))))),
        enter=nn.Linear(3, 4), first=first, second=second, last=nn.Linear(4, 2),
    )  # fmt: skip


def parametrised():
    return _row(
        lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))),
        a=parametrizations.weight_norm(nn.Linear(3, 4)), b=parametrizations.weight_norm(nn.Linear(4, 5)),
        c=nn.Linear(5, 2),
    )  # fmt: skip


def scaled():
    model, shape = _row(
        lambda m, x: m.b(m.slope(m.a(x)) * m.scale), a=nn.Linear(3, 4), slope=nn.PReLU(4), b=nn.Linear(4, 2)
    )
    model.scale = nn.Parameter(torch.linspace(1, 2, 4))
    return model, shape


ZOO = {
    "cnn": cnn,
    "group norm": group_norm,
    "transposed": transposed,
    "joined": joined,
    "attention": attention,
    "one head": one_head,
    "transformer": transformer,
    "bidirectional": bidirectional,
    "projected": projected,
    "encoder and decoder": encoder_decoder,
    "packed": packed,
    "lstm": recurrent(nn.LSTM),
    "gru": recurrent(nn.GRU),
    "rnn": recurrent(nn.RNN, nonlinearity="relu"),
    "lstm cell": cells(nn.LSTMCell),
    "gru cell": cells(nn.GRUCell),
    "rnn cell": cells(nn.RNNCell),
    "embedded": embedded,
    "tied": tied,
    "shared": shared,
    "parametrised": parametrised,
    "scaled": scaled,
}


def built(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """A network of the zoo and an input, in float64 and evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, shape = ZOO[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
        return model.double().eval(), torch.randn(shape, dtype=torch.float64)


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


KINDS = ("plain cnn", "lstm", "gru", *slow("lstm cell", "bidirectional", "projected", "group norm", "attention"))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layered(activation=nn.Tanh, seed=0, bias=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(3, 4, bias), activation(), nn.Linear(4, 5, bias), activation(), nn.Linear(5, 2, bias)
        return nn.Sequential(*layers).double()


def convolutions():
    """Two convolutions, the second read through a flatten."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 2)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()


def sine(count=40):
    x = drawn(count, 3)
    return Batch(x, torch.stack([x[:, 0].sin() * x[:, 1], x[:, 2].square()], 1))


def problem(name):
    """A network that grows, its structure, a batch, and counts of two units for what must grow alike."""
    if name in ("relu", "tanh"):
        model, batch = layered({"relu": nn.ReLU, "tanh": nn.Tanh}[name]), sine()
        return model, trace(model, batch.x), batch, {"0": 2, "2": 1}
    model, x = (convolutions(), drawn(6, 2, 5, 5)) if name == "plain cnn" else built(name)
    structure, batch = trace(model, x), Batch(x, drawn(*model(x).shape))
    exact = [group.name for group in structure if group.exact]
    first = "rnn.l0" if "rnn.l0" in exact else exact[0]
    return model, structure, batch, dict.fromkeys(alike(structure, first), 2)


def alike(structure, name):
    return next((names for names in structure.equal if name in names), (name,))
