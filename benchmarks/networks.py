"""Networks whose speed is measured: real weights where the fixtures have them, else published shapes, random weights.

MobileNetV2 and ResNet-50 (arXiv:1801.04381, arXiv:1512.03385) carry seeded random weights, normally distributed as
networks of their kind start from (He et al., arXiv:1502.01852, by fan-out); their accuracy is not measured. On AVX2
speed depends on how many weights are large beside the largest of their channel (docs/decisions/0003-avx2.md). After the
recipes ...-reduce-range 94 % of EfficientNet-Lite0's pairs of steps add up in 16 bits, 85 % of normal noise's, and
hardly any of those of the uniform noise that torch starts from, which no trained network resembles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import models
import numpy as np
import torch
from torch import nn


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: Any = nn.ReLU
) -> nn.Sequential:
    """Conv without bias, BatchNorm, and an activation unless `relu` is None."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([relu()] if relu else []))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a shortcut where shapes allow (MobileNetV2, section 3.3)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        first = [conv_bn(inputs, hidden, 1, relu=nn.ReLU6)] if expand != 1 else []
        self.body = nn.Sequential(
            *first,
            conv_bn(hidden, hidden, 3, stride, hidden, nn.ReLU6),
            conv_bn(hidden, outputs, 1, relu=None),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.body(x)
        return x + y if self.shortcut else y


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 1.0, 224 x 224 (table 2)."""
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    layers: list[nn.Module] = [conv_bn(3, 32, 3, 2, relu=nn.ReLU6)]
    channels = 32
    for expand, outputs, count, stride in rows:
        for i in range(count):
            layers.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expand))
            channels = outputs
    head = [conv_bn(channels, 1280, 1, relu=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers, *head)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut, stride in the 3x3 (ResNet, figure 5, version 1.5)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            conv_bn(inputs, width, 1), conv_bn(width, width, 3, stride), conv_bn(width, outputs, 1, relu=None)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, relu=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    """ResNet-50, 224 x 224 (table 1)."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, count, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for i in range(count):
            layers.append(Bottleneck(channels, width, stride if i == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def _random(build: Callable[[], nn.Module]) -> tuple[nn.Module, np.ndarray]:
    torch.manual_seed(0)
    module = build()
    with torch.no_grad():
        data = torch.randn(8, 3, 224, 224)
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0  # the statistics of this batch, which keep the activations in range
        module.train()(data)
    return module.eval(), data.numpy()


def _real(name: str) -> tuple[nn.Module, np.ndarray]:
    case = models.load(name)
    return case.module, case.calibration[:32]


NETWORKS: dict[str, Callable[[], tuple[nn.Module, np.ndarray]]] = {
    "efficientnet-lite0": lambda: _real("efficientnet-lite0"),
    "mobilenet-v2": lambda: _random(mobilenet_v2),
    "resnet20": lambda: _real("resnet20"),
    "resnet50": lambda: _random(resnet50),
}
"""name -> (module in eval mode, calibration inputs [n, 3, H, W] float32)."""
