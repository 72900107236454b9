"""Fused attention and rotary embeddings of ONNX Runtime and of opset 23, as `mulshift.float` operators.

Heads stand as [batch, positions, heads, columns]. Masks that are true where a key may be attended go into
`MaskedAttention`; numbers that are added to the scores stay an Add before a Softmax, for `fuse` to look into.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir.frontend.expansion import Expansion, Row, Values

_SWAP = [0, 2, 1, 3]
_LOWEST = -3e38


def _heads(e: Expansion, x: ir.Value, count: int) -> ir.Value:
    """[B, S, H, D] of [B, S, H * D]."""
    shape = e.shape(x)
    if count < 1:
        raise e.error("its number of heads is not given")
    y = e.op("Reshape", x, e.const([0, 0, count, -1]))
    last = shape[-1] // count if isinstance(shape[-1], int) else None
    y.shape = ir.Shape([*shape[:2], count, last])
    return y


def _joined(e: Expansion, y: ir.Value) -> ir.Value:
    """[B, S, H * D] of [B, S, H, D]."""
    return e.op("Reshape", y, e.const([0, 0, -1]))


def _swapped(e: Expansion, x: ir.Value) -> ir.Value:
    y = e.op("Transpose", x, perm=_SWAP)
    if x.shape is not None:
        y.shape = ir.Shape([x.shape[i] for i in _SWAP])
    return y


def _attend(
    e: Expansion, q: ir.Value, k: ir.Value, v: ir.Value, masks: list[ir.Value], bias: ir.Value | None, scale: float
) -> ir.Value:
    """[B, M, H, E]."""
    mask = masks[0] if masks else None
    for more in masks[1:]:
        mask = e.op("And", mask, more)
    scale = scale or e.size(q, 3) ** -0.5
    if bias is not None:
        return _with_bias(e, q, k, v, mask, bias, scale)
    if mask is None:
        y = e.function("Attention", q, k, v, scale=scale)
    else:
        y = e.function("MaskedAttention", q, k, v, mask, scale=scale)
    if q.shape is not None:
        y.shape = ir.Shape([*list(q.shape)[:3], None if v.shape is None else v.shape[3]])
    return y


def _with_bias(
    e: Expansion, q: ir.Value, k: ir.Value, v: ir.Value, mask: ir.Value | None, bias: ir.Value, scale: float
) -> ir.Value:
    k, v = _repeated(e, _swapped(e, k), q), _repeated(e, _swapped(e, v), q)
    scores = e.op("MatMul", _swapped(e, q), e.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = e.op("Add", e.op("Mul", scores, e.const(scale, np.float32)), bias)
    if mask is not None:
        scores = e.op("Where", mask, scores, e.const(_LOWEST, np.float32))
    return _swapped(e, e.op("MatMul", e.op("Softmax", scores, axis=-1), v))


def _repeated(e: Expansion, x: ir.Value, q: ir.Value) -> ir.Value:
    """[B, G, N, D] with each head as often as its group reads it: [B, H, N, D]."""
    heads, groups = e.size(q, 2), e.size(x, 1)
    if heads == groups:
        return x
    wide = e.op("Expand", e.op("Unsqueeze", x, e.const([2])), e.const([1, 1, heads // groups, 1, 1]))
    y = e.op("Reshape", wide, e.const([0, heads, -1, e.size(x, 3)]))
    y.shape = ir.Shape([x.shape[0], heads, *list(x.shape)[2:]])  # type: ignore[index, arg-type]
    return y


def _causal(e: Expansion, q: ir.Value, k: ir.Value, offset: ir.Value | None) -> ir.Value:
    """Key j counts for query i if `j <= i + offset`; bool [M, N], or [B, 1, M, N] for an offset [B, 1, 1, 1]."""
    rows = e.op("Unsqueeze", e.range(e.length(q, 1)), e.const([1]))
    if offset is not None:
        rows = e.op("Add", rows, offset)
    return _bool(e.op("LessOrEqual", e.range(e.length(k, 1)), rows))


def _keys_below(e: Expansion, counts: ir.Value, k: ir.Value) -> ir.Value:
    """Key j counts for batch b if `j < counts[b]`: bool [B, 1, 1, N]."""
    wide = e.op("Unsqueeze", _int64(e, counts), e.const([1, 2, 3]))
    return _bool(e.op("Less", e.range(e.length(k, 1)), wide))


def _bool(value: ir.Value) -> ir.Value:
    value.dtype = ir.DataType.BOOL
    return value


def _int64(e: Expansion, value: ir.Value) -> ir.Value:
    return e.op("Cast", value, to=int(ir.DataType.INT64))


def _padding(e: Expansion, mask: ir.Value, q: ir.Value, k: ir.Value) -> ir.Value:
    """Integers as booleans: [B] numbers of keys, or nonzero where a key counts, [B, N] or [B, M, N]."""
    shape = e.shape(mask)
    if len(shape) == 1:
        if shape[0] != e.shape(q)[0]:
            raise e.error(f"its mask '{mask.name}' holds more than one number for each batch")
        return _keys_below(e, mask, k)
    if len(shape) not in (2, 3):
        raise e.error(f"its mask '{mask.name}' has {len(shape)} axes")
    flags = _bool(e.op("Cast", mask, to=int(ir.DataType.BOOL)))
    return _bool(e.op("Unsqueeze", flags, e.const([1, 2] if len(shape) == 2 else [1])))


def _cached(e: Expansion, x: ir.Value, past: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """(all keys [B, P + N, G, D], the same as the cache holds them [B, G, P + N, D])."""
    turned = _swapped(e, x)
    if past is None:
        return x, turned
    present = e.op("Concat", past, turned, axis=2)
    before, groups, columns = e.shape(past), *[e.shape(x)[i] for i in (2, 3)]
    new = e.shape(x)[1]
    total = before[2] + new if isinstance(before[2], int) and isinstance(new, int) else None
    present.shape = ir.Shape([before[0], groups, total, columns])
    return _swapped(e, present), present


def _multi_head(e: Expansion) -> Values:
    """Query [B, M, H * D] or all packed [B, M, H, 3, D]; key and value in three axes, in four, or packed in five."""
    heads, query, key, value = e.attribute("num_heads", 0), e["query"], e.get("key"), e.get("value")
    if key is None:
        q, k, v = _unpacked(e, query, 3)
    else:
        q = _heads(e, _biased(e, query, 0), heads)
        if value is None:
            k, v = _unpacked(e, key, 2)
        elif len(e.shape(key)) == 4:
            k, v = _swapped(e, key), _swapped(e, value)
        else:
            k, v = _heads(e, _biased(e, key, 1), heads), _heads(e, _biased(e, value, 2), heads)
    three = key is not None and value is not None and len(e.shape(key)) == 3
    if e.get("bias") is not None and not three:
        raise e.error("its input 'bias' is not supported with packed keys or keys in four axes")
    new, past = k, e.get("past_key")
    (k, present_key), (v, present_value) = _cached(e, k, past), _cached(e, v, e.get("past_value"))
    masks = []
    if e.attribute("unidirectional", 0):
        masks.append(_causal(e, q, new if past is None else k, None if past is None else e.length(past, 2)))
    padding = e.get("key_padding_mask")
    if padding is not None:
        masks.append(_padding(e, padding, q, k))
    y = _attend(e, q, k, v, masks, e.get("attention_bias"), e.attribute("scale", 0.0))
    return [_joined(e, y), present_key, present_value]


def _unpacked(e: Expansion, x: ir.Value, parts: int) -> list[ir.Value]:
    """[B, S, H, D] each of [B, S, H, parts, D]."""
    if len(e.shape(x)) != 5:
        raise e.error(f"'{x.name}' stands for {parts} operands and does not have five axes")
    return [e.op("Squeeze", p, e.const([3])) for p in e.split(x, [1] * parts, 3)]


def _biased(e: Expansion, x: ir.Value, index: int) -> ir.Value:
    """x plus its part of the bias of queries, keys and values."""
    bias = e.get("bias")
    if bias is None:
        return x
    hidden, total = e.size(e["query"], 2), e.size(bias, 0)
    return e.op("Add", x, e.split(bias, [hidden, hidden, total - 2 * hidden], 0)[index])


def _packed(e: Expansion) -> Values:
    """Projections of one input by weights [C, q + k + v], then attention."""
    heads, x, weights, bias = e.attribute("num_heads", 0), e["input"], e["weights"], e.get("bias")
    total = e.size(weights, 1)
    sizes = [int(n) for n in e.attribute("qkv_hidden_sizes") or [total // 3] * 3]
    products = [e.op("MatMul", x, w) for w in e.split(weights, sizes, 1)]
    if bias is not None:
        products = [e.op("Add", p, b) for p, b in zip(products, e.split(bias, sizes, 0), strict=True)]
    shape = e.shape(x)
    for product, size in zip(products, sizes, strict=True):
        product.shape = ir.Shape([*shape[:2], size])
    q, k, v = (_heads(e, p, heads) for p in products)
    masks = [_causal(e, q, k, None)] if e.attribute("unidirectional", 0) else []
    mask = e.get("mask_index")
    if mask is not None:
        masks.append(_padding(e, mask, q, k))
    return [_joined(e, _attend(e, q, k, v, masks, e.get("attention_bias"), e.attribute("scale", 0.0)))]


def _grouped(e: Expansion) -> Values:
    """Causal attention of fewer heads of keys than of queries; lengths only tell padded queries, which nobody reads."""
    heads, groups = e.attribute("num_heads", 0), e.attribute("kv_num_heads", 0)
    query, key, value = e["query"], e.get("key"), e.get("value")
    if not e.attribute("causal", 1):
        raise e.error("it is not causal")
    if key is None or value is None:
        whole = _heads(e, query, heads + 2 * groups)
        q, k, v = e.split(whole, [heads, groups, groups], 2)
        for part, count in ((q, heads), (k, groups), (v, groups)):
            part.shape = ir.Shape([*list(whole.shape or ())[:2], count, (whole.shape or [None] * 4)[3]])
    else:
        q, k, v = _heads(e, query, heads), _heads(e, key, groups), _heads(e, value, groups)
    if e.attribute("do_rotary", 0):
        ids = e.get("position_ids")
        ids = e.range(e.length(q, 1)) if ids is None else ids
        angles = [_angles(e, e[name], ids) for name in ("cos_cache", "sin_cache")]
        q, k = (_rotated(e, x, angles, e.attribute("rotary_interleaved", 0)) for x in (q, k))
    masks = [_causal(e, q, k, None)]
    y = _attend(e, q, k, v, masks, e.get("attention_bias"), e.attribute("scale", 0.0))
    return [_joined(e, y), _swapped(e, k), _swapped(e, v)]


def _standard(e: Expansion) -> Values:
    """Attention of opset 23 and 24: three axes with numbers of heads, or [B, H, S, D]."""
    flat = len(e.shape(e["Q"])) == 3
    counts = [e.attribute(name, 0) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    given = [e["Q"], e["K"], e["V"]]
    q, k, v = (_heads(e, x, n) if flat else _swapped(e, x) for x, n in zip(given, counts, strict=True))
    past, lengths = e.get("past_key"), e.get("nonpad_kv_seqlen")
    (k, present_key), (v, present_value) = _cached(e, k, past), _cached(e, v, e.get("past_value"))
    masks, bias, mask = [], None, e.get("attn_mask")
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        masks.append(mask)
    elif mask is not None:
        bias = mask
    if mask is not None and isinstance(e.shape(mask)[-1], int) and e.shape(mask)[-1] not in (1, e.shape(k)[1]):
        raise e.error(
            f"its mask '{mask.name}' is not known to be as long as its keys", "export with a mask of all keys"
        )
    if lengths is not None:
        masks.append(_keys_below(e, lengths, k))
    if e.attribute("is_causal", 0):
        masks.append(_causal(e, q, k, _offset(e, q, past, lengths)))
    y = _attend(e, q, k, v, masks, bias, e.attribute("scale", 0.0))
    return [_joined(e, y) if flat else _swapped(e, y), present_key, present_value]


def _offset(e: Expansion, q: ir.Value, past: ir.Value | None, lengths: ir.Value | None) -> ir.Value | None:
    """How many keys stand before the first query."""
    if past is not None:
        return e.length(past, 2)
    if lengths is None:
        return None
    return e.op("Sub", e.op("Unsqueeze", lengths, e.const([1, 2, 3])), e.length(q, 1))


def _angles(e: Expansion, cache: ir.Value, ids: ir.Value | None) -> ir.Value:
    """Rows of a cache [positions, R / 2] by ids [B, S] or [S], else of [B, S, R / 2]: [B or 1, S, 1, R / 2]."""
    if ids is None:
        return e.op("Unsqueeze", cache, e.const([2]))
    rows = e.op("Gather", cache, ids, axis=0)
    rows.type = cache.type
    return e.op("Unsqueeze", rows, e.const([2] if len(e.shape(ids)) == 2 else [0, 2]))


def _rotated(e: Expansion, x: ir.Value, angles: list[ir.Value], interleaved: int) -> ir.Value:
    """x [B, S, H, D], its first R columns turned by the angles; neighbours, not halves, form a pair if interleaved."""
    columns, turned = e.size(x, 3), 2 * e.size(angles[0], 3)
    if turned > columns:
        raise e.error(f"its tables turn {turned} columns of {columns}")
    parts = e.split(x, [turned, columns - turned], 3) if turned < columns else [x]
    y = parts[0]
    if interleaved:
        y = e.op("Reshape", y, e.const([0, 0, 0, turned // 2, 2]))
        y = e.op("Reshape", e.op("Transpose", y, perm=[0, 1, 2, 4, 3]), e.const([0, 0, 0, turned]))
    y = e.function("RotaryEmbedding", y, *angles)
    if interleaved:
        y = e.op("Reshape", y, e.const([0, 0, 0, 2, turned // 2]))
        y = e.op("Reshape", e.op("Transpose", y, perm=[0, 1, 2, 4, 3]), e.const([0, 0, 0, turned]))
    if turned < columns:
        y = e.op("Concat", y, parts[1], axis=3)
    y.shape = x.shape
    return y


def _rotary(e: Expansion) -> Values:
    """ONNX Runtime's: [B, S, H * D] or [B, H, S, D], positions [B, S] or the first one [1]."""
    x, ids = e["input"], e["position_ids"]
    flat = len(e.shape(x)) == 3
    if e.attribute("scale", 1.0) != 1.0:
        raise e.error(f"its attribute scale = {e.attribute('scale')} is not supported")
    if len(e.shape(ids)) == 1:
        ids = e.op("Add", e.range(e.length(x, 1 if flat else 2)), ids)
        ids.shape = ir.Shape([None])
    heads = e.attribute("num_heads", 0) or (e.size(x, 2) // (2 * e.size(e["cos_cache"], 1)) if flat else 0)
    angles = [_angles(e, e[name], ids) for name in ("cos_cache", "sin_cache")]
    y = _rotated(e, _heads(e, x, heads) if flat else _swapped(e, x), angles, e.attribute("interleaved", 0))
    return [_joined(e, y) if flat else _swapped(e, y)]


def _standard_rotary(e: Expansion) -> Values:
    """Opset 23: [B, S, H * D] or [B, H, S, D]; without positions the tables are those of each of them."""
    x, ids = e["X"], e.get("position_ids")
    flat = len(e.shape(x)) == 3
    angles = [_angles(e, e[name], ids) for name in ("cos_cache", "sin_cache")]
    heads = _heads(e, x, e.attribute("num_heads", 0)) if flat else _swapped(e, x)
    y = _rotated(e, heads, angles, e.attribute("interleaved", 0))
    return [_joined(e, y) if flat else _swapped(e, y)]


MULTI_HEAD = Row(
    _multi_head,
    """query key value bias key_padding_mask attention_bias past_key past_value past_sequence_length!
    cache_indirection!""",
    "y present_key present_value qk!",
    "num_heads mask_filter_value scale unidirectional",
)
PACKED = Row(
    _packed,
    "input weights bias mask_index past! attention_bias past_sequence_length!",
    "y present!",
    "num_heads qkv_hidden_sizes mask_filter_value scale unidirectional",
)
GROUPED = Row(
    _grouped,
    """query key value past_key! past_value! seqlens_k total_sequence_length cos_cache sin_cache position_ids
    attention_bias head_sink!""",
    "y present_key present_value output_qk!",
    "num_heads kv_num_heads scale do_rotary rotary_interleaved causal",
)
ROTARY = Row(
    _rotary,
    "input position_ids cos_cache sin_cache",
    attributes="num_heads rotary_embedding_dim interleaved scale",
)
STANDARD = Row(
    _standard,
    "Q K V attn_mask past_key past_value nonpad_kv_seqlen",
    "y present_key present_value qk_matmul_output!",
    "q_num_heads kv_num_heads is_causal scale softmax_precision qk_matmul_output_mode",
)
STANDARD_ROTARY = Row(
    _standard_rotary,
    "X cos_cache sin_cache position_ids",
    attributes="num_heads rotary_embedding_dim interleaved",
)
