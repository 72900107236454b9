"""Apply rewrite rules of onnxscript with fresh names, inherited origins and a reason for every declined match.

`onnxscript.rewriter.RewriteRuleSet` overwrites an initializer that has the new one's name, drops our origins and keeps
failed matches to itself; a rule's `match` and `try_rewrite` are used here, and the edit is made by us.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from mulshift.ir import describe, fresh_name, inherit_origin
from mulshift.passes.base import Pass

if TYPE_CHECKING:
    from onnxscript.rewriter import RewriteRule

_LIMIT = 100_000
"""More rewrites than this in one graph mean two rules that undo each other."""


class Declined:
    """A tracer for onnxscript's matcher: keeps why a pattern that fitted was not rewritten."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def log(self, rule: Any, container: Any, node: ir.Node, match: Any, status: Any) -> None:
        """onnxscript calls this once for each attempt."""
        if status.name == "CONDITION_FAILED":
            self.reasons.append(f"{_title(rule)}: {match.reason}")


def apply_rules(owner: Pass, model: ir.Model, rules: Sequence[RewriteRule], quiet: bool = False) -> int:
    """Rewrite the main graph until no rule fits; subgraphs and functions are left alone.

    Args:
        owner: gets a note for every rewrite, and for every match that a rule's check declined.
        rules: the first that fits a node wins. A rule's check gives its reason by `MatchResult().fail(reason)`.
        quiet: leave out the declined matches.

    Returns:
        How many rewrites were made.
    """
    graph = model.graph
    skipped: dict[tuple[str, str], None] = {}
    count, before = 0, -1
    while count != before:
        before = count
        skipped.clear()
        for node in graph:
            count += _try(owner, model, node, rules, skipped)
            if count > _LIMIT:
                raise RuntimeError(f"{owner.name}: more than {_LIMIT} rewrites, last at {describe(node)}")
    for where, why in () if quiet else skipped:
        owner.skipped(where, why)
    return count


def _try(
    owner: Pass, model: ir.Model, node: ir.Node, rules: Sequence[RewriteRule], skipped: dict[tuple[str, str], None]
) -> bool:
    graph = model.graph
    for rule in rules:
        tracer: Any = Declined()
        match = rule.match(model, graph, node, check_nodes_are_removable=rule.remove_nodes, tracer=tracer)
        skipped |= {(describe(node), reason): None for reason in tracer.reasons}
        if not match:
            continue
        if any(v is not None and v.is_graph_input() and v.is_initializer() for n in match.nodes for v in n.inputs):
            skipped[describe(node), f"{_title(rule)}: a constant is a graph input too, so it may change"] = None
            continue
        delta = rule.try_rewrite(model, graph, node)
        if delta is None:
            continue
        was = describe(node)
        _replace(graph, node, rule, delta)
        owner.changed(was, _title(rule))
        return True
    return False


def _title(rule: RewriteRule) -> str:
    return rule.name or "rewrite rule"


def _replace(graph: ir.Graph, node: ir.Node, rule: RewriteRule, delta: Any) -> None:
    """Put the new nodes in the place of the matched ones: their names, origins, types and metadata live on."""
    matched, made = list(delta.match.nodes), list(delta.new_nodes)
    for value in delta.new_initializers:
        value.name = fresh_name(graph, str(value.name))
        value.const_value.name = value.name
        graph.register_initializer(value)
    old, new = list(delta.match.outputs), list(delta.new_outputs)
    for before, after in zip(old, new, strict=True):
        after.metadata_props.update(before.metadata_props)
    order = {n: i for i, n in enumerate(graph)}
    matched.sort(key=lambda n: order[n])
    inherit_origin(made, matched)
    for inner in made[:-1]:
        inner.name = f"{node.name}/{inner.op_type}"
    if made:
        made[-1].name = node.name
    ir.convenience.replace_nodes_and_values(graph, node, [], made, old, new)
    for done in reversed(matched):  # a rule may leave inner nodes to their other users
        if not any(v.uses() or v.is_graph_output() for v in done.outputs):
            graph.remove(done, safe=True)
