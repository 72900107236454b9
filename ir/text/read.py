"""The text of a model read back (see `mulshift.ir.text`)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import ModelError
from mulshift.ir.text.literals import LONG_TYPES, tensor_of
from mulshift.ir.text.write import HEADER, MODEL_FIELDS

_TOKEN = re.compile(
    r"""(?P<space>[\ \t\n]+)
      | (?P<comment>//\ (?:"(?:[^"\\]|\\.)*"|[\w./\-:]*[\w./\-]))
      | (?P<value>%(?:"(?:[^"\\]|\\.)*"|[\w./\-:]*[\w./\-]))
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<data><[A-Za-z0-9+/=]*>(?=[\n,\}\]])|<sha256:[0-9a-f]*>)
      | (?P<number>-?(?:\d+(?:\.\d*)?(?:e[+-]?\d+)?|inf\b|nan\b))
      | (?P<word>[A-Za-z_][\w.]*)
      | (?P<mark>->|::|[()\[\]\{\}<>=:,.@?*])""",
    re.VERBOSE | re.ASCII,
)


@dataclass
class _Tokens:
    """A cursor over the tokens of a text."""

    text: str
    kinds: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    at: int = 0

    def __post_init__(self) -> None:
        position = 0
        while position < len(self.text):
            found = _TOKEN.match(self.text, position)
            if found is None:
                self.starts.append(position)
                self.at = len(self.starts) - 1
                self.fail("not a token")
            if found.lastgroup != "space":
                self.kinds.append(str(found.lastgroup))
                self.words.append(found.group())
                self.starts.append(position)
            position = found.end()
        self.kinds.append("end")
        self.words.append("the end")
        self.starts.append(len(self.text))

    @property
    def kind(self) -> str:
        return self.kinds[self.at]

    @property
    def word(self) -> str:
        return self.words[self.at]

    def take(self) -> str:
        self.at += 1
        return self.words[self.at - 1]

    def next_is(self, *words: str) -> bool:
        return self.words[self.at : self.at + len(words)] == list(words)

    def skip(self, word: str) -> bool:
        """Take the token if it is `word`."""
        if self.word != word or self.kind == "string":
            return False
        self.at += 1
        return True

    def expect(self, word: str) -> None:
        if not self.skip(word):
            self.fail(f"'{self.word[:40]}' where '{word}' should be")

    def key(self) -> str:
        """A word or a quoted string."""
        if self.kind not in ("word", "string"):
            self.fail(f"'{self.word[:40]}' where a name should be")
        return _unquoted(self.take())

    def string(self) -> str:
        if self.kind != "string":
            self.fail(f"'{self.word[:40]}' where a quoted string should be")
        return str(json.loads(self.take()))

    def integer(self) -> int:
        if self.kind != "number" or not self.word.lstrip("-").isdigit():
            self.fail(f"'{self.word[:40]}' where an integer should be")
        return int(self.take())

    def listed(self, end: str, item: Callable[[], Any]) -> list[Any]:
        """Items between commas up to the mark `end`."""
        found: list[Any] = []
        while not self.skip(end):
            if found:
                self.expect(",")
            found.append(item())
        return found

    def fail(self, cause: str) -> NoReturn:
        line = self.text.count("\n", 0, self.starts[self.at]) + 1
        raise ModelError(f"line {line} of the graph's text", cause, "write it with mulshift.ir.show")


def _unquoted(word: str) -> str:
    return str(json.loads(word)) if word.startswith('"') else word


class _Scope:
    """Values by name; a name not found here belongs to the scope around."""

    def __init__(self, outer: _Scope | None) -> None:
        self.values: dict[str, ir.Value] = {}
        self.defined: set[str] = set()
        self.outer = outer

    def define(self, name: str) -> ir.Value:
        self.defined.add(name)
        return self.values.setdefault(name, ir.Value(name=name))

    def find(self, name: str) -> ir.Value:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        return self.values.setdefault(name, ir.Value(name=name))  # made by a later node


class Reader:
    """One text. `model()` reads it all."""

    def __init__(self, text: str) -> None:
        if not text.startswith(HEADER + "\n"):
            raise ModelError("line 1 of the graph's text", f"is not '{HEADER}'", "write it with mulshift.ir.show")
        self.tokens = _Tokens(text[len(HEADER) :])

    def model(self) -> ir.Model:
        """The model."""
        t = self.tokens
        t.expect("model")
        t.expect("{")
        fields = dict(t.listed("}", self._field))
        unknown = fields.keys() - set(MODEL_FIELDS)
        if unknown:
            t.fail(f"unknown field '{min(unknown)}'")
        doc, metadata = self._notes()
        t.expect("graph")
        graph = self._graph(None)
        functions = []
        while t.skip("function"):
            functions.append(self._function())
        if t.kind != "end":
            t.fail(f"'{t.word[:40]}' after the model")
        return ir.Model(graph, **fields, doc_string=doc or None, functions=functions, metadata_props=metadata)

    def _field(self) -> tuple[str, Any]:
        name = self.tokens.key()
        self.tokens.expect("=")
        return name, self.tokens.string() if self.tokens.kind == "string" else self.tokens.integer()

    def _function(self) -> ir.Function:
        t = self.tokens
        domain, name, overload = self._operator()
        attributes: list[ir.Attr] = []
        if t.skip("<"):
            attributes = t.listed(">", self._parameter)
        doc, metadata = self._notes()
        while t.skip("default"):
            attributes.append(self._attribute(_Scope(None)))
        t.expect("graph")
        graph = self._graph(None)
        function = ir.Function(domain, name, overload, graph=graph, attributes=attributes)
        function.doc_string = doc or None
        function.metadata_props.update(metadata)
        return function

    def _parameter(self) -> ir.Attr:
        name = self.tokens.key()
        self.tokens.expect(":")
        return ir.Attr(name, ir.AttributeType[self.tokens.key().upper()], None)

    def _graph(self, outer: _Scope | None) -> ir.Graph:
        t, scope = self.tokens, _Scope(outer)
        name = t.string() if t.kind == "string" else None
        t.expect("(")
        inputs = t.listed(")", lambda: self._typed(scope))
        t.expect("->")
        t.expect("(")
        names = t.listed(")", self._value_name)
        t.expect("{")
        opsets: dict[str, int] = {}
        while t.next_is("opset"):
            t.take()
            domain = t.string()
            t.expect("=")
            opsets[domain] = t.integer()
        doc, metadata = self._notes()
        self._value_notes(scope)
        initializers, nodes = [], []
        while not t.skip("}"):
            value = self._initializer(scope)
            if value is not None:
                initializers.append(value)
            else:
                nodes.append(self._node(scope))
            self._value_notes(scope)
        missing = scope.values.keys() - scope.defined
        if missing:
            t.fail(f"value '{min(missing)}' is used but nothing makes it")
        return ir.Graph(
            inputs,
            [scope.find(n) for n in names],
            nodes=nodes,
            initializers=initializers,
            opset_imports=opsets,
            name=name,
            doc_string=doc or None,
            metadata_props=metadata,
        )

    def _initializer(self, scope: _Scope) -> ir.Value | None:
        """`%w = f32[2] [1.0, 2.0]`, or None (nothing taken) if the line is a node."""
        t, start = self.tokens, self.tokens.at
        if t.kind != "value":
            return None
        name = self._value_name()
        declared = self._type() if t.skip(":") else None
        if not t.skip("=") or not (t.next_is("none") or self._tensor_follows()):
            t.at = start
            return None
        value = scope.define(name)
        if t.skip("none"):
            value.type, value.shape = declared if declared else (None, None)
            return value
        value.const_value = self._tensor(name)
        if declared is None:
            declared = (ir.TensorType(value.const_value.dtype), ir.Shape(list(value.const_value.shape)))  # type: ignore[arg-type]
        value.type, value.shape = declared
        return value

    def _tensor_follows(self) -> bool:
        return self.tokens.word in LONG_TYPES and self.tokens.words[self.tokens.at + 1] == "["

    def _node(self, scope: _Scope) -> ir.Node:
        t = self.tokens
        outputs = t.listed("=", lambda: self._typed(scope))
        domain, op_type, overload = self._operator()
        t.expect("(")
        inputs = t.listed(")", lambda: scope.find(name) if (name := self._value_name()) else None)
        attributes: list[ir.Attr] = []
        if t.skip("{"):
            while not t.skip("}"):
                t.skip(",")
                attributes.append(self._attribute(scope))
        name = _unquoted(t.take()[3:]) if t.kind == "comment" else ""
        doc, metadata = self._notes()
        return ir.Node(
            domain,
            op_type,
            inputs,
            attributes,
            overload=overload,
            outputs=outputs,
            name=name,
            doc_string=doc or None,
            metadata_props=metadata,
        )

    def _attribute(self, scope: _Scope) -> ir.Attr:
        t = self.tokens
        name = t.key()
        t.expect("=")
        kind, value = self._attribute_value(scope)
        if kind is None:
            return ir.RefAttr(name, value[0], value[1])
        return ir.Attr(name, kind, value)

    def _attribute_value(self, scope: _Scope) -> tuple[ir.AttributeType | None, Any]:
        t, kinds = self.tokens, ir.AttributeType
        if t.skip("@"):
            reference = t.key()
            t.expect(":")
            return None, (reference, kinds[t.key().upper()])
        if t.kind == "string":
            return kinds.STRING, t.string()
        if t.kind == "number":
            number = self._number()
            return (kinds.INT if isinstance(number, int) else kinds.FLOAT), number
        if t.skip("graph"):
            return kinds.GRAPH, self._graph(scope)
        if t.skip("tensor"):
            return kinds.TENSOR, self._named_tensor()
        if t.skip("type"):
            return kinds.TYPE_PROTO, ir.TypeAndShape(*self._type())
        if t.skip("graphs"):
            t.expect("[")
            return kinds.GRAPHS, list(self._graphs(scope))
        declared = kinds[t.take().upper()] if t.kind == "word" else None
        t.expect("[")
        items = t.listed("]", lambda: self._attribute_value(scope))
        plural = {kinds.INT: kinds.INTS, kinds.FLOAT: kinds.FLOATS, kinds.STRING: kinds.STRINGS}
        return declared or plural[items[0][0]], [item for _, item in items]

    def _graphs(self, scope: _Scope) -> Iterator[ir.Graph]:
        while self.tokens.skip("graph"):
            yield self._graph(scope)
        self.tokens.expect("]")

    def _number(self) -> int | float:
        text = self.tokens.take()
        return int(text) if text.lstrip("-").isdigit() else float(np.float32(text))

    def _named_tensor(self) -> ir.TensorProtocol:
        return self._tensor(self.tokens.string() if self.tokens.kind == "string" else "")

    def _tensor(self, name: str) -> ir.TensorProtocol:
        t = self.tokens
        kind, shape = self._type()
        data: list[Any] | str
        if t.kind == "data":
            if t.word.startswith("<sha256:"):
                t.fail(f"the data of '{name}' is left out")
            data = t.take()[1:-1]
        else:
            t.expect("[")
            data = t.listed("]", self._element)
        try:
            return tensor_of(name, kind.dtype, [int(str(d)) for d in shape or ()], data)
        except ValueError as e:
            t.fail(f"tensor '{name}': {e}")

    def _element(self) -> Any:
        t = self.tokens
        if t.kind == "string":
            return t.string()
        word = t.take()
        if word in ("true", "false"):
            return word == "true"
        return int(word) if word.lstrip("-").isdigit() else float(word)

    def _operator(self) -> tuple[str, str, str]:
        t = self.tokens
        domain, op_type, overload = "", t.key(), ""
        if t.skip("::"):
            domain, op_type = op_type, t.key()
        if t.skip(":"):
            overload = t.key()
        return domain, op_type, overload

    def _value_name(self) -> str:
        t = self.tokens
        if t.skip("_"):
            return ""
        if t.kind != "value":
            t.fail(f"'{t.word[:40]}' where a value should be")
        return _unquoted(t.take()[1:])

    def _typed(self, scope: _Scope) -> ir.Value:
        name = self._value_name()
        value = scope.define(name) if name else ir.Value(name="")
        if self.tokens.skip(":"):
            value.type, value.shape = self._type()
        return value

    def _type(self) -> tuple[Any, ir.Shape | None]:
        t = self.tokens
        word = t.key()
        if word in ("seq", "optional"):
            t.expect("(")
            inner, shape = self._type()
            t.expect(")")
            return (ir.SequenceType(inner) if word == "seq" else ir.OptionalType(inner)), shape
        if word != "_" and word not in LONG_TYPES:
            t.fail(f"unknown element type '{word}'")
        t.expect("[")
        if t.skip("*"):
            t.expect("]")
            return self._element_type(word), None
        return self._element_type(word), ir.Shape(t.listed("]", self._dimension))

    def _element_type(self, word: str) -> ir.TensorType | None:
        return None if word == "_" else ir.TensorType(LONG_TYPES[word])

    def _dimension(self) -> int | str | None:
        t = self.tokens
        if t.skip("?"):
            return None
        return t.integer() if t.kind == "number" else t.key()

    def _notes(self) -> tuple[str, dict[str, str]]:
        """`. doc: "..."` and `. key = "..."` lines about the thing just read."""
        t, doc, metadata = self.tokens, "", {}
        while t.next_is(".") and t.kinds[t.at + 1] != "value":
            t.take()
            name = t.key()
            if name == "doc" and t.skip(":"):
                doc = t.string()
                continue
            t.expect("=")
            metadata[name] = t.string()
        return doc, metadata

    def _value_notes(self, scope: _Scope) -> None:
        """`. %v key = "..."` lines."""
        t = self.tokens
        while t.next_is(".") and t.kinds[t.at + 1] == "value":
            t.take()
            value = scope.find(self._value_name())
            name = t.key()
            if name == "doc" and t.skip(":"):
                value.doc_string = t.string()
                continue
            t.expect("=")
            value.metadata_props[name] = t.string()
