"""What has no formula of ours, written by skl2onnx and sewn into the graph, mostly in single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from training.compile.onnx_formulas import NoFormula, fallback
from training.compile.onnx_graph import ML, ML_OPSET, OPSET, Tensor


@fallback
def convert(e: Any, method: str, x: Tensor) -> Tensor:
    """`e.method(x)` as skl2onnx writes it, in doubles where it can.

    Raises:
        NoFormula: it cannot, in its own words.
    """
    reasons = []
    for dtype in ("double", "float"):
        try:
            model = _converted(e, method, dtype)
        except Exception as error:  # skl2onnx raises whatever its converters raise
            reasons.append(f"{type(error).__name__}: {error}".strip().splitlines()[0][:160])
            continue
        return _sewn(model, e, method, x.cast(dtype))
    raise NoFormula(f"skl2onnx: {reasons[0]}")


def _converted(e: Any, method: str, dtype: str) -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    tensor = DoubleTensorType if dtype == "double" else FloatTensorType
    options: dict[str, Any] = {}
    if method in ("predict_proba", "decision_function"):
        options = {"zipmap": False}
        if method == "decision_function":
            options["raw_scores"] = True
    width = getattr(e, "n_features_in_", None)
    model: onnx.ModelProto = convert_sklearn(
        e,
        initial_types=[("X", tensor([None, width]))],
        options={id(e): options} if options else None,
        target_opset={"": OPSET, ML: ML_OPSET},
    )
    # onnxruntime has no kernel of an operator for some types; better to know it here.
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return model


def _sewn(model: onnx.ModelProto, e: Any, method: str, x: Tensor) -> Tensor:
    """The nodes of `model` in the graph of `x`, under names of their own."""
    graph = x.graph
    if model.functions or any(a.type == onnx.AttributeProto.GRAPH for node in model.graph.node for a in node.attribute):
        raise NoFormula("skl2onnx: a graph with graphs inside")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    infos = (*inferred.value_info, *inferred.output)
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    singles = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UNDEFINED}
    graph.is_narrowed |= any(kind in singles for kind in types.values()) or x.dtype == "float"
    prefix = f"s{len(graph.nodes)}_"
    names = {model.graph.input[0].name: x.name, "": ""}
    for array in model.graph.initializer:
        names[array.name] = prefix + array.name
        copy = onnx.TensorProto()
        copy.CopyFrom(array)
        copy.name = names[array.name]
        graph.initializers[copy.name] = copy
    for node in model.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = ""
        for output in node.output:
            names[output] = prefix + output if output else ""
        copied.input[:] = [names[name] for name in node.input]
        copied.output[:] = [names[name] for name in node.output]
        graph.nodes.append(copied)
    for entry in model.opset_import:
        graph.domains.setdefault(entry.domain, entry.version)
    chosen = model.graph.output[1 if method in ("predict_proba", "decision_function") else 0].name
    dtype = {onnx.TensorProto.DOUBLE: "double", onnx.TensorProto.FLOAT: "float", onnx.TensorProto.INT64: "int64"}
    if types.get(chosen) not in dtype:
        raise NoFormula("skl2onnx: an answer that is no number")
    result = Tensor(graph, names[chosen], dtype[types[chosen]]).cast("double")
    is_flat = (method == "predict" and not _has_targets(e)) or (
        method == "decision_function" and len(getattr(e, "classes_", ())) == 2
    )
    if method == "decision_function" and is_flat and _width(inferred, chosen) == 2:
        return result.column(1)
    return result.reshape(-1) if is_flat else result


def _has_targets(e: Any) -> bool:
    return int(np.max(getattr(e, "n_outputs_", 1))) > 1 or np.ndim(getattr(e, "coef_", 0)) == 2


def _width(graph: onnx.GraphProto, name: str) -> int:
    info = next(info for info in graph.output if info.name == name)
    shape = info.type.tensor_type.shape.dim
    return int(shape[-1].dim_value) if len(shape) == 2 else 0
