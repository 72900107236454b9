"""A decoder with a cache of keys and values: the whole way to integers, the cache 8-bit integers from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from mulshift.backends import lower
from mulshift.ir import (
    ACTIVATION_S8,
    Array,
    Feeds,
    Interpreter,
    QParams,
    UsageError,
    constant,
    get_qparams,
    load,
    set_qparams,
)
from mulshift.ir.frontend.shapes import infer_shapes
from mulshift.ir.levels import float_nodes
from mulshift.passes import PASSES
from mulshift.passes.integer.borders import integer_inputs, integer_outputs
from mulshift.passes.pipeline import Pipeline, PipelineResult

WIDTH, HEADS, GROUPS, COLUMNS, WORDS = 32, 4, 2, 8, 50
CACHE = ["past_*"], ["cat_*"]
RECIPE: dict[str, Any] = {
    "name": "cache",
    "description": "a cache of 8-bit integers",
    "passes": [
        {"pass": "canonicalize"},
        {"pass": "fuse"},
        {"pass": "calibrate"},
        {"pass": "insert-fake-quant", "options": {"narrow_outputs": CACHE[1]}},
        {"pass": "to-integer", "options": {"integer_inputs": CACHE[0], "integer_outputs": CACHE[1]}},
    ],
}


class Decoder(nn.Module):
    """One block of Llama's kind with a cache that grows by concatenation."""

    speed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.before, self.after = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))
        self.q = nn.Linear(WIDTH, HEADS * COLUMNS, bias=False)
        self.k, self.v = (nn.Linear(WIDTH, GROUPS * COLUMNS, bias=False) for _ in range(2))
        self.o = nn.Linear(HEADS * COLUMNS, WIDTH, bias=False)
        self.gate, self.up = (nn.Linear(WIDTH, 64, bias=False) for _ in range(2))
        self.down, self.head = nn.Linear(64, WIDTH, bias=False), nn.Linear(WIDTH, WORDS, bias=False)
        self.register_buffer("speed", 1 / (100 ** (torch.arange(0, COLUMNS, 2).float() / COLUMNS)))

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight

    def heads(self, x: Tensor, count: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], count, COLUMNS).transpose(1, 2)

    def shared(self, x: Tensor) -> Tensor:
        batch, _, keys, _ = x.shape
        wide = x[:, :, None].expand(batch, GROUPS, HEADS // GROUPS, keys, COLUMNS)
        return wide.reshape(batch, HEADS, keys, COLUMNS)

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor, past_k: Tensor, past_v: Tensor) -> Any:
        x = self.words(ids)
        n = self.norm(x, self.before)
        q, k, v = self.heads(self.q(n), HEADS), self.heads(self.k(n), GROUPS), self.heads(self.v(n), GROUPS)
        angle = positions[:, :, None].float() * self.speed
        angle = torch.cat((angle, angle), -1)[:, None]
        q, k = (_turned(t, angle.cos(), angle.sin()) for t in (q, k))
        k, v = torch.cat((past_k, k), 2), torch.cat((past_v, v), 2)
        scores = q @ self.shared(k).transpose(2, 3) / COLUMNS**0.5
        scores = scores + torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        y = (scores.softmax(-1) @ self.shared(v)).transpose(1, 2).reshape(ids.shape[0], ids.shape[1], -1)
        x = x + self.o(y)
        n = self.norm(x, self.after)
        return self.head(x + self.down(nn.functional.silu(self.gate(n)) * self.up(n))), k, v


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def step(words: Array, past_k: Array, past_v: Array) -> dict[str, Array]:
    """Feeds of one step: these words after a past."""
    new, old = words.shape[1], past_k.shape[2]
    at = np.arange(old, old + new)
    return {
        "ids": words,
        "positions": np.broadcast_to(at, words.shape).copy(),
        "mask": np.broadcast_to(np.arange(old + new) <= at[:, None], (1, 1, new, old + new)).copy(),
        "past_k": past_k,
        "past_v": past_v,
    }


def random_step(new: int, old: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    past = [rng.standard_normal((1, GROUPS, old, COLUMNS)).astype(np.float32) for _ in range(2)]
    return step(rng.integers(0, WORDS, (1, new)), *past)


@pytest.fixture(scope="module")
def decoder() -> ir.Model:
    torch.manual_seed(0)
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({1: dynamic}, {1: dynamic}, {2: dynamic, 3: dynamic}, {2: dynamic}, {2: dynamic})
    feeds = tuple(torch.from_numpy(v) for v in random_step(4, 6, 0).values())
    return load(Decoder().eval(), feeds, dynamic_shapes=shapes)


@pytest.fixture(scope="module")
def compiled(decoder: ir.Model) -> PipelineResult:
    samples: list[Feeds] = [random_step(new, old, seed) for seed, (new, old) in enumerate([(4, 6), (2, 7), (1, 9)])]
    return Pipeline(RECIPE).run(decoder, samples)


def test_no_float_between(compiled: PipelineResult) -> None:
    """Every operator has an integer form, and the cache is one scale, one type, inside and outside."""
    model = compiled.model
    assert [str(n) for n in float_nodes(model)] == []
    inputs = {str(v.name): v for v in model.graph.inputs}
    outputs = {str(v.name): v for v in model.graph.outputs}
    assert list(inputs) == ["ids", "positions", "mask", "past_k", "past_v"]
    for before, after in (("past_k", "cat_3"), ("past_v", "cat_4")):
        assert inputs[before].dtype == outputs[after].dtype == ir.DataType.INT8
        q = get_qparams(inputs[before])
        assert q is not None
        assert q == get_qparams(outputs[after])
        assert q.zero_point == 0
    quantized = [n for n in model.graph if n.op_type == "QuantizeLinear"]
    assert all(constant(n.inputs[0]) is not None for n in quantized)
    attention = next(n for n in model.graph if n.op_type == "MaskedAttention")
    assert [v.dtype for v in attention.inputs[1:3] if v is not None] == [ir.DataType.INT8] * 2
    assert not any(n.op_type == "Requantize" for n in model.graph)


def test_close_to_float(decoder: ir.Model, compiled: PipelineResult) -> None:
    """The pipeline feeds floats as the integers that they become, and compares reals."""
    record = compiled.records[-1]
    assert record.sqnr
    assert all(db is None or db > 15 for db in record.sqnr.values())  # random weights, 8 bits: 20 to 40 dB
    assert set(record.sqnr) == {str(v.name) for v in decoder.graph.outputs}


def _runners(compiled: PipelineResult) -> Iterator[Any]:
    names = [str(v.name) for v in compiled.model.graph.outputs]
    yield lambda feeds: [Interpreter(compiled.model).run(feeds)[n].numpy() for n in names]
    artifact = lower(compiled.model, "onnxruntime-portable")
    yield lambda feeds: [artifact.run(feeds)[n] for n in names]


def test_two_steps_are_one(compiled: PipelineResult) -> None:
    """Word by word with the cache handed on: bit for bit what one step over both words gives.

    It holds since every operator works on each position alone but attention, where a masked key weighs exactly 0 and
    the greatest score is taken over attended keys.
    """
    rng = np.random.default_rng(5)
    past = [rng.integers(-128, 128, (1, GROUPS, 6, COLUMNS)).astype(np.int8) for _ in range(2)]
    words = rng.integers(0, WORDS, (1, 2))
    for run in _runners(compiled):
        logits, keys, values = run(step(words, *past))
        first, *cache = run(step(words[:, :1], *past))
        second, *last = run(step(words[:, 1:], *cache))
        assert keys.dtype == values.dtype == cache[0].dtype == np.int8
        assert np.array_equal(last[0], keys)
        assert np.array_equal(last[1], values)
        assert np.array_equal(np.concatenate([first, second], 1), logits)


def test_an_empty_cache(compiled: PipelineResult) -> None:
    """The first step has no past."""
    nothing = np.zeros((1, GROUPS, 0, COLUMNS), np.int8)
    words = np.arange(3).reshape(1, 3)
    results = [run(step(words, nothing, nothing)) for run in _runners(compiled)]
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a, b)


TWICE = """<ir_version: 10, opset_import: ["" : 21]>
g (float[2,4] x, float[2,4] t, float[2,4] w) => (float[2,4] y, float[2,4] z, float[2,4] d)
<float s = {0.5}, int8 o = {0}, float r = {0.25}> {
    a = QuantizeLinear(x, s, o) b = QuantizeLinear(t, s, o) c = QuantizeLinear(t, r, o) e = QuantizeLinear(w, s, o)
    y = DequantizeLinear(a, s, o) z = Exp(x) f = DequantizeLinear(b, s, o) g = DequantizeLinear(c, r, o)
    h = DequantizeLinear(e, s, o) k = Add(f, g) d = Add(k, h)
}"""


def test_what_stays_float_says_why() -> None:
    """An input whose floats are read, or that has two scales; an output that is computed in float."""
    model, owner = ir.from_onnx_text(TWICE), PASSES["to-integer"]()
    infer_shapes(model)
    q = QParams(np.asarray(0.5), np.asarray(0), ACTIVATION_S8)
    for node in list(model.graph)[:4]:
        set_qparams(node.outputs[0], q)
    integer_inputs(owner, model, ["*"])
    integer_outputs(owner, model, ["?"])
    text = "\n".join(f"{n.where}: {n.what}" for n in owner.log.skipped)
    assert "input 'x': stays float: node" in text
    assert "input 't': stays float: it is read at several quantizations" in text
    assert "output 'z': stays float: nothing dequantizes it" in text
    assert [str(v.dtype) for v in model.graph.inputs] == ["FLOAT", "FLOAT", "INT8"]
    assert [str(v.dtype) for v in model.graph.inputs] == ["FLOAT", "FLOAT", "INT8"]
    assert [str(v.dtype) for v in model.graph.outputs] == ["INT8", "FLOAT", "FLOAT"]
    assert [v.name for v in (*model.graph.inputs, *model.graph.outputs)] == ["x", "t", "w", "y", "z", "d"]
    assert get_qparams(model.graph.inputs[2]) == get_qparams(model.graph.outputs[0]) == q


@pytest.mark.parametrize("option", ["integer_inputs", "integer_outputs"])
def test_no_such_name(decoder: ir.Model, option: str) -> None:
    recipe = {**RECIPE, "passes": [*RECIPE["passes"][:-1], {"pass": "to-integer", "options": {option: ["cache*"]}}]}
    with pytest.raises(UsageError, match=r"no (in|out)put is called 'cache\*'"):
        Pipeline(recipe).run(decoder, [random_step(2, 3, 0)])
