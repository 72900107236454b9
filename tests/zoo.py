"""Small networks of many shapes, random but seeded: what users bring that no one has seen before."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _bn(module: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics that are not the identity."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            m.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            m.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            m.weight.data.uniform_(0.5, 1.5)
            m.bias.data.uniform_(-0.3, 0.3)
    return module.eval()


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """MobileNetV3 style: HardSwish, HardSigmoid gate, depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 5, 1, 2, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6()
        )
        self.down, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        gate = F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.project(y * gate)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """ConvTranspose, bilinear and nearest upsampling, skip concatenation, SiLU, sigmoid at the tail."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.c = nn.Conv2d(16, 16, 3, 2, 1)
        self.up1 = nn.ConvTranspose2d(16, 16, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(32, 8, 3, 2, 1, output_padding=1)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.silu(self.a(x))
        b = F.silu(self.b(a))
        c = F.leaky_relu(self.c(b), 0.1)
        u = torch.cat([self.up1(c), b], 1)
        u = self.up2(F.relu(u))
        u = torch.cat([u, a], 1)
        u = F.interpolate(u, scale_factor=2.0, mode="bilinear", align_corners=False)
        u = F.interpolate(u, scale_factor=2.0, mode="nearest")
        return torch.sigmoid(self.out(F.max_pool2d(u, 2)))


class Inception(nn.Module):
    """Parallel branches, average pools with and without padding counted, asymmetric kernels, channel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 8, (1, 7), padding=(0, 3))
        self.b = nn.Conv2d(4, 8, (5, 1), padding=(2, 0), dilation=1)
        self.c = nn.Conv2d(4, 8, 3, padding=2, dilation=2)
        self.d = nn.Conv2d(24, 12, 1, groups=4)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.pool2 = nn.AvgPool2d(2, 2, ceil_mode=True)
        self.head = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.relu(self.a(x)), F.relu(self.b(x)), self.c(self.pool(x))], 1)
        n, c, h, w = y.shape
        y = y.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = self.pool2(F.elu(self.d(y)))
        return self.head(torch.amax(y, (2, 3)))  # type: ignore[no-any-return]


class Audio(nn.Module):
    """1-D convolutions, BatchNorm before and after, PReLU, global pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.pre = nn.BatchNorm1d(2)
        self.a = nn.Conv1d(2, 12, 9, stride=2, padding=4)
        self.bn = nn.BatchNorm1d(12)
        self.act = nn.PReLU()
        self.b = nn.Conv1d(12, 12, 5, padding=4, dilation=2, groups=3)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn(self.a(self.pre(x))))
        y = F.softplus(self.b(y))
        return self.head(F.adaptive_avg_pool1d(y, 1).flatten(1))  # type: ignore[no-any-return]


class Video(nn.Module):
    """3-D convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn = nn.Conv3d(2, 6, 3, padding=1, bias=False), nn.BatchNorm3d(6)
        self.b = nn.Conv3d(6, 6, (1, 3, 3), stride=(1, 2, 2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool3d(F.relu(self.bn(self.a(x))), (1, 2, 2))
        return self.head(F.relu(self.b(y)).mean((2, 3, 4)))  # type: ignore[no-any-return]


class TwoHeads(nn.Module):
    """Two inputs, two outputs, split, slice, pad, products and differences of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(10, 16), nn.Linear(6, 16)
        self.c = nn.Linear(16, 4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        p, q = F.relu(self.a(x)), torch.sigmoid(self.b(y))
        left, right = (p * q).chunk(2, -1)
        z = torch.cat([left - right, F.pad(p[:, 2:8], (1, 1)) * 0.5 + 0.25], -1)
        return self.c(z), torch.tanh(z).sum(-1)


class Attention(nn.Module):
    """One encoder block: products of activations, softmax, layer normalization, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, 2, 8).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-1, -2) * 8**-0.5, -1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(n, t, 16))
        return x + self.down(F.gelu(self.up(self.norm2(x))))  # type: ignore[no-any-return]


class Detector(nn.Module):
    """Residuals shared by several readers, scalar arithmetic, clamp, squeeze, arg-max and top-k at the tail."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.c = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = F.relu(self.a(x * 2.0 - 1.0))
        y = y + self.bn(self.b(y))
        y = (y - y.mean((2, 3), keepdim=True)).clamp(-1.5, 2.0)
        score = self.c(y).flatten(1)
        top, _ = torch.topk(score, 3)
        return score, score.argmax(-1), top


def _images(*shape: int) -> Callable[[torch.Generator], tuple[Tensor, ...]]:
    return lambda g: (torch.rand(shape, generator=g) * 2 - 0.7,)


ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[torch.Generator], tuple[Tensor, ...]]]] = {
    "mlp": (Mlp, _images(1, 20)),
    "squeeze-excite": (SqueezeExcite, _images(1, 3, 16, 16)),
    "unet": (UNet, _images(1, 3, 16, 16)),
    "inception": (Inception, _images(1, 4, 9, 9)),
    "audio": (Audio, _images(1, 2, 64)),
    "video": (Video, _images(1, 2, 4, 10, 10)),
    "two-heads": (TwoHeads, lambda g: (torch.rand((1, 10), generator=g), torch.randn((1, 6), generator=g))),
    "attention": (Attention, _images(1, 6, 16)),
    "detector": (Detector, _images(1, 1, 8, 8)),
}


def make(name: str, samples: int = 8) -> tuple[nn.Module, tuple[Tensor, ...], list[tuple[Tensor, ...]]]:
    """Module in eval mode, example inputs, and seeded samples."""
    torch.manual_seed(0)
    build, inputs = ZOO[name]
    generator = torch.Generator().manual_seed(1)
    return _bn(build()), inputs(generator), [inputs(generator) for _ in range(samples)]
