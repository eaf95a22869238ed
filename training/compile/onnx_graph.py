"""A graph of ONNX operators, written as one writes numpy.

A `Tensor` is a result of the graph that is being written; arithmetic on it adds nodes. Numbers are
double throughout, so that a formula of an estimator gives the estimator's own digits. The same node is
never written twice: formulas that share a step share its nodes.
"""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

# Read by onnxruntime 1.23 and later. The second is the first with trees in double precision.
OPSET: Final = 21
ML_OPSET: Final = 5
IR_VERSION: Final = 10
ML: Final = "ai.onnx.ml"
TYPES: Final[dict[str, int]] = {
    "double": TensorProto.DOUBLE,
    "float": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
}
# A table that would be larger is not written.
MOST_TABLE_BYTES: Final = 2**26
_NUMPY: Final = {"double": np.float64, "float": np.float32, "int64": np.int64, "int32": np.int32, "bool": np.bool_}
Operand = Any  # Tensor | ArrayLike; numpy's own type for the latter is an open set


class TooLarge(Exception):
    """A constant is too large to be carried in a graph."""


class Graph:
    """Nodes in the order they were asked for. Not thread-safe."""

    def __init__(self, *, converts: bool = False) -> None:
        self.converts = converts  # what has no formula may be handed to skl2onnx, in single precision
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self.is_narrowed = False  # some number is single precision where the estimator has double
        self.casts_computed = False  # computed numbers become float32, as in the estimator
        self.row_bytes = 0  # of the largest thing in between, for one row
        self.domains: dict[str, int] = {"": OPSET, ML: ML_OPSET}
        self.doubts: list[Tensor] = []  # truths of shape (rows,): the estimator itself must answer such a row
        self._outputs: dict[str, Tensor] = {}
        self._seen: dict[bytes, list[Tensor]] = {}

    def input(self, name: str, dtype: str, shape: Sequence[int | None]) -> Tensor:
        self.inputs[name] = helper.make_tensor_value_info(name, TYPES[dtype], list(shape))
        return Tensor(self, name, dtype)

    def constant(self, values: ArrayLike, dtype: str | None = None) -> Tensor:
        """An array of the graph, `dtype` or double, integers and truths staying what they are."""
        array = np.asarray(values)
        if dtype is None:
            dtype = "bool" if array.dtype == bool else "int64" if array.dtype.kind in "iu" else "double"
        array = np.ascontiguousarray(array, dtype=_NUMPY[dtype])
        name = f"c{hashlib.sha1(array.tobytes()).hexdigest()[:16]}_{dtype}_{'x'.join(map(str, np.shape(values)))}"
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(array.reshape(np.shape(values)), name)
        return Tensor(self, name, dtype)

    def ops(self, kind: str, inputs: Sequence[Operand], dtypes: Sequence[str], domain: str = "", **attrs: Any) -> Any:
        """The results of one operator, of the given dtypes. Inputs that are not tensors become constants."""
        names = [self._name(value) for value in inputs]
        node = helper.make_node(kind, names, [], domain=domain, **attrs)
        key = hashlib.sha1(node.SerializeToString(deterministic=True)).digest()
        if key not in self._seen:
            results = [Tensor(self, f"t{len(self.nodes)}_{index}", dtype) for index, dtype in enumerate(dtypes)]
            node.output.extend(result.name for result in results)
            self.nodes.append(node)
            self._seen[key] = results
        return self._seen[key]

    def op(self, kind: str, *inputs: Operand, dtype: str = "double", domain: str = "", **attrs: Any) -> Tensor:
        (result,) = self.ops(kind, inputs, (dtype,), domain, **attrs)
        assert isinstance(result, Tensor)
        return result

    def _name(self, value: Operand) -> str:
        if value is None:
            return ""  # an optional input that is left out
        return value.name if isinstance(value, Tensor) else self.constant(value).name

    def drop_choices(self, name: str, everything: NDArray[np.int64]) -> None:
        """Take out the nodes that choose `everything` of an input; those behind them get the input itself."""
        whole = self.constant(everything).name
        dropped = {
            node.output[0]
            for node in self.nodes
            if node.op_type == "Gather" and list(node.input) == [name, whole] and node.output[0] not in self._outputs
        }
        self.nodes = [node for node in self.nodes if not (node.output and node.output[0] in dropped)]
        for node in self.nodes:
            node.input[:] = [name if one in dropped else one for one in node.input]

    def output(self, tensor: Tensor) -> str:
        """The name under which the graph gives `tensor`; inputs and constants get a node of their own."""
        if tensor.name in self.inputs or tensor.name in self.initializers:
            tensor = self.op("Identity", tensor, dtype=tensor.dtype)
        self._outputs[tensor.name] = tensor
        return tensor.name

    def model(self) -> bytes:
        """The file: only what the outputs need is in it."""
        nodes: list[onnx.NodeProto] = []
        needed = set(self._outputs)
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed |= set(node.input)
                nodes.append(node)
        graph = helper.make_graph(
            nodes[::-1],
            "tandem",
            [info for name, info in self.inputs.items() if name in needed],
            [helper.make_tensor_value_info(name, TYPES[t.dtype], None) for name, t in self._outputs.items()],
            [array for name, array in self.initializers.items() if name in needed],
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.domains.items()]
        content = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tandem")
        return bytes(content.SerializeToString(deterministic=True))


class Tensor:
    """One result in `graph`. Its first axis is rows; operators broadcast as numpy's do."""

    def __init__(self, graph: Graph, name: str, dtype: str) -> None:
        self.graph = graph
        self._name = name
        self.dtype = dtype

    @property
    def name(self) -> str:
        return self._name

    @property
    def is_input(self) -> bool:
        return self.name in self.graph.inputs

    # numpy arrays must leave `array @ tensor` to the tensor.
    __array_ufunc__ = None

    def op(self, kind: str, *others: Operand, dtype: str | None = None, **attrs: Any) -> Tensor:
        """This tensor as the first input; a number or array beside it takes its dtype."""
        inputs = [other if isinstance(other, Tensor) else self.like(other) for other in others]
        return self.graph.op(kind, self, *inputs, dtype=dtype or self.dtype, **attrs)

    def like(self, value: ArrayLike) -> Tensor:
        return self.graph.constant(value, self.dtype)

    def __add__(self, other: Operand) -> Tensor:
        return self.op("Add", other)

    def __radd__(self, other: Operand) -> Tensor:
        return self.like(other).op("Add", self)

    def __sub__(self, other: Operand) -> Tensor:
        return self.op("Sub", other)

    def __rsub__(self, other: Operand) -> Tensor:
        return self.like(other).op("Sub", self)

    def __mul__(self, other: Operand) -> Tensor:
        return self.op("Mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> Tensor:
        return self.op("Div", other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self.like(other).op("Div", self)

    def __pow__(self, other: Operand) -> Tensor:
        return self.op("Pow", other)

    def __matmul__(self, other: Operand) -> Tensor:
        return self.op("MatMul", other)

    def __neg__(self) -> Tensor:
        return self.op("Neg")

    def __gt__(self, other: Operand) -> Tensor:
        return self.op("Greater", other, dtype="bool")

    def __ge__(self, other: Operand) -> Tensor:
        return self.op("GreaterOrEqual", other, dtype="bool")

    def __lt__(self, other: Operand) -> Tensor:
        return self.op("Less", other, dtype="bool")

    def __le__(self, other: Operand) -> Tensor:
        return self.op("LessOrEqual", other, dtype="bool")

    def equals(self, other: Operand) -> Tensor:
        return self.op("Equal", other, dtype="bool")

    def __and__(self, other: Operand) -> Tensor:
        return self.op("And", other)

    def __or__(self, other: Operand) -> Tensor:
        return self.op("Or", other)

    def __invert__(self) -> Tensor:
        return self.op("Not")

    def isnan(self) -> Tensor:
        return self.op("IsNaN", dtype="bool")

    def where(self, yes: Operand, no: Operand) -> Tensor:
        """`yes` where this truth holds, else `no`; at least one of them is a tensor or both are doubles."""
        kind = next((value.dtype for value in (yes, no) if isinstance(value, Tensor)), "double")
        yes, no = (v if isinstance(v, Tensor) else self.graph.constant(v, kind) for v in (yes, no))
        return self.graph.op("Where", self, yes, no, dtype=kind)

    def cast(self, dtype: str) -> Tensor:
        return self if dtype == self.dtype else self.graph.op("Cast", self, dtype=dtype, to=TYPES[dtype])

    def sum(self, axis: int = 1, keepdims: bool = False) -> Tensor:
        return self._reduce("ReduceSum", axis, keepdims)

    def mean(self, axis: int = 1, keepdims: bool = False) -> Tensor:
        return self._reduce("ReduceMean", axis, keepdims)

    def max(self, axis: int = 1, keepdims: bool = False) -> Tensor:
        return self._reduce("ReduceMax", axis, keepdims)

    def min(self, axis: int = 1, keepdims: bool = False) -> Tensor:
        return self._reduce("ReduceMin", axis, keepdims)

    def logsumexp(self, axis: int = 1, keepdims: bool = False) -> Tensor:
        high = self.max(axis, keepdims=True)
        total = (self - high).op("Exp").sum(axis, keepdims=True).op("Log") + high
        return total if keepdims else total.squeeze(axis)

    def argmax(self, axis: int = 1) -> Tensor:
        """The first of the largest, as numpy has it; shape (rows,)."""
        return self.graph.op("ArgMax", self, dtype="int64", axis=axis, keepdims=0)

    def argmin(self, axis: int = 1) -> Tensor:
        return self.graph.op("ArgMin", self, dtype="int64", axis=axis, keepdims=0)

    def _reduce(self, kind: str, axis: int, keepdims: bool) -> Tensor:
        return self.graph.op(kind, self, np.array([axis]), dtype=self.dtype, keepdims=int(keepdims))

    def column(self, index: int) -> Tensor:
        """Shape (rows,)."""
        return self.graph.op("Gather", self, np.array(index), dtype=self.dtype, axis=1)

    def columns(self, indices: ArrayLike) -> Tensor:
        """Shape (rows, len(indices))."""
        chosen: NDArray[np.int64] = np.asarray(indices, dtype=np.int64)
        return self.graph.op("Gather", self, chosen, dtype=self.dtype, axis=1)

    def lookup(self, table: ArrayLike, dtype: str | None = None) -> Tensor:
        """`table[self]`, for integers."""
        values = self.graph.constant(table, dtype)
        return self.graph.op("Gather", values, self, dtype=values.dtype, axis=0)

    def expand(self, axis: int = 1) -> Tensor:
        return self.graph.op("Unsqueeze", self, np.array([axis]), dtype=self.dtype)

    def squeeze(self, axis: int = 1) -> Tensor:
        return self.graph.op("Squeeze", self, np.array([axis]), dtype=self.dtype)

    def reshape(self, *shape: int) -> Tensor:
        return self.graph.op("Reshape", self, np.array(shape), dtype=self.dtype)

    def clip(self, low: float | None = None, high: float | None = None) -> Tensor:
        bounds = [None if bound is None else self.like(bound) for bound in (low, high)]
        return self.graph.op("Clip", self, *bounds, dtype=self.dtype)


class Lookup(Tensor):
    """The sum of one row of `table` for each of several codes: one-hot columns, mostly.

    `codes` has shape (codes, rows). Nothing of it is written before it is needed: a product with
    coefficients needs only the product of the table, however many categories there are.
    """

    def __init__(self, codes: Tensor, table: NDArray[np.float64]) -> None:
        super().__init__(codes.graph, "", "double")
        self._codes = codes
        self._table = table
        self.width = table.shape[-1]

    @property
    def name(self) -> str:
        if not self._name:
            if self._table.nbytes > MOST_TABLE_BYTES:
                raise TooLarge(f"a table of {len(self._table)} categories and {self.width} columns")
            found = self._codes.lookup(self._table)
            self._name = found.sum(axis=0).name
        return self._name

    def __matmul__(self, other: Operand) -> Tensor:
        return super().__matmul__(other) if isinstance(other, Tensor) else Lookup(self._codes, self._table @ other)


class Joined(Tensor):
    """Columns side by side, of which some are looked up."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        super().__init__(parts[0].graph, "", parts[0].dtype)
        self._parts = parts

    @property
    def name(self) -> str:
        if not self._name:
            self._name = self.graph.op("Concat", *self._parts, dtype=self.dtype, axis=1).name
        return self._name

    def __matmul__(self, other: Operand) -> Tensor:
        """The sum of the parts' products."""
        widths = [part.width if isinstance(part, Lookup) else None for part in self._parts]
        if isinstance(other, Tensor) or widths.count(None) > 1:
            return super().__matmul__(other)
        rest = len(other) - sum(width or 0 for width in widths)
        ends = np.cumsum([rest if width is None else width for width in widths])
        pieces = np.split(np.asarray(other, dtype=float), ends[:-1])
        products = [part @ piece for part, piece in zip(self._parts, pieces, strict=True)]
        return functools.reduce(operator.add, products)


def concat(parts: Sequence[Tensor], axis: int = 1) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    if axis == 1 and any(isinstance(part, Lookup) for part in parts):
        return Joined(parts)
    return parts[0].graph.op("Concat", *parts, dtype=parts[0].dtype, axis=axis)


def stack(parts: Sequence[Tensor]) -> Tensor:
    """Tensors of shape (rows,) side by side."""
    return concat([part.expand() for part in parts])
