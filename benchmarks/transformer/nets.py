"""Transformers whose speed is measured, at one fixed shape, batch 1: MiniLM with its weights, the rest seeded random.

BERT-base (arXiv:1810.04805), ViT-Tiny and DeiT-S (arXiv:2012.12877), and the layers of SmolLM2-135M (arXiv:2502.02737).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import here  # noqa: F401
import models
import numpy as np
import torch
from torch import nn
from torch.nn import functional

SAMPLES, TOKENS, SIDE = 16, 128, 224
LAYERS, WIDTH, KEYS, HIDDEN = 12, 576, 192, 1536
"""Of 30 layers so many: 42 MB of int8 weights, more than caches of 32 MB hold."""


@dataclass(frozen=True)
class Network:
    """A module in eval mode; `data`: input name -> [SAMPLES, 1, ...], in the order of its arguments."""

    module: nn.Module
    data: Mapping[str, np.ndarray]


class Output(nn.Module):
    """A Hugging Face model from plain arguments to one tensor: the last hidden state, or logits of the first token."""

    def __init__(self, inner: Any, names: tuple[str, ...], head: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.names, self.head = inner, names, head

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.inner(**dict(zip(self.names, arguments, strict=True))).last_hidden_state
        return states if self.head is None else self.head(states[:, 0])


def loader(name: str) -> Any:
    """A loader of the fixtures."""
    sys.path.append(str(models.FIXTURES / "loaders"))
    return __import__(name)


def minilm() -> Network:
    """The sentence encoder with its own weights, on text that fills the sequence."""
    module, _, data = loader("minilm").load(n=400, year="2014")
    texts = [" ".join(data["a"][i : i + 20]) for i in range(0, 20 * SAMPLES, 20)]
    found = data["tok"](texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="np")
    ids, mask = (found[k].astype(np.int64)[:, None] for k in ("input_ids", "attention_mask"))
    return Network(module, {"ids": ids, "mask": mask})


def bert_base() -> Network:
    """12 layers, 768 wide."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig()
    config._attn_implementation = "eager"
    inner = BertModel(config, add_pooling_layer=False)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (SAMPLES, 1, TOKENS))
    return Network(Output(inner, ("input_ids", "attention_mask")).eval(), {"ids": ids, "mask": np.ones_like(ids)})


def vit(width: int, heads: int) -> Network:
    """12 layers, patches of 16, 224 x 224, 1000 classes."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width)
    config._attn_implementation = "sdpa"
    inner = ViTModel(config, add_pooling_layer=False)
    images = np.random.default_rng(0).normal(size=(SAMPLES, 1, 3, SIDE, SIDE)).astype(np.float32)
    return Network(Output(inner, ("pixel_values",), nn.Linear(width, 1000)).eval(), {"x": images})


class DecoderLayer(nn.Module):
    """All linear layers, norms and products of a layer of SmolLM2-135M; what attention makes of a cache is left out,
    so each head takes its value and key, q + v + k, instead of softmax(q k^T) v.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH, 1e-5), nn.RMSNorm(WIDTH, 1e-5)
        sizes = {"q": (WIDTH, WIDTH), "k": (WIDTH, KEYS), "v": (WIDTH, KEYS), "o": (WIDTH, WIDTH)}
        sizes |= {"gate": (WIDTH, HIDDEN), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
        self.linear = nn.ModuleDict({k: nn.Linear(*size, bias=False) for k, size in sizes.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        linear, n = self.linear, self.norm1(x)
        given = linear["k"](n) + linear["v"](n)
        x = x + linear["o"](linear["q"](n) + torch.cat([given] * (WIDTH // KEYS), -1))
        n = self.norm2(x)
        y: torch.Tensor = x + linear["down"](functional.silu(linear["gate"](n)) * linear["up"](n))
        return y


def decoder() -> Network:
    """One token through LAYERS layers."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(SAMPLES, 1, 1, WIDTH)).astype(np.float32)
    return Network(nn.Sequential(*(DecoderLayer() for _ in range(LAYERS))).eval(), {"x": x})


NETWORKS: dict[str, Callable[[], Network]] = {
    "minilm": minilm,
    "bert-base": bert_base,
    "vit-tiny": lambda: vit(192, 3),
    "deit-s": lambda: vit(384, 6),
    "decoder": decoder,
}
