"""What ONNX's version converter gets wrong, put right; each checked against ONNX Runtime on the old model.

- GroupNormalization below 21 has a scale a group, from 21 on a scale a channel: the converter leaves it.
- Resize 10 and Upsample place samples at `x / scale` ("asymmetric"), Resize 11 by default at half pixels: the
  converter leaves the default. Nearest rounds down when it enlarges, up when it shrinks.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import ModelError
from mulshift.ir.graphs import add_initializer, attribute, constant
from mulshift.ir.metadata import describe
from mulshift.ir.types import Array


def repeat_group_scales(model: ir.Model) -> None:
    """Give GroupNormalization (opset 18 to 20) its scale and bias per channel: `scale[c] = scale[c // (C / G)]`.

    Raises:
        ModelError: the channels are unknown, or scale or bias is computed.
    """
    for node in model.graph.all_nodes():
        if node.op_type != "GroupNormalization" or node.domain:
            continue
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        channels = shape[1] if shape is not None and len(shape) > 1 else None
        for index in (1, 2):
            array = constant(node.inputs[index])
            if array is None or not isinstance(channels, int):
                raise ModelError(describe(node), "scale, bias or channels are not constant", "export with opset 21")
            if array.size != channels:
                repeated = np.repeat(array, channels // attribute(node, "num_groups"))
                base = f"{node.inputs[index].name}.repeated"  # type: ignore[union-attr]
                node.replace_input_with(index, add_initializer(model.graph, base, repeated))


def old_resizes(model: ir.Model, version: int) -> frozenset[str]:
    """Names of the nodes that `place_asymmetric` must see after the conversion."""
    if version > 10:
        return frozenset()
    return frozenset(str(n.name) for n in model.graph.all_nodes() if n.op_type in ("Resize", "Upsample"))


def place_asymmetric(model: ir.Model, names: frozenset[str]) -> None:
    """Restore the coordinates and the rounding of converted Resize and Upsample nodes.

    Raises:
        ModelError: nearest that enlarges one axis and shrinks another by a fraction, which Resize 11 cannot say.
    """
    for node in model.graph.all_nodes():
        if node.name not in names or node.op_type != "Resize":
            continue
        _drop_region(node)
        node.attributes["coordinate_transformation_mode"] = ir.AttrString(
            "coordinate_transformation_mode", "asymmetric"
        )
        if attribute(node, "mode", "nearest") == "nearest":
            rounding = _rounding(node, constant(node.inputs[2]))
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", rounding)


def _drop_region(node: ir.Node) -> None:
    """Remove the region of interest that the converter invented; no mode of the old operators reads it."""
    made = node.inputs[1].producer() if node.inputs[1] is not None else None
    node.replace_input_with(1, None)
    if made is not None and made.graph is not None and not made.outputs[0].uses():
        made.graph.remove(made, safe=True)


def _rounding(node: ir.Node, scales: Array | None) -> str:
    if scales is None or (scales >= 1).all():
        return "floor"
    if (scales <= 1).all():
        return "ceil"
    steps = 1 / scales[scales < 1].astype(np.float64)
    if np.array_equal(steps, np.rint(steps)):  # every second, third, ... sample: no fraction to round
        return "floor"
    raise ModelError(describe(node), "enlarges one axis and shrinks another by a fraction", "export with opset 11")
