"""MLflow's model folders, scikit-learn flavour: read for `tandem export`, written by `tandem to-mlflow`.

`MLmodel` is YAML and says what the other files are: `model.pkl` or `model.skops`, `input_example.json`. MLflow itself
is not needed for either.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from service.core.signature import Column, Container, Output, Signature
from service.repository.manifest import GOLDEN, Manifest, read_file, read_manifest
from service.repository.model_file import open_estimator, required_model_file
from service.repository.opener import open_model
from service.repository.pickle_names import global_names
from service.repository.skops_file import open_skops
from service.repository.sources import Found
from training.data import DataUnusable, rows_for

MLMODEL: Final = "MLmodel"
EXAMPLE: Final = "input_example.json"
SERVING_EXAMPLE: Final = "serving_input_example.json"
REQUIREMENTS: Final = "requirements.txt"
PYTHON_ENV: Final = "python_env.yaml"
PICKLE: Final = "model.pkl"
# As many rows as an example needs for a person to see what it is.
EXAMPLE_ROWS: Final = 5

# MLflow's types of columns, by ours. It has none for larger numbers, and none for moments with an offset.
OF_COLUMNS: Final = {
    "float64": "double", "float32": "float", "float16": "float",
    "int64": "long", "uint32": "long",
    **dict.fromkeys(("int32", "int16", "int8", "uint16", "uint8"), "integer"),
    "bool": "boolean", "string": "string", "datetime": "datetime",
}  # fmt: skip
# What pandas calls them where an example is read. Texts stay as pandas reads them, and moments are parsed.
TYPES: Final = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64",
}  # fmt: skip


# -- reading -------------------------------------------------------------------------------------


def read_mlflow(folder: Path, trusted: Collection[str] = ()) -> tuple[Any, Any]:
    """The fitted estimator in an MLflow folder, and its input example as it takes rows; None where there is none.

    Columns of the example have the types that the signature names.
    `trusted` are names beyond the allow-list that the model may use. MLflow's own list of trusted types, beside the
    model, counts for nothing here.

    Raises:
        DataUnusable: no such folder, another flavour, or a file of it cannot be read.
        ArtefactError: the model cannot be opened, or names other code.
    """
    about = _read_mlmodel(folder)
    flavour = about.get("flavors", {}).get("sklearn")
    if not isinstance(flavour, dict):
        flavours = ", ".join(name for name in about.get("flavors", {}) if name != "python_function")
        raise DataUnusable(f"{str(folder)!r} holds no scikit-learn model; its flavours are {flavours or 'none'}")
    path = folder / Path(str(flavour.get("pickled_model", PICKLE))).name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataUnusable(f"{str(path)!r} cannot be read: {error.strerror}") from error
    is_skops = flavour.get("serialization_format") == "skops"
    estimator = open_skops(content, trusted=trusted) if is_skops else open_model(content, trusted=trusted)
    example = _read_example(folder, about)
    if isinstance(example, pd.DataFrame):
        example = rows_for(estimator, example, f"the input example of {str(folder)!r}")
    return estimator, example


def _read_mlmodel(folder: Path) -> dict[str, Any]:
    yaml = _yaml()
    try:
        about = yaml.safe_load((folder / MLMODEL).read_text())
    except FileNotFoundError:
        raise DataUnusable(f"{str(folder)!r} is no MLflow model: it has no file {MLMODEL}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataUnusable(f"{str(folder / MLMODEL)!r} cannot be read: {error}") from error
    if not isinstance(about, dict) or not isinstance(about.get("flavors", {}), dict):
        raise DataUnusable(f"{str(folder / MLMODEL)!r} is not what MLflow writes")
    return about


def _read_example(folder: Path, about: Mapping[str, Any]) -> Any:
    """Rows of the input example, None where there is none."""
    info = about.get("saved_input_example_info")
    if not isinstance(info, dict):
        return None
    path = folder / Path(str(info.get("artifact_path", EXAMPLE))).name
    try:
        content = json.loads(path.read_bytes())
        if info.get("params"):
            content = content["inputs"]
        return _rows(content, info, _specs(about))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataUnusable(f"the input example {str(path)!r} cannot be read: {error}") from error


def _specs(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The inputs in the signature, none where there is no signature. They are JSON within YAML."""
    signature = about.get("signature") or {}
    specs = json.loads(signature.get("inputs") or "[]")
    return specs if isinstance(specs, list) else []


def _rows(content: Any, info: Mapping[str, Any], specs: list[dict[str, Any]]) -> Any:
    kind = str(info["type"])
    if kind == "dataframe":
        return _frame(content, specs)
    if kind.startswith("sparse_matrix"):
        import scipy.sparse

        make = scipy.sparse.csc_matrix if kind.endswith("csc") else scipy.sparse.csr_matrix
        parts = (content["data"], content["indices"], content["indptr"])
        return make(parts, shape=content["shape"]).tocsr()
    if kind == "ndarray" and isinstance(content, list):
        if all(isinstance(text, str) for text in content):
            return content
        dtype = specs[0]["tensor-spec"]["dtype"] if specs and "tensor-spec" in specs[0] else None
        return np.array(content, dtype=dtype)
    if isinstance(content, list) and content and all(isinstance(text, str) for text in content):
        return content
    if isinstance(content, dict) or (isinstance(content, list) and content and isinstance(content[0], dict)):
        return _frame(content, specs)
    raise ValueError(f"it is neither a table nor a list of texts, but {kind}")


def _frame(content: Any, specs: list[dict[str, Any]]) -> Any:
    """A data frame out of `{"columns", "data"}`, lists, records or columns, with the types that `specs` name."""
    if isinstance(content, dict) and "data" in content:
        frame = pd.DataFrame(content["data"], columns=content.get("columns"))
    elif isinstance(content, dict) and not any(isinstance(values, list) for values in content.values()):
        frame = pd.DataFrame([content])
    else:
        frame = pd.DataFrame(content)
    for spec in specs:
        name, kind = spec.get("name"), spec.get("type")
        if name not in frame.columns:
            continue
        if kind == "datetime":
            frame[name] = pd.to_datetime(frame[name])
        elif kind in TYPES and (kind in ("float", "double") or not frame[name].isna().any()):
            frame[name] = frame[name].astype(TYPES[kind])
    return frame


# -- writing -------------------------------------------------------------------------------------


def write_mlflow(found: Found, folder: Path, trusted: Collection[str] = ()) -> Manifest:
    """Write the version `found` as an MLflow model in the new folder `folder`.

    The estimator is the exported one, as `model.pkl`; engines have no place there. `trusted` are names beyond the
    allow-list that its file may use.

    Raises:
        DataUnusable: `folder` is there already.
        ArtefactError: the version is damaged, or its file names other code.
    """
    yaml = _yaml()
    manifest = read_manifest(found.path, found.name, found.version)
    file = required_model_file(manifest)
    estimator = open_estimator(file, read_file(found.path, manifest, file), trusted)
    pickled = pickle.dumps(estimator)
    columns = json.loads(read_file(found.path, manifest, GOLDEN))["request"]["columns"]
    example, info = _example_of(columns, manifest.signature)
    files = {
        PICKLE: pickled,
        EXAMPLE: _json(example),
        SERVING_EXAMPLE: _json({"dataframe_split" if "pandas_orient" in info else "inputs": example}),
        REQUIREMENTS: "".join(f"{line}\n" for line in _requirements(manifest, global_names(pickled))).encode(),
        PYTHON_ENV: yaml.safe_dump({"python": manifest.python, "dependencies": [f"-r {REQUIREMENTS}"]}).encode(),
        MLMODEL: yaml.safe_dump(_mlmodel(manifest, info), sort_keys=False).encode(),
    }
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise DataUnusable(f"{str(folder)!r} is there already; name a new folder") from None
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return manifest


def _mlmodel(manifest: Manifest, example: Mapping[str, Any]) -> dict[str, Any]:
    sklearn = {
        "pickled_model": PICKLE,
        "serialization_format": "pickle",
        "sklearn_version": manifest.libraries.get("scikit-learn"),
        "code": None,
    }
    flavors: dict[str, Any] = {"sklearn": sklearn}
    if "predict" in manifest.signature.output_names:  # all that MLflow's scoring server can ask
        flavors["python_function"] = {
            "loader_module": "mlflow.sklearn",
            "model_path": PICKLE,
            "predict_fn": "predict",
            "python_version": manifest.python,
            "env": {"virtualenv": PYTHON_ENV},
        }
    signature = _mlflow_signature(manifest.signature)
    return {
        "flavors": flavors,
        "saved_input_example_info": {
            "artifact_path": EXAMPLE, "serving_input_path": SERVING_EXAMPLE, **example,
        },
        **({"signature": signature} if signature is not None else {}),
        "metadata": {"tandem": f"{manifest.name} {manifest.version}"},
    }  # fmt: skip


def _requirements(manifest: Manifest, names: Iterable[str]) -> list[str]:
    """What `names`, the code that the model file names, needs, in the versions of the export."""
    used = {name.partition(".")[0] for name in names} | {"scikit-learn", "numpy", "pandas", "scipy"}
    return ["mlflow", *(f"{name}=={version}" for name, version in manifest.libraries.items() if name in used)]


def _example_of(columns: Mapping[str, list[Any]], signature: Signature) -> tuple[Any, dict[str, str]]:
    """Rows in the form that suits the estimator, and what that form is."""
    rows = [list(row) for row in zip(*columns.values(), strict=True)][:EXAMPLE_ROWS]
    if signature.container is Container.FRAME:
        return {"columns": list(columns), "data": rows}, {"type": "dataframe", "pandas_orient": "split"}
    if signature.container is Container.SERIES:
        return [value for (value,) in rows], {"type": "ndarray"}
    return rows, {"type": "ndarray"}


def _mlflow_signature(signature: Signature) -> dict[str, Any] | None:
    """The inputs and the answer to `predict` in MLflow's terms; None where it has no type for a column."""
    if signature.container is Container.FRAME:
        types = {column.name: _type(column) for column in signature.columns}
        if None in types.values():
            return None
        # MLflow takes missing values either way, and would not fill in a column that is absent.
        inputs = [{"name": name, "type": kind, "required": True} for name, kind in types.items()]
    else:
        dtype = "object" if signature.matrix_dtype is None else str(signature.matrix_dtype)
        shape = [-1] if signature.container is Container.SERIES else [-1, len(signature.columns)]
        inputs = [_tensor(dtype, shape)]
    answer = signature.output("predict") if "predict" in signature.output_names else None
    outputs = [] if answer is None else [_tensor(_numpy_name(answer), [-1, *answer.shape])]
    return {"inputs": json.dumps(inputs), **({"outputs": json.dumps(outputs)} if outputs else {})}


def _type(column: Column) -> str | None:
    return None if column.timezone else OF_COLUMNS.get(column.dtype)


def _tensor(dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}


def _numpy_name(output: Output) -> str:
    """The dtype of an output as numpy has it."""
    return {"string": "str", "bytes": "bytes", "datetime": "datetime64"}.get(output.dtype, output.dtype)


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=1).encode()


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise DataUnusable("MLflow's folders are described in YAML: pip install 'tandem-serving[train]'") from None
    return yaml
