"""Contracts, structure and records of the pipeline, with passes that keep and passes that break them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
import tiny

from mulshift.ir import Array, Level, Samples, UsageError, VerificationError, get_level, set_level
from mulshift.passes import PASSES, Contract, Pass
from mulshift.passes.compare import Sqnr, first_difference, relative_error, sqnr_db
from mulshift.passes.pipeline import Pipeline, PipelineResult


def _scale_weights(model: ir.Model, factor: float) -> None:
    weight = model.graph.initializers["w"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor((weight.const_value.numpy() * np.float32(factor)).astype(np.float32))


@dataclass
class Scale(Pass):
    """Multiply the weights: EXACT, CLOSE or LOSSY as a test needs it."""

    name: ClassVar[str] = "scale"
    contract: ClassVar[Contract] = Contract.EXACT
    factor: float = 1.0
    quiet: bool = False

    def rewrite(self, model: ir.Model) -> None:
        _scale_weights(model, self.factor)
        if not self.quiet:
            self.changed("w", f"times {self.factor}")


@dataclass
class Close(Scale):
    name: ClassVar[str] = "close"
    contract: ClassVar[Contract] = Contract.CLOSE


@dataclass
class Lossy(Scale):
    name: ClassVar[str] = "lossy"
    contract: ClassVar[Contract] = Contract.LOSSY


@dataclass
class Curious(Pass):
    """Has all the fields that a pipeline fills."""

    name: ClassVar[str] = "curious"
    contract: ClassVar[Contract] = Contract.EXACT
    samples: Samples = ()
    seed: int = -1
    target: str = ""
    progress: Callable[[int, int | None], None] | None = None

    def rewrite(self, model: ir.Model) -> None:
        assert self.progress is not None
        self.progress(1, 2)
        count = sum(1 for _ in self.samples)
        self.skipped("conv", f"{count} samples, seed {self.seed}, {self.target}")


@dataclass
class Break(Pass):
    """Damage the graph in one way."""

    name: ClassVar[str] = "break"
    contract: ClassVar[Contract] = Contract.LOSSY
    how: str = ""

    def rewrite(self, model: ir.Model) -> None:
        graph = model.graph
        conv, relu = list(graph)
        {
            "order": lambda: (graph.remove(relu), graph.insert_before(conv, relu)),
            "dangling": lambda: conv.replace_input_with(1, ir.Value(name="nobody")),
            "twice": lambda: setattr(relu.outputs[0], "name", "h"),
            "rename": lambda: setattr(relu.outputs[0], "name", "z"),
            "type": lambda: setattr(relu.outputs[0], "type", ir.TensorType(ir.DataType.INT8)),
            "operator": lambda: setattr(relu, "op_type", "Reelu"),
            "output": lambda: graph.outputs.clear(),
            "level": lambda: set_level(model, Level.INTEGER),
        }[self.how]()
        self.changed("graph", self.how)


@pytest.fixture(autouse=True)
def _passes(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (Scale, Close, Lossy, Curious, Break, *tiny.PASSES.values()):
        monkeypatch.setitem(PASSES, cls.name, cls)


def run(*steps: dict[str, object], count: int = 2) -> PipelineResult:
    return Pipeline({"name": "test", "passes": list(steps)}).run(tiny.float_model(), tiny.samples(count))


def test_levels_and_records_of_the_main_job() -> None:
    model = tiny.float_model()
    before = ir.serde.serialize_model(model)
    result = Pipeline(tiny.RECIPE).run(model, tiny.samples(3))
    assert ir.serde.serialize_model(model) == before
    assert list(result.levels) == [Level.FLOAT, Level.QDQ, Level.INTEGER]
    assert all(get_level(graph) is level for level, graph in result.levels.items())
    assert result.levels[Level.INTEGER] is result.model
    assert [(r.name, len(r.changed)) for r in result.records] == [("tiny-qdq", 1), ("tiny-integer", 1)]
    for record in result.records:
        db = record.sqnr["y"]
        assert db is not None and 30 < db < 50  # 8 bits over this range: about 40 dB


def test_exact_keeps_every_bit() -> None:
    assert run({"pass": "scale"}).records[0].error == 0
    with pytest.raises(
        VerificationError, match=r"^pass 'scale': promised EXACT, but in 'y' \d+ of 144 differ, first at"
    ):
        run({"pass": "scale", "options": {"factor": 1.0001}})


def test_a_pass_that_says_nothing_is_checked_too() -> None:
    with pytest.raises(VerificationError, match="promised EXACT"):
        run({"pass": "scale", "options": {"factor": 1.1, "quiet": True}})


def test_close_has_a_limit() -> None:
    assert 0 < run({"pass": "close", "options": {"factor": 1.00001}}).records[0].error < 1e-4
    with pytest.raises(
        VerificationError, match=r"^pass 'close': promised CLOSE, but 'y' has a relative error of 0\.00"
    ):
        run({"pass": "close", "options": {"factor": 1.001}})


def test_lossy_is_measured_against_the_first_graph() -> None:
    steps = [{"pass": "lossy", "options": {"factor": f}} for f in (1.1, 1 / 1.1)]
    first, second = (r.sqnr["y"] for r in run(*steps).records)
    assert first is not None and second is not None
    assert 18 < first < 24  # 10 % off is 20 dB; the bias is not scaled
    assert second > 100  # back again but for float32's rounding


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("order", "reads 'h' before anything makes it"),
        ("dangling", "reads 'nobody' before anything makes it"),
        ("twice", "two values named 'h'"),
        ("rename", r"changed the outputs from \['y'\] to \['z'\]"),
        ("type", "changed the type of output 'y' from FLOAT to INT8"),
        ("operator", "left an invalid graph: .*Reelu"),
        ("level", "left what level INTEGER forbids: node 'conv'"),
        ("output", r"changed the outputs from \['y'\] to \[\]"),
    ],
)
def test_structure_is_checked_after_every_pass(how: str, message: str) -> None:
    with pytest.raises(VerificationError, match=f"^pass 'break': .*{message}") as caught:
        run({"pass": "break", "options": {"how": how}})
    assert "\n" not in str(caught.value)


def test_fields_are_filled_and_progress_is_told() -> None:
    told: list[tuple[str, int, int | None]] = []
    pipeline = Pipeline({"name": "test", "passes": [{"pass": "curious"}]})
    result = pipeline.run(
        tiny.float_model(), tiny.samples(5), target="qdq", seed=7, progress=lambda *event: told.append(event)
    )
    assert result.records[0].skipped[0].what == "5 samples, seed 7, qdq"
    assert told == [("curious", 0, 1), ("curious", 1, 2), ("passes", 1, 1)]


def test_the_recipe_has_the_last_word_on_a_field() -> None:
    result = run({"pass": "curious", "options": {"seed": 3}})
    assert "seed 3" in result.records[0].skipped[0].what


def test_samples_follow_the_inputs() -> None:
    """A pass may change what the graph is fed; `adapt` is asked with the graph as it is at the time."""
    asked = []

    def adapt(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
        asked.append(get_level(model))
        return feeds

    Pipeline(tiny.RECIPE, checked=1).run(tiny.float_model(), tiny.samples(1), adapt=adapt)  # type: ignore[arg-type]
    assert asked == [Level.FLOAT, Level.QDQ, Level.INTEGER]


def test_an_unknown_pass_stops_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="did you mean 'scale'"):
        run({"pass": "scale", "options": {"factor": 5.0}}, {"pass": "scal"})


def test_difference_is_found_and_told() -> None:
    a = np.arange(6, dtype=np.int32).reshape(2, 3)
    b = a.copy()
    assert first_difference(a, b) is None
    b[1, 0] = 9
    assert str(first_difference(a, b)) == "1 of 6 differ, first at [1, 0]: 3 became 9"
    assert str(first_difference(a, b.astype(np.int64))) == "6 of 6 differ, first at []: int32[2, 3] became int64[2, 3]"
    nan = np.array([np.nan, 1], np.float32)
    assert first_difference(nan, nan.copy()) is None
    assert first_difference(nan, np.ones(2, np.float32)) is not None


def test_relative_error_counts_lost_infinities() -> None:
    x = np.array([1.0, -4.0])
    assert relative_error(x, x + 0.5) == 0.125
    assert relative_error(x, np.array([1.0, np.inf])) == np.inf
    assert relative_error(np.array([np.inf]), np.array([-np.inf])) == np.inf
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.zeros(2), np.ones(2)) == np.inf


def test_sqnr_is_ten_log_ten() -> None:
    meter = Sqnr()
    assert meter.db is None
    for part in (np.full(50, 2.0), np.full(50, -2.0)):
        meter.add(part, part * 1.1)
    assert meter.db == pytest.approx(20)
    assert sqnr_db({"a": np.ones(3)}, {"a": np.ones(3), "b": np.ones(3)}) == {"a": None}
