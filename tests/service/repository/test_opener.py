from __future__ import annotations

import functools
import io
import pickle
import sys
import tracemalloc
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, special
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import FeatureAgglomeration
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.feature_extraction.text import TfidfVectorizer, strip_accents_unicode
from sklearn.feature_selection import SelectKBest, chi2, f_classif, mutual_info_classif
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    Matern,
    RationalQuadratic,
    WhiteKernel,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.validation import check_array, check_is_fitted

from service.core.artefact_errors import (
    ArtefactError,
    EstimatorUnusable,
    ModelFileUnreadable,
    UntrustedNames,
)
from service.repository.joblib_file import decompressed
from service.repository.opener import _Opener, needed_trust, open_model
from tests.estimators import ANSWERS, LEFT_OUT, answering_estimators, fitted_estimators
from tests.faults.cases import fault
from tests.service.repository.attacks import (
    COMPRESSIONS,
    Command,
    array_file,
    attacks,
    called,
    dumped,
    model,
    registered_extension,
    stack_global,
    text,
    unreadable,
)

_CANARY = "canary"
_X = np.random.RandomState(0).uniform(0.1, 2.0, size=(40, 4))
_Y = np.arange(40) % 3
_TABLE = pd.DataFrame(
    {
        "colour": ["red", "green", None, "blue"] * 10,
        "size": pd.Categorical(["s", "m", "l", "m"] * 10),
        "old": np.array(["u", 1, 2.5, None] * 10, dtype=object),
        "weight": _X[:, 0],
        "count": pd.array([1, 2, None, 4] * 10, dtype="Int64"),
    }
)


# What must open


@pytest.mark.filterwarnings("ignore")
def test_every_estimator_opens_with_nothing_trusted_and_answers_alike() -> None:
    opened = []
    for name, estimator, X in fitted_estimators():
        twin = open_model(dumped(estimator))
        answer = next(method for method in ANSWERS if hasattr(estimator, method))
        assert type(twin) is type(estimator), name
        assert _same(getattr(twin, answer)(X), getattr(estimator, answer)(X)), name
        opened.append(name)

    assert [*opened, *LEFT_OUT] == [name for name, _ in answering_estimators()]


@pytest.mark.parametrize(
    "kind",
    ["xgboost.XGBClassifier", "xgboost.XGBRegressor", "lightgbm.LGBMClassifier", "lightgbm.LGBMRegressor"],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_booster_opens_with_nothing_trusted(kind: str, protocol: int) -> None:
    package, _, name = kind.partition(".")
    booster = getattr(pytest.importorskip(package), name)(n_estimators=3, n_jobs=1, random_state=0)
    booster.set_params(**({"verbosity": -1, "min_child_samples": 2} if package == "lightgbm" else {}))
    booster.fit(_X, _Y)

    twin = open_model(dumped(booster, protocol=protocol))

    assert _same(twin.predict(_X), booster.predict(_X))


_ESTIMATORS: dict[str, Any] = {
    "numpy function": make_pipeline(FunctionTransformer(np.log1p), Ridge()),
    "other numpy function": FunctionTransformer(np.sqrt, inverse_func=np.square),
    "scipy function": FunctionTransformer(special.expit),
    "identity": FunctionTransformer(),
    "log target": TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    "pooling function": FeatureAgglomeration(pooling_func=np.median),
    "grid search": GridSearchCV(LogisticRegression(), {"C": [0.5, 1.0]}, scoring="f1_macro", cv=2),
    "grid of ranges": GridSearchCV(KNeighborsClassifier(), {"n_neighbors": range(1, 3)}, cv=2),
    "two scorers": GridSearchCV(SVC(), {"C": [1]}, scoring=["accuracy", "f1_macro"], refit="accuracy", cv=2),
    "own scorer": GridSearchCV(
        SVC(), {"C": [1]}, scoring=make_scorer(f1_score, average="macro"), cv=RepeatedStratifiedKFold()
    ),
    "f_classif": SelectKBest(f_classif, k=2),
    "chi2": SelectKBest(chi2, k=2),
    "mutual information": SelectKBest(mutual_info_classif, k=2),
    "composed kernels": GaussianProcessRegressor(
        ConstantKernel() * RBF([1.0] * 4) + WhiteKernel() + Matern(nu=1.5) * RationalQuadratic(),
        alpha=0.1,
        optimizer=None,
    ),
    "sigmoid calibration": CalibratedClassifierCV(SVC(), cv=2),
    "isotonic calibration": CalibratedClassifierCV(SVC(), method="isotonic", cv=2),
    "temperature": CalibratedClassifierCV(LogisticRegression(), method="temperature", cv=2),
    "random state": RandomForestClassifier(n_estimators=3, random_state=np.random.RandomState(1)),
    "early stopping": HistGradientBoostingClassifier(max_iter=3, early_stopping=True, random_state=0),
    "ball tree": KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"),
    "cosine": KNeighborsClassifier(algorithm="brute", metric="cosine"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _ESTIMATORS)
def test_estimator_with_functions_and_objects_for_parameters_opens(name: str) -> None:
    estimator = _ESTIMATORS[name].fit(_X, _Y)
    answer = "predict" if hasattr(estimator, "predict") else "transform"

    twin = open_model(dumped(estimator, compress=3))

    assert _same(getattr(twin, answer)(_X), getattr(estimator, answer)(_X))


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(["colour", "size", "old"], id="list"),
        pytest.param(_TABLE.columns[:3], id="index"),
        pytest.param(make_column_selector(dtype_exclude=np.number), id="selector"),
        pytest.param(slice(0, 3), id="slice"),
    ],
)
def test_pipeline_fitted_on_a_data_frame_opens(columns: Any) -> None:
    table = _TABLE.assign(old=_TABLE["old"].astype(str))
    estimator = make_pipeline(
        make_column_transformer(
            (
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
                columns,
            ),
            (StandardScaler(), ["weight"]),
        ),
        LogisticRegression(),
    ).fit(table, _Y)

    twin = open_model(dumped(estimator))

    assert _same(twin.predict_proba(table), estimator.predict_proba(table))
    assert list(twin.feature_names_in_) == list(table.columns)


def test_encoder_of_mixed_objects_and_text_opens() -> None:
    estimator = OrdinalEncoder().fit(_TABLE[["colour", "size"]])
    words = TfidfVectorizer(preprocessor=strip_accents_unicode, stop_words=["a", "the"]).fit(["a bird", "the été"])

    twin, same_words = open_model(dumped([estimator, words]))

    assert str(twin.categories_) == str(estimator.categories_)
    assert same_words.vocabulary_ == words.vocabulary_


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.PCG64, np.random.Philox, np.random.SFC64])
def test_random_generator_opens_where_it_stood(kind: Any) -> None:
    generator = np.random.Generator(kind(7))
    generator.normal(size=3)

    twin = open_model(dumped(generator))

    assert twin.normal() == generator.normal()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(6.0).reshape(2, 3), id="C order"),
        pytest.param(np.asfortranarray(np.arange(6.0).reshape(2, 3)), id="Fortran order"),
        pytest.param(np.arange(3, dtype=">i4"), id="other byte order"),
        pytest.param(np.empty((0, 3)), id="no rows"),
        pytest.param(np.array(1.5), id="no dimensions"),
        pytest.param(np.array(["a", "bcd"]), id="text"),
        pytest.param(np.array(["2020-01-01"], dtype="datetime64[D]"), id="dates"),
        pytest.param(np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), id="fields"),
        pytest.param(np.array([(1, 2.0)], dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)), id="aligned"),
        pytest.param(np.array(["a", 1, None, (1, 2)], dtype=object), id="objects"),
        pytest.param(np.array([np.arange(2), np.arange(3.0)], dtype=object), id="arrays in objects"),
    ],
)
def test_array_opens_as_joblib_opens_it(array: np.ndarray[Any, Any], protocol: int) -> None:
    data = dumped(array, protocol=protocol)

    ours, theirs = open_model(data), joblib.load(io.BytesIO(data))

    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert ours.flags.writeable
    assert ours.flags.f_contiguous == theirs.flags.f_contiguous
    assert str(ours.tolist()) == str(theirs.tolist())


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, sparse.dok_matrix])
@pytest.mark.parametrize("protocol", [1, 4])
def test_sparse_matrix_opens(kind: Any, protocol: int) -> None:
    twin = open_model(dumped(kind(np.eye(3)), protocol=protocol))

    assert type(twin) is kind
    assert (twin.toarray() == np.eye(3)).all()


def test_shared_objects_stay_shared() -> None:
    shared = model()

    first, second = open_model(dumped([shared, shared]))

    assert first is second


# What must not open


@fault(
    "M07",
    sent="a forbidden global wherever pickles and joblib's layout can hide it",
    expected="refused before any side effect (canary file never appears)",
)
@pytest.mark.parametrize("name", attacks(_CANARY))
def test_foreign_code_is_refused_before_it_runs(name: str, tmp_path: Path) -> None:
    canary = tmp_path / _CANARY

    with pytest.raises(UntrustedNames) as refusal:
        open_model(attacks(str(canary))[name])

    assert refusal.value.names
    assert not canary.exists()


@fault("M07", sent="the same files past the dry run", expected="refused again while the file is opened")
@pytest.mark.parametrize("name", attacks(_CANARY))
def test_opening_without_the_dry_run_would_refuse_as_well(name: str, tmp_path: Path) -> None:
    canary = tmp_path / _CANARY
    opener = _Opener(io.BytesIO(decompressed(attacks(str(canary))[name])), ())

    with pytest.raises(UntrustedNames):
        opener.load_whole()

    assert not canary.exists()


@fault(
    "M08", "M09",
    sent="INST, OBJ, EXT, persistent ids, two pickles, trailing bytes, claims beyond the file, odd dtypes and shapes",
    expected="refused",
)  # fmt: skip
@pytest.mark.parametrize("name", unreadable(_CANARY))
def test_file_that_no_exporter_writes_is_refused(name: str, tmp_path: Path) -> None:
    canary = tmp_path / _CANARY

    with pytest.raises(ModelFileUnreadable):
        open_model(unreadable(str(canary))[name])

    assert not canary.exists()


@fault("M07", "M08", sent="object arrays under each compression and protocol", expected="refused, naming the global")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("how", COMPRESSIONS)
def test_foreign_code_in_an_object_array_is_refused_under_compression(how: str, protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / _CANARY
    data = dumped([model(), np.array([Command(str(canary))], dtype=object)], (how, 3), protocol)

    with pytest.raises(UntrustedNames, match=r"--trust posix\.system|--trust nt\.system"):
        open_model(data)

    assert not canary.exists()


def test_refusal_lists_every_name_and_comes_before_any_import() -> None:
    data = b"\x80\x04(cantigravity\ngeohash\ncthis\ns\ncnumpy\nfloat64\nl."

    with pytest.raises(UntrustedNames) as refusal:
        open_model(data)

    assert refusal.value.names == ("antigravity.geohash", "this.s")
    assert "antigravity" not in sys.modules


@fault("M08", sent="an extension code that somebody registered", expected="refused")
def test_registered_extension_is_refused() -> None:
    data = b"\x80\x02\x82\xf0X\x04\x00\x00\x00true\x85R."

    with registered_extension(0xF0), pytest.raises(ModelFileUnreadable, match="extension code"):
        open_model(data)


@fault("M07", "M08", sent="allowed names, called with arguments of the file's choice", expected="refused")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(called(stack_global("xgboost.core", "Booster"), b"N", b"N", text("x")), id="booster of a path"),
        pytest.param(
            called(stack_global("sklearn.feature_selection._mutual_info", "mutual_info_classif"), b"]", b"]"),
            id="function that may start processes",
        ),
        pytest.param(called(stack_global("numpy", "float64"), b"]"), id="dtype"),
        pytest.param(called(stack_global("numpy", "log1p"), b"]"), id="ufunc"),
        pytest.param(called(stack_global("numpy", "mean"), b"]"), id="numpy function"),
        pytest.param(called(stack_global("builtins", "list"), b"]"), id="plain type"),
        pytest.param(called(stack_global("builtins", "bytearray"), b"K\x08"), id="bytearray of a size"),
        pytest.param(called(stack_global("builtins", "bytes"), b"K\x08"), id="bytes of a size"),
        pytest.param(called(stack_global("builtins", "range"), b"J\x00\x00\x00\x7f"), id="long range"),
        pytest.param(called(stack_global("_codecs", "encode"), text("x"), text("idna")), id="other codec"),
        pytest.param(called(stack_global("numpy", "ndarray"), b"K\x01\x85", text("O"), b"C\x08abcdefgh"), id="ndarray"),
        pytest.param(
            called(stack_global("copyreg", "_reconstructor"), *[stack_global("numpy", "float64")] * 2, b"]"),
            id="another base",
        ),
        pytest.param(called(stack_global("numpy", "dtype"), text("T")), id="dtype of pointers"),
        pytest.param(stack_global("sklearn.metrics._regression", "r2_score") + b"}b", id="state of a function"),
    ],
)
def test_allowed_name_has_no_more_power_than_models_need(body: bytes) -> None:
    pytest.importorskip("xgboost")

    with pytest.raises(ModelFileUnreadable):
        open_model(b"\x80\x04" + body + b".")


def test_reconstruct_makes_nothing_but_an_empty_array() -> None:
    reconstruct = stack_global("numpy._core.multiarray", "_reconstruct")
    body = called(reconstruct, stack_global("numpy", "ndarray"), b"J\x00\x00\x00\x7f")

    assert open_model(b"\x80\x04" + body + b".").shape == (0,)


def test_state_that_does_not_fit_is_unreadable() -> None:
    body = stack_global("sklearn.preprocessing._data", "StandardScaler") + b")\x81K\x01b"

    with pytest.raises(ModelFileUnreadable, match="cannot be rebuilt"):
        open_model(b"\x80\x04" + body + b".")


def test_file_cut_anywhere_is_unreadable() -> None:
    data = dumped([model(), np.arange(50.0), np.array(["a", None], dtype=object)])

    for fiftieth in range(50):
        with pytest.raises(ModelFileUnreadable):
            open_model(data[: len(data) * fiftieth // 50])


@fault("M09", sent="a file of some 300 bytes that claims a 4 GB array", expected="refused, in less than 1 MiB")
def test_huge_claim_takes_no_memory() -> None:
    tracemalloc.start()

    with pytest.raises(ModelFileUnreadable, match="claims 4294967296 bytes"):
        open_model(array_file((2**29,)))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@fault("M09", sent="a zlib bomb", expected="refused")
def test_bomb_is_refused() -> None:
    with pytest.raises(ModelFileUnreadable, match="more than 65536 bytes"):
        open_model(dumped(bytes(1 << 20), compress=3), max_bytes=1 << 16)


# Trust, and what is missing


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the user, `shop.models`, that also imports something dangerous."""
    source = "from os import system\nclass Model:\n    class Part: ...\ndef rebuild(*args): return Model()\n"
    package, module = ModuleType("shop"), ModuleType("shop.models")
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "shop", package)
    monkeypatch.setitem(sys.modules, "shop.models", module)
    return module


@pytest.mark.parametrize("trusted", ["shop.models.Model", "shop.models.*", "shop.*"])
def test_trusted_class_opens(shop: ModuleType, trusted: str) -> None:
    data = pickle.dumps(shop.Model())

    assert needed_trust(data) == ["shop.models.Model"]
    assert type(open_model(data, trusted=(trusted,))) is shop.Model


def test_trusted_name_with_dots_opens_only_when_named_exactly(shop: ModuleType) -> None:
    data = pickle.dumps(shop.Model.Part())

    assert type(open_model(data, trusted=("shop.models:Model.Part",))) is shop.Model.Part
    with pytest.raises(UntrustedNames):
        open_model(data, trusted=("shop.*",))


@fault("M07", sent="a global that a trusted package imported from elsewhere", expected="refused")
def test_trusting_a_package_is_not_trusting_what_it_imports(shop: ModuleType, tmp_path: Path) -> None:
    canary = tmp_path / _CANARY
    body = called(stack_global("shop.models", "system"), text(f"touch {canary}"))

    with pytest.raises(UntrustedNames):
        open_model(b"\x80\x04" + body + b".", trusted=("shop.*",))

    assert not canary.exists()


@fault("M14", sent="a trusted class whose module is not installed", expected="refused, naming the module")
def test_missing_module_is_named() -> None:
    with pytest.raises(ArtefactError, match="needs the module 'ghost', not installed here"):
        open_model(b"cghost.models\nModel\n.", trusted=("ghost.*",))


def test_class_that_is_gone_is_named() -> None:
    with pytest.raises(ArtefactError, match=r"needs 'Gone' of the module 'sklearn\.base'"):
        open_model(b"csklearn.base\nGone\n.", trusted=("sklearn.base.Gone",))


def test_class_of_a_notebook_is_refused_at_export() -> None:
    with pytest.raises(EstimatorUnusable, match=r"__main__\.Model, defined in a script or notebook"):
        needed_trust(b"\x80\x04(c__main__\nModel\ncshop.models\nModel\nl.")


def test_ordinary_model_needs_no_trust() -> None:
    assert needed_trust(dumped(model(), compress=3)) == []


@pytest.mark.parametrize("action", ["always", "error"])
def test_warning_of_another_version_reaches_the_caller(action: Any) -> None:
    import sklearn

    data = dumped(model()).replace(sklearn.__version__.encode(), b"0" * len(sklearn.__version__))

    if action == "error":
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InconsistentVersionWarning):
                open_model(data)
    else:
        with pytest.warns(InconsistentVersionWarning):
            check_is_fitted(open_model(data))


def _same(ours: Any, theirs: Any) -> bool:
    ours, theirs = (value.toarray() if sparse.issparse(value) else value for value in (ours, theirs))
    return bool(np.array_equal(np.asarray(ours), np.asarray(theirs)))


def test_boosting_on_pandas_categories_opens_with_nothing_trusted() -> None:
    frame = pd.DataFrame({"kind": pd.Categorical(list("abab") * 5), "size": np.arange(20.0)})
    booster = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(frame, [0, 1] * 10)

    opened = open_model(dumped(booster))

    np.testing.assert_array_equal(opened.predict_proba(frame), booster.predict_proba(frame))
    assert needed_trust(dumped(opened)) == []


def test_partial_over_another_function_needs_trust() -> None:
    file = dumped(FunctionTransformer(functools.partial(f1_score, average="macro")))

    assert needed_trust(file) == ["functools.partial"]
    with pytest.raises(UntrustedNames, match=r"--trust functools\.partial"):
        open_model(file)
    assert open_model(file, trusted=["functools.partial"]).func.func is f1_score


def test_partial_over_check_array_keeps_its_arguments() -> None:
    opened = open_model(dumped(FunctionTransformer(functools.partial(check_array, dtype=np.float32))))

    assert opened.transform(np.ones((2, 2))).dtype == np.float32


def test_partial_cannot_be_turned_to_another_function_after_it_was_made() -> None:
    body = called(stack_global("functools", "partial"), stack_global("sklearn.utils.validation", "check_array"))
    other = stack_global("sklearn.metrics._classification", "f1_score")
    state = pickle.MARK + other + pickle.EMPTY_TUPLE + pickle.EMPTY_DICT + pickle.NONE + pickle.TUPLE
    file = pickle.PROTO + b"\x04" + body + state + pickle.BUILD + pickle.STOP

    with pytest.raises(UntrustedNames, match=r"functools\.partial"):
        open_model(file)
    with pytest.raises(UntrustedNames, match=r"functools\.partial"):
        _Opener(io.BytesIO(file), ()).load_whole()
