"""`policy.onnx`: the same program as an ONNX graph, for any runtime; the contract is the metadata `contract`.

The graph takes one observation (inputs `observation`, or `observation/KEY` for each array) and gives `action` [A].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from calql.export.act import finite, inputs_of
from calql.export.program import Operation, Program
from calql.extras import needed_for
from calql.types import PyTree

if TYPE_CHECKING:
    import onnx

OPSET, IR = 17, 8
"""Versions of ONNX (2022) that current and older runtimes read."""

SAME = {
    "add": "Add",
    "subtract": "Sub",
    "multiply": "Mul",
    "divide": "Div",
    "power": "Pow",
    "maximum": "Max",
    "minimum": "Min",
    "negative": "Neg",
    "absolute": "Abs",
    "sign": "Sign",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "sin": "Sin",
    "cos": "Cos",
    "floor": "Floor",
    "less": "Less",
    "equal": "Equal",
    "where": "Where",
    "matmul": "MatMul",
}
"""Operation of `calql.export.act` → the operator of ONNX that does the same."""
SHAPED = {"reshape": "Reshape", "broadcast": "Expand"}


def save(file: BinaryIO, program: Program, contract: Mapping[str, Any]) -> None:
    """Write the policy to an open file. Raises MissingPackage without the extra `export`."""
    file.write(model_of(program, contract).SerializeToString())


def model_of(program: Program, contract: Mapping[str, Any]) -> onnx.ModelProto:
    """The checked ONNX model. Raises MissingPackage without the extra `export`."""
    with needed_for("an export as ONNX"):
        import onnx
        from onnx import helper, numpy_helper
    nodes: list[Any] = []
    constants = [numpy_helper.from_array(np.ascontiguousarray(x), name) for name, x in program.constants.items()]

    def constant(value: Any, dtype: Any = np.int64) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype), f"option{len(constants)}"))
        return constants[-1].name

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))

    for operation in program.operations:
        _write(operation, node, constant, helper.np_dtype_to_tensor_dtype)
    node("Identity", [program.output.name], "action")

    def described(name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)

    graph = helper.make_graph(
        nodes,
        "policy",
        [described(*x) for x in program.inputs.values()],
        [described("action", program.output.shape, program.output.dtype)],
        constants,
    )
    model = helper.make_model(graph, producer_name="calql", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR
    helper.set_model_props(model, {"contract": json.dumps(contract, allow_nan=False)})
    onnx.checker.check_model(model, full_check=True)
    return model


def _write(
    operation: Operation, node: Callable[..., None], constant: Callable[..., str], code: Callable[[np.dtype], int]
) -> None:
    """Add the nodes of one operation."""
    name, inputs, output, options = operation
    if name in SAME:
        node(SAME[name], inputs, output)
    elif name in SHAPED:
        node(SHAPED[name], [*inputs, constant(options["shape"])], output)
    elif name == "transpose":
        node("Transpose", inputs, output, perm=options["axes"])
    elif name == "concatenate":
        node("Concat", inputs, output, axis=options["axis"])
    elif name == "slice":
        places = constant(options["start"]), constant(options["stop"]), constant(range(len(options["start"])))
        node("Slice", [*inputs, *places, constant(options["step"])], output)
    elif name == "pad":
        node(
            "Pad",
            [*inputs, constant(np.transpose(options["widths"]).ravel()), constant(options["value"], np.float32)],
            output,
        )
    elif name == "sum":
        node("ReduceSum", [*inputs, constant(options["axes"])], output, keepdims=0)
    elif name == "max":
        node("ReduceMax", inputs, output, axes=options["axes"], keepdims=0)
    elif name == "cast":
        node("Cast", inputs, output, to=code(np.dtype(options["dtype"])))
    elif name == "log1p":
        node("Add", [*inputs, constant(1.0, np.float32)], f"{output}/sum")
        node("Log", [f"{output}/sum"], output)
    else:
        raise AssertionError(f"no ONNX form of '{name}'")


class OnnxPolicy:
    """A deterministic policy, run by ONNX Runtime on one thread of the CPU."""

    def __init__(self, path: Path) -> None:
        with needed_for(f"{path}"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        self.contract = json.loads(self._session.get_modelmeta().custom_metadata_map["contract"])

    def act(self, observation: PyTree) -> np.ndarray:
        """The action [A] float32 for one observation. Raises ValueError if one of the two cannot be used."""
        (action,) = self._session.run(["action"], inputs_of(self.contract, observation))
        return finite(np.asarray(action))


def load(path: Path) -> OnnxPolicy:
    """The policy of a file. Raises MissingPackage without the extra `export`."""
    return OnnxPolicy(path)
