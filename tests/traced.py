"""Small modules to be traced: every way in which torch code reaches a product with its parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """A layer called twice, one once, and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(functional.relu(self.first(x)))).log_softmax(-1)


class Pixels(nn.Module):
    """Convolutions of all kinds, and one weight used on two planes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Conv2d(8, 8, (3, 5), padding=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.line = nn.Conv1d(8, 6, 3, stride=2)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.body(self.stem(x)))
        z = self.body(functional.avg_pool2d(y, 2))
        return self.head(self.line(z.flatten(2)).mean(-1))


class Unsayable(nn.Module):
    """Convolutions that no network has, and a layer, so that there is something."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(4, 4, 3, dilation=2)
        self.rows = nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
        self.steps = nn.Conv2d(4, 4, 1, stride=(1, 2))
        self.up = nn.ConvTranspose2d(4, 4, 2)
        self.line = nn.Conv1d(4, 4, 3, padding=1)
        self.solid = nn.Conv3d(4, 4, 1)
        self.mix = nn.Bilinear(4, 4, 4)
        self.turn = nn.Parameter(torch.zeros(4, 4, dtype=torch.complex64))
        self.fine = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.steps(self.rows(self.dilated(x))))
        y = self.solid(self.line(y.flatten(2))[..., None, None])
        y = y.mean((2, 3, 4))
        y = (y.to(torch.complex64) @ self.turn).abs()
        return self.fine(self.mix(y, y)) + y


class Functional(nn.Module):
    """Parameters without modules: F.linear, matmul on both sides, addmm, einsum, bmm, mv, F.conv2d, chunks."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("linear", "right", "left", "addmm", "einsum", "mv"):
            self.register_parameter(name, nn.Parameter(torch.randn(6, 6)))
        self.packed = nn.Parameter(torch.randn(12, 6))
        self.columns = nn.Parameter(torch.randn(6, 12))
        self.experts = nn.Parameter(torch.randn(2, 6, 6))
        self.one = nn.Parameter(torch.randn(6))
        self.kernel = nn.Parameter(torch.randn(5, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self.linear) @ self.right
        y = (self.left @ y.mT).mT
        y = torch.addmm(torch.ones(6, device=x.device), y[0], self.addmm)[None]
        y = torch.einsum("bsk,km->bsm", y, self.einsum)
        top, bottom = self.packed.chunk(2)
        y = functional.linear(functional.linear(y, top), bottom)
        before, after = self.columns.chunk(2, dim=1)
        y = functional.linear(functional.linear(y, before), after)
        y = torch.bmm(torch.cat([y, y]), self.experts)
        planes = functional.conv2d(y[:, None], self.kernel)
        return torch.mv(self.mv, y[0, 0]) * (y @ self.one).sum() + planes.sum()


class Attention(nn.Module):
    """Packed projections for itself, and for another sequence: there the packed weight is used in two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        y = x + self.own(x, x, x, need_weights=False)[0]
        return y + self.cross(y, memory, memory, need_weights=False)[0]


class Shared(nn.Module):
    """One parameter in two modules, an embedding as the classifier, and a module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.b.weight = self.a.weight
        self.c = self.again = nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, *, mask: Tensor) -> dict[str, Any]:
        x = self.embed(ids) * mask[..., None]
        x = self.b(self.a(x))
        x = x + self.again(self.c(x)).tanh()
        return {"logits": self.head(x), "pooled": self.c(x[:, 0]) + x[:, 0]}


class Computed(nn.Module):
    """Weights that are computed: weight norm, spectral norm, a mask, a cast, a low-rank sum, three in one."""

    def __init__(self) -> None:
        super().__init__()
        from torch.nn.utils import prune
        from torch.nn.utils.parametrizations import spectral_norm, weight_norm

        self.normed = weight_norm(nn.Linear(8, 8))
        self.spectral = spectral_norm(nn.Linear(8, 8))
        self.pruned = nn.Linear(8, 8)
        prune.identity(self.pruned, "weight")
        self.cast = nn.Linear(8, 8, dtype=torch.float64)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.down, self.up = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(8, 2))
        self.base = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pruned(self.spectral(self.normed(x)))
        x = functional.linear(x, self.cast.weight.float())
        fused = torch.cat([part.weight for part in (self.q, self.k, self.v)])
        x = sum(functional.linear(x, fused).chunk(3, -1))
        return x + functional.linear(x, self.base.weight + self.up @ self.down)


class Queries(nn.Module):
    """Learned queries: their own projection is a layer, their attention is no product with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(5, 8))
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(self.queries)[None]
        q = torch.bmm((torch.bmm(q, q.mT)).softmax(-1), q)  # the queries among themselves
        y = torch.bmm(torch.bmm(q, self.k(x).mT).softmax(-1), self.v(x))
        return self.out(y) + y


class Inference(nn.Module):
    """Its forward says that it is inference, so torch does not take functions apart before the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return functional.scaled_dot_product_attention(q, k, v) + x


class Recurrent(nn.Module):
    """An LSTM over six steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class Reads(nn.Module):
    """It reads a value, which the meta device has not."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.attend = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum().item() > 0:
            x = self.fc(x) + x
        return self.lstm(self.attend(x))[0]


class Lazy(nn.Module):
    """It makes its weights when it first runs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).relu() * 2


class Whole(nn.Module):
    """It reads a value when it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, int(torch.ones(3).sum().item()))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).relu() * 2


class Needs(nn.Linear):
    """It cannot be made without arguments."""


class Raises(nn.Module):
    """It cannot be made at all."""

    def __init__(self) -> None:
        super().__init__()
        raise ValueError("no such checkpoint\nat all")


class Bare(nn.Module):
    """It multiplies no parameter."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ x.mT


class Nameless(nn.Linear):
    """Its forward takes nothing by name."""

    def __init__(self) -> None:
        super().__init__(2, 2)

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs)


class OnlyUp(nn.Module):
    """All it has is what no network can say."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x)


class Huge(nn.Module):
    """Its weights fit into no memory, and it reads a value."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2**22, 2**22)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * x.sum().item()


made = Mlp()
number = 3


def thing() -> int:
    return 3


class Zoo:
    """Names with dots."""

    mlp = Mlp
