"""A model as TensorFlow Serving has it, for REST and gRPC alike: signatures, and the states of its versions.

Each output of a model is a signature, under its own name, and `serving_default` is the model's default one: of a
classifier the labels, of a regressor the amounts, of a transformer the columns. Whoever wants probabilities names
`predict_proba`. Classify and Regress ask for what they are about, whatever the default is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from service.core.contracts import Server
from service.core.errors import InvalidRequest, UnknownModel, shorten
from service.core.messages import Target
from service.core.plain import plain_label
from service.core.signature import FLOATS, Signature
from service.protocols.v2.tables import TensorAbout, inputs_of, outputs_of

DEFAULT: Final = "serving_default"
METHOD: Final = "tensorflow/serving/predict"

# The names of tensorflow.DataType, by the datatypes of the Open Inference Protocol.
DATA_TYPES: Final = {
    "FP16": "DT_HALF", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE",
    "INT8": "DT_INT8", "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64",
    "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64",
    "BOOL": "DT_BOOL", "BYTES": "DT_STRING",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignatureAbout:
    """A signature as metadata describe it."""

    inputs: tuple[TensorAbout, ...]
    outputs: tuple[TensorAbout, ...]


def signatures_of(signature: Signature) -> dict[str, SignatureAbout]:
    inputs = tuple(inputs_of(signature))
    found = {
        output.name: SignatureAbout(inputs, tuple(outputs_of(signature.model_copy(update={"outputs": (output,)}))))
        for output in signature.outputs
    }
    return {DEFAULT: found[signature.default_output], **found}


def states_of(server: Server, target: Target) -> tuple[str, dict[int, str | None]]:
    """The model, and of each version of it why it does not answer, or None: the newest first.

    Of a target with a version or a label that is the only one. Raises what `Server.version` does.
    """
    served = server.version(target)
    states: dict[int, str | None] = {served.version: None}
    if target.version is None and target.label is None:
        summary = next((summary for summary in server.models() if summary.name == served.model), None)
        if summary is None:  # it went in between
            raise UnknownModel
        states = summary.reasons | states | dict.fromkeys(summary.versions)
    return served.model, dict(sorted(states.items(), reverse=True))


def choose_output(name: Any, signature: Signature) -> str:
    """The output that the signature of this name is; without one, or an empty one, the model's default.

    Raises:
        InvalidRequest: this model has no such signature.
    """
    if name in (None, "", DEFAULT):
        return signature.default_output
    if name not in signature.output_names:
        known = ", ".join((DEFAULT, *signature.output_names))
        raise InvalidRequest(f"unknown signature_name {shorten(name)}; this model has {known}")
    return str(name)


def choose_classes(name: Any, signature: Signature) -> str:
    """The output that classify asks for: the probabilities, whose classes `labels_of` names.

    Raises:
        InvalidRequest: an unknown signature, one of something else, or a model that has no probabilities.
    """
    wanted = "predict_proba"
    _require_wanted(name, wanted, signature, "classify")
    output = signature.output(wanted)
    if output.targets is not None or not output.classes:
        raise InvalidRequest("classify: this model answers several targets; ask it to predict")
    return wanted


def choose_number(name: Any, signature: Signature) -> str:
    """The output that regress asks for: one number per row, of a model that predicts amounts.

    Raises:
        InvalidRequest: an unknown signature, one of something else, or a model that predicts none.
    """
    wanted = "predict"
    _require_wanted(name, wanted, signature, "regress")
    output = signature.output(wanted)
    if output.classes is not None or output.dtype not in FLOATS or output.shape not in ((), (1,)):
        raise InvalidRequest(
            "regress: this model does not predict one amount per row; ask it to predict or to classify"
        )
    return wanted


def labels_of(signature: Signature) -> list[str]:
    """The classes in the order of `choose_classes`'s output, as texts."""
    plain = [plain_label(label) for label in signature.output("predict_proba").classes or ()]
    return [label if isinstance(label, str) else orjson.dumps(label).decode() for label in plain]


def _require_wanted(name: Any, wanted: str, signature: Signature, what: str) -> None:
    if wanted not in signature.output_names:
        raise InvalidRequest(f"{what}: this model has no {wanted}; it offers {', '.join(signature.output_names)}")
    # Some models of TensorFlow call their signatures by the method that they are for.
    if name not in (None, "", DEFAULT, wanted, f"tensorflow/serving/{what}"):
        choose_output(name, signature)
        raise InvalidRequest(f"{what}: expected the signature {wanted}, or none; got {shorten(name)}")
