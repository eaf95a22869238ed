from __future__ import annotations

import io
import json
import operator
import pickle
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import Birch
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, IsolationForest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, StandardScaler
from sklearn.svm import SVC

from service.core.artefact_errors import (
    ArtefactError,
    EstimatorUnusable,
    ModelFileUnreadable,
    UntrustedNames,
)
from service.repository.skops_file import dump_skops, needed_skops_trust, open_skops
from tests.faults.cases import fault

skops = pytest.importorskip("skops.io", reason="skops is an extra")

_X = np.random.RandomState(0).uniform(0.1, 2.0, size=(40, 4))
_Y = np.arange(40) % 3
# One of each kind of state; of all 191 of scikit-learn 1.9, skops 0.16 has no form for Birch alone.
_ESTIMATORS: Final = (
    CalibratedClassifierCV(SVC(), cv=2),
    GaussianProcessRegressor(RBF() + WhiteKernel(), optimizer=None),
    GradientBoostingClassifier(n_estimators=2, random_state=0),
    HistGradientBoostingClassifier(max_iter=2, random_state=0),
    IsolationForest(n_estimators=2, random_state=0),
    IterativeImputer(max_iter=1),
    KBinsDiscretizer(n_bins=2, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    KNeighborsClassifier(algorithm="kd_tree"),
    MLPClassifier((3,), max_iter=2, random_state=0),
    SGDClassifier(random_state=0),
)


class Doubler(BaseEstimator):
    """Ours, and so on no allow-list."""

    def fit(self, X: Any, y: Any = None) -> Doubler:
        self.n_features_in_ = X.shape[1]
        return self


def _model() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(_X, _Y)


def _changed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The file with another document."""
    members = _members(data)
    document = json.loads(members["schema.json"])
    change(document)
    return _archive({**members, "schema.json": json.dumps(document).encode()})


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _node(loader: str, name: str, **more: Any) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": kind, **more}


def _json(value: Any) -> dict[str, Any]:
    return _node("JsonNode", "builtins.str", content=json.dumps(value), is_json=True)


def _arguments(*values: dict[str, Any]) -> dict[str, Any]:
    return _node("TupleNode", "builtins.tuple", content=list(values))


def _document(node: dict[str, Any]) -> bytes:
    return _archive({"schema.json": json.dumps({**node, "protocol": 2, "_skops_version": "0.16"}).encode()})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", _ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_estimator_opens_with_nothing_trusted_and_answers_alike(estimator: Any) -> None:
    estimator.fit(_X, _Y)
    answer = "predict" if hasattr(estimator, "predict") else "transform"

    twin = open_skops(dump_skops(estimator))

    assert np.array_equal(getattr(twin, answer)(_X), getattr(estimator, answer)(_X))


def test_what_skops_has_no_form_for_is_said_with_the_way_out() -> None:
    with pytest.raises(ArtefactError, match=r"skops cannot write the estimator: .* use --format joblib"):
        dump_skops(Birch().fit(_X))


def test_other_types_are_named_until_the_operator_trusts_them() -> None:
    name = f"{__name__}.Doubler"
    data = dump_skops(Doubler().fit(_X))

    assert needed_skops_trust(data) == [name]
    with pytest.raises(UntrustedNames, match=rf"--trust {name}"):
        open_skops(data)
    assert isinstance(open_skops(data, trusted=[name]), Doubler)


def test_class_of_a_notebook_is_refused_at_export() -> None:
    with pytest.raises(EstimatorUnusable, match=r"__main__\.Model, defined in a script or notebook"):
        needed_skops_trust(_document(_node("ObjectNode", "__main__.Model")))


def test_text_and_sparse_matrices_open() -> None:
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["a bird", "the cat", "no bird"], [0, 1, 0])
    matrix = sparse.csr_matrix(np.eye(3))

    twin, same = open_skops(dump_skops([words, matrix]))

    assert np.array_equal(twin.predict_proba(["a cat"]), words.predict_proba(["a cat"]))
    assert (same.toarray() == matrix.toarray()).all()


@fault(
    "M10",
    sent="a skops file with functions, operators, methods, partials and classes that would be called, hidden or not",
    expected="refused by name before anything is made",
)
@pytest.mark.parametrize(
    ("node", "name"),
    [
        pytest.param(_node("FunctionNode", "os.system"), "os.system", id="function"),
        pytest.param(_node("TypeNode", "subprocess.Popen"), "subprocess.Popen", id="type"),
        pytest.param(_node("ObjectNode", "ghost.Model"), "ghost.Model", id="object of a module that is not there"),
        pytest.param(
            _node("OperatorFuncNode", "operator.methodcaller", attrs=_arguments(_json("x"))),
            "operator.methodcaller",
            id="operator",
        ),
        pytest.param(
            _node(
                "MethodNode",
                "sklearn.preprocessing._data.StandardScaler",
                content={"func": "fit", "obj": _node("ObjectNode", "sklearn.preprocessing._data.StandardScaler")},
            ),
            "sklearn.preprocessing._data.StandardScaler",
            id="method",
        ),
        pytest.param(
            _node(
                "PartialNode",
                "functools.partial",
                content={
                    "func": _node("FunctionNode", "os.system"),
                    "args": _arguments(_json("true")),
                    "kwds": _node("DictNode", "builtins.dict", content={}, key_types=_arguments()),
                    "namespace": _json(None),
                },
            ),
            "functools.partial",
            id="partial",
        ),
        pytest.param(
            _node("ConstructorFromReduceNode", "xgboost.core.Booster", content=_arguments(_json("a file"))),
            "xgboost.core.Booster",
            id="constructor that opens a file",
        ),
        pytest.param(
            _node("ListNode", "numpy.asarray", content=[_json("x")]), "numpy.asarray", id="function in place of list"
        ),
        pytest.param(
            _node(
                "DictNode",
                "builtins.dict",
                content={"1": _json(1)},
                key_types=_node("ListNode", "builtins.list", content=[_node("TypeNode", "lightgbm.basic.Booster")]),
            ),
            "lightgbm.basic.Booster",
            id="type of a key",
        ),
        pytest.param(
            _node("RandomStateNode", "lightgbm.basic.Booster", content=_json({})),
            "lightgbm.basic.Booster",
            id="class in place of a random state",
        ),
        pytest.param(
            {**_json(1), "unread": _node("OperatorFuncNode", "operator.attrgetter")},
            "operator.attrgetter",
            id="operator where nobody looks",
        ),
    ],
)  # fmt: skip
def test_what_would_be_called_must_be_trusted_by_name(node: dict[str, Any], name: str) -> None:
    before = set(sys.modules)

    with pytest.raises(UntrustedNames) as refusal:
        open_skops(_document(node))

    assert name in refusal.value.names
    assert set(sys.modules) - before == set()


@fault("M10", sent="a list of trusted types inside the file", expected="it counts for nothing")
def test_the_file_cannot_say_what_is_trusted() -> None:
    data = _changed(dump_skops(Doubler().fit(_X)), lambda document: document.update(trusted=[f"{__name__}.Doubler"]))

    with pytest.raises(UntrustedNames):
        open_skops(data)


def test_operator_is_used_where_it_was_trusted() -> None:
    data = dump_skops(FunctionTransformer(operator.itemgetter(0)))

    assert needed_skops_trust(data) == ["operator.itemgetter"]
    assert open_skops(data, trusted=["operator.itemgetter"]).func([7]) == 7


@fault(
    "M10",
    sent="a skops file with members called ../x, /x, x/y, twice the same, encrypted, or compressed by bzip2 or LZMA",
    expected="refused before anything is unpacked",
)
@pytest.mark.parametrize(
    "member", ["../evil.npy", "/etc/evil.npy", "a/b.npy", "a\\b.npy", "evil.py", "x" * 100 + ".npy"]
)
def test_member_of_another_name_is_refused(member: str) -> None:
    data = _archive({**_members(dump_skops(_model())), member: b"x"})

    with pytest.raises(ModelFileUnreadable, match="has a member called"):
        open_skops(data)


@fault("M10", sent="two members of one name", expected="refused")
def test_two_members_of_one_name_are_refused() -> None:
    file = io.BytesIO(dump_skops(_model()))
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("schema.json", "{}")

    with pytest.raises(ModelFileUnreadable, match="two members of one name"):
        open_skops(file.getvalue())


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(compression: int) -> None:
    with pytest.raises(ModelFileUnreadable, match="compressed by something else than deflate"):
        open_skops(_archive(_members(dump_skops(_model())), compression))


def test_deflated_file_opens() -> None:
    assert open_skops(_archive(_members(dump_skops(_model())), zipfile.ZIP_DEFLATED)).n_features_in_ == 4


def _npy(shape: tuple[int, ...], dtype: str = "<f8", content: bytes = bytes(64)) -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def _array_file(member: bytes) -> bytes:
    node = _node("NdArrayNode", "numpy.ndarray", type="numpy", file="a.npy")
    document = json.dumps({**node, "protocol": 2, "_skops_version": "0.16"}).encode()
    return _archive({"schema.json": document, "a.npy": member}, zipfile.ZIP_DEFLATED)


@fault(
    "M10", "M09",
    sent="a skops file of 300 bytes whose array claims 32 GB, zero-size values, negative sizes or objects",
    expected="refused before memory is taken",
)  # fmt: skip
@pytest.mark.parametrize(
    "member",
    [
        pytest.param(_npy((1 << 32,)), id="32 GB"),
        pytest.param(_npy((1 << 62, 8)), id="overflow"),
        pytest.param(_npy((1 << 40,), "|V0"), id="zero-size values"),
        pytest.param(_npy((-1,)), id="negative"),
        pytest.param(_npy((8,), "|O"), id="objects"),
        pytest.param(b"\x93NUMPY\x09\x00", id="unknown version"),
        pytest.param(b"", id="empty"),
        pytest.param(pickle.dumps(0), id="pickle"),
    ],
)
def test_array_that_its_bytes_do_not_hold_is_refused(member: bytes) -> None:
    tracemalloc.start()

    with pytest.raises(ModelFileUnreadable):
        open_skops(_array_file(member))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@fault("M10", sent="zip bombs: a member, and an archive in the archive", expected="refused by their sizes")
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_bomb_is_refused(name: str) -> None:
    inner = _npy((1 << 17,), content=bytes(1 << 20))
    content = inner if name == "a.npy" else _archive({"data.npy": inner}, zipfile.ZIP_DEFLATED)
    data = _archive({"schema.json": b"{}", name: content}, zipfile.ZIP_DEFLATED)

    with pytest.raises(ModelFileUnreadable, match="unpacks to more than 100000 bytes"):
        open_skops(data, max_bytes=100_000)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda document: document.update(protocol=99), id="protocol of the future"),
        pytest.param(lambda document: document.update(protocol="2"), id="protocol of text"),
        pytest.param(lambda document: document.update(__loader__="EvilNode"), id="unknown kind of node"),
        pytest.param(lambda document: document.update(__class__="a b"), id="odd name"),
    ],
)
def test_damaged_document_is_unreadable(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises((ModelFileUnreadable, UntrustedNames)):
        open_skops(_changed(dump_skops(_model()), change))


@pytest.mark.parametrize("document", [b"[" * 100_000, b"{}", b"[]", b"\xff", b"null"])
def test_document_that_is_none_is_unreadable(document: bytes) -> None:
    with pytest.raises(ModelFileUnreadable):
        open_skops(_archive({"schema.json": document}))


def test_file_cut_anywhere_is_unreadable() -> None:
    data = dump_skops(_model())

    for twentieth in range(20):
        with pytest.raises(ModelFileUnreadable):
            open_skops(data[: len(data) * twentieth // 20])


def test_without_skops_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dump_skops(_model())
    monkeypatch.setitem(sys.modules, "skops.io", None)

    with pytest.raises(ArtefactError, match=r"pip install 'tandem-serving\[skops\]'"):
        open_skops(data)
