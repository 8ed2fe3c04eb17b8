"""Models that must not be run are refused in one line, before an engine sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mifuse_runtime import BundleError, Recognizer
from mifuse_runtime import bundle as bundles
from mifuse_runtime.graph import onnx_problem, openvino_problem
from tests.bundles import graph, make_bundle


def changed(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(graph())
    change(model)
    return model.SerializeToString()


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def huge(model: onnx.ModelProto) -> None:
    model.graph.initializer[-1].dims[:] = [1 << 40, 1 << 20]


def negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[-1].dims[:] = [-4]


def short(model: onnx.ModelProto) -> None:
    model.graph.initializer[-1].dims[:] = [1000]


def foreign(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "evil.example"


def unknown(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "RunShell"


def fills_memory(model: onnx.ModelProto) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 30, 1 << 30])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["shape"], value=shape))
    model.graph.node.insert(1, helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))


def hidden_in_a_constant(model: onnx.ModelProto) -> None:
    tensor = TensorProto(dims=[1 << 50], data_type=TensorProto.FLOAT)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["huge"], value=tensor))


def loops(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.insert(0, helper.make_node("Identity", ["samples"], ["x"], body=inner))


def functions(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="local")


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(dims=[1 << 40])


def many(model: onnx.ModelProto) -> None:
    model.graph.node.extend([model.graph.node[0]] * 10_000)


BAD = {
    external: "outside the file",
    huge: "1099511627776, 1048576] has",
    negative: "a tensor of shape",
    short: "a tensor of shape [1000] has 16 bytes",
    foreign: "operator 'evil.example.Pad' is not",
    unknown: "operator 'RunShell' is not",
    fills_memory: "operator 'ConstantOfShape' is not",
    hidden_in_a_constant: "a tensor of shape",
    loops: "subgraphs",
    functions: "functions",
    sparse: "sparse",
    many: "nodes",
}


def test_good_graphs_pass() -> None:
    assert onnx_problem(graph()) is None


@pytest.mark.parametrize("change", BAD)
def test_bad_graphs_do_not(change: Callable[[onnx.ModelProto], None]) -> None:
    problem = onnx_problem(changed(change))
    assert problem
    assert BAD[change] in problem


@pytest.mark.parametrize("change", [external, unknown, huge])
def test_engine_never_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], None]
) -> None:
    import onnxruntime

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the engine was asked")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    for name in ("model.onnx", "body.onnx"):
        folder = make_bundle(tmp_path / name, split=name == "body.onnx")
        (folder / name).write_bytes(changed(change))
        rehash(folder)
        with pytest.raises(BundleError, match=rf"{name} cannot be run \(") as caught:
            Recognizer.load(folder)
        assert "\n" not in str(caught.value)


def rehash(folder: Path) -> None:
    """Whoever changes a model can change its hash."""
    content = json.loads((folder / "bundle.json").read_text())
    content["files"] = {name: bundles.sha256(folder / name) for name in content["files"]}
    (folder / "bundle.json").write_text(json.dumps(content))


@given(
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5),
    end=st.integers(0, 2000),
)
@example(edits=[(31, 10)], end=0)  # a line break in the name of an operator
def test_damaged_graphs_raise_nothing(edits: list[tuple[int, int]], end: int) -> None:
    content = bytearray(graph())
    for at, value in edits:
        content[at % len(content)] = value
    problem = onnx_problem(bytes(content[: len(content) - (end if not edits else 0)]))
    assert problem is None or "\n" not in problem


@given(st.binary(max_size=200))
def test_bytes_are_no_graph(content: bytes) -> None:
    assert onnx_problem(content)
    assert openvino_problem(content, bytes(10))


XML = (
    '<net><layers><layer id="0" type="Parameter" version="opset1"><data shape="1,?" element_type="f32"/>'
    '<output><port id="0"/></output></layer><layer id="1" type="Const" version="opset1">'
    '<data element_type="f32" shape="{}" offset="{}" size="{}"/><output><port id="0"/></output></layer>'
    '<layer id="2" type="Add" version="opset1"><input><port id="0"/><port id="1"/></input>'
    '<output><port id="2"/></output></layer></layers><edges>'
    '<edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>'
    '<edge from-layer="1" from-port="0" to-layer="2" to-port="1"/></edges></net>'
)


@pytest.mark.parametrize(
    ("xml", "word"),
    [
        (XML.format("1", 0, 4), None),
        (XML.format("4", 8, 16), "has 16 bytes at 8 of 16"),
        (XML.format("4", -8, 16), "at -8"),
        (XML.format("4", 0, 15), "has 15 bytes"),
        (XML.format("1000000,1000000", 0, 16), "a tensor of shape"),
        (XML.format("x", 0, 16), "shape is 'x' where whole numbers"),
        (XML.format("1_0", 0, 40), "shape is '1_0' where whole numbers"),
        (XML.format("\u0661", 0, 4), "where whole numbers belong"),
        (XML.format("1", 0, 4).replace("Add", "Loop"), "operator 'Loop'"),
        (XML.format("1", 0, 4).replace('"opset1"', '"extension"', 1), "of 'extension' is not one"),
        (XML.format("1", 0, 4).replace("<layers>", '<layers xmlns="x">'), "namespaces"),
        (XML.format("1", 0, 4).replace("</net>", "<layers/></net>"), "two 'layers'"),
        (XML.format("1", 0, 4).replace("<edges>", "<rt_info><layer/></rt_info><edges>"), "within rt_info"),
        (XML.format("1", 0, 4).replace("<edges>", "<edges><layer/>"), "'layer' stands within a 'edges'"),
        (XML.format("1", 0, 4).replace('"Add"', '"Ad&#100;"'), "characters by number"),
        (XML.format("1", 0, 4).replace('id="2"', 'id="1"', 1), "two layers have one number"),
        ('<?xml version="1.0" encoding="utf-7"?>' + XML.format("1", 0, 4), "instructions"),
        ("<!-- a comment -->" + XML.format("1", 0, 4), "comments"),
        ('<!DOCTYPE lolz [<!ENTITY lol "lol">]>' + XML, "entities"),
        ("<net></net>", "0 layers"),
        ("<other></other>", "no net"),
        ("<net>", "is not an OpenVINO model"),
    ],
)
def test_openvino(xml: str, word: str | None) -> None:
    problem = openvino_problem(xml.encode(), bytes(16))
    assert problem is None if word is None else word in str(problem)


def test_openvino_never_sees_them(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = make_bundle(tmp_path, openvino=True)
    path = folder / "openvino" / "model.xml"
    path.write_text(path.read_text().replace('type="Log"', 'type="Loop"'))
    rehash(folder)
    with pytest.raises(BundleError, match="operator 'Loop' is not"):
        Recognizer.load(folder, "openvino")
