"""Which names may a model file use without anybody's say-so? Exact names, never prefixes.

Trusted packages are full of dangerous callables: `numpy.memmap` opens files, `joblib.Memory`
writes them, `pandas.read_pickle` unpickles, `sklearn.datasets` fetches. So every name is listed:
scikit-learn's in `sklearn_names.txt` (written by `tests/tools/generate_sklearn_names.py`), the
rest below, each judged by what a file can do by calling it with arguments of its choice.

Left out on purpose, though some models need them:
    functools.partial, operator.*, builtins.getattr   they turn a name into a call of another name
                                                       (a partial over `check_array` is told apart)
    scipy.stats distributions                          `__setstate__` runs `exec` on the state
    pandas.DataFrame and Series                        data, which a fitted model has no need to hold
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib.resources import files
from typing import Final

from service.core.artefact_errors import EstimatorUnusable


def _names(prefix: str, names: str) -> frozenset[str]:
    return frozenset(f"{prefix}.{name}" for name in names.split())


_PYTHON = (
    _names(
        "builtins",
        "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    )
    | _names("collections", "OrderedDict defaultdict")
    | _names("datetime", "date datetime time timedelta timezone")
    | {"copyreg._reconstructor"}
)

# The first group rebuilds arrays and generators. The second is what parameters hold: dtypes,
# and functions for FunctionTransformer, TransformedTargetRegressor and pooling.
_NUMPY = (
    _names("numpy._core.multiarray", "_reconstruct scalar")
    | _names("numpy._core.numeric", "_frombuffer")
    | _names("numpy.ma", "MaskedArray core.MaskedArray core._mareconstruct")
    | _names("numpy", "ndarray matrix memmap")
    | _names("numpy.random._pickle", "__bit_generator_ctor __generator_ctor __randomstate_ctor")
    | _names("numpy.random", "_mt19937.MT19937 _pcg64.PCG64 _pcg64.PCG64DXSM _philox.Philox _sfc64.SFC64")
    | _names("numpy.random.bit_generator", "SeedSequence __pyx_unpickle_SeedSequence")
    | _names(
        "numpy",
        "bool bool_ int8 int16 int32 int64 intc intp uint8 uint16 uint32 uint64 float16 float32"
        " float64 longdouble complex64 complex128 object_ str_ datetime64 timedelta64 number integer"
        " floating generic",
    )
    | _names(
        "numpy",
        "abs absolute add arccos arccosh arcsin arcsinh arctan arctan2 arctanh asarray array cbrt"
        " ceil clip conjugate cos cosh cumsum cumprod deg2rad degrees diff divide exp exp2 expm1 fabs"
        " float_power floor fmax fmin hypot identity isfinite isinf isnan log log10 log1p log2"
        " logaddexp logical_not max amax maximum mean median min amin minimum mod multiply nan_to_num"
        " nanmax nanmean nanmedian nanmin nanstd nansum nanvar negative percentile positive power prod"
        " ptp quantile rad2deg radians ravel reciprocal remainder rint round sign sin sinh sqrt square"
        " std subtract sum tan tanh trunc var",
    )
    | {"numpy.linalg.norm"}
)

_SCIPY = (
    frozenset(
        f"scipy.sparse._{layout}.{layout}_{kind}"
        for layout in ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
        for kind in ("array", "matrix")
    )
    | _names("scipy.interpolate", "_bsplines.BSpline _bsplines._BSpline _cubic.PchipInterpolator")
    | _names("scipy.special._ufuncs", "boxcox boxcox1p expit inv_boxcox inv_boxcox1p logit")
    | _names("scipy.special._special_ufuncs", "expit logit")
    | {"scipy._lib.array_api_compat.numpy._aliases.asarray"}  # kept by BSpline
)

# Column names and category lists; pandas 3 keeps strings in Arrow arrays.
_PANDAS = (
    _names(
        "pandas",
        "Categorical CategoricalDtype CategoricalIndex Index MultiIndex NA RangeIndex StringDtype",
    )
    | _names("pandas", "BooleanDtype Float32Dtype Float64Dtype")
    | _names(
        "pandas",
        "Int8Dtype Int16Dtype Int32Dtype Int64Dtype UInt8Dtype UInt16Dtype UInt32Dtype UInt64Dtype",
    )
    | _names("pandas.core.indexes", "base.Index base._new_Index multi.MultiIndex range.RangeIndex")
    | _names("pandas.core.indexes.category", "CategoricalIndex")
    | _names("pandas.core.arrays", "categorical.Categorical string_.StringArray string_.StringDtype")
    | _names("pandas.core.dtypes.dtypes", "CategoricalDtype")
    | _names("pandas.arrays", "ArrowStringArray StringArray")
    | _names("pandas._libs", "arrays.__pyx_unpickle_NDArrayBacked missing.NA")
    | _names("pandas._libs.tslibs", "nattype._nat_unpickle timestamps._unpickle_timestamp")
    | _names("pyarrow.lib", "_restore_array py_buffer type_for_alias")
)

_BOOSTERS = (
    _names("xgboost.core", "Booster")
    | _names("xgboost.sklearn", "XGBClassifier XGBRegressor XGBRanker XGBRFClassifier XGBRFRegressor")
    | _names("lightgbm.basic", "Booster")
    | _names("lightgbm.sklearn", "LGBMClassifier LGBMRegressor LGBMRanker")
)

_SKLEARN = frozenset(files(__package__).joinpath("sklearn_names.txt").read_text("utf-8").split())

ALLOWED: Final = _PYTHON | _NUMPY | _SCIPY | _PANDAS | _BOOSTERS | _SKLEARN


def refused_names(names: Iterable[str], trusted: Collection[str], *, allowed: Collection[str] = ALLOWED) -> list[str]:
    """The `names` that are neither allowed nor trusted, sorted.

    `trusted` holds exact names and "package.*", which stands for the package and all below it.
    A wildcard does not reach through a name into its attributes ("package.module:os.system").

    Raises:
        ValueError: an entry is "*", or has a "*" elsewhere than at the end after a dot.
    """
    exact = {entry for entry in trusted if "*" not in entry}
    prefixes = tuple(_prefix(entry) for entry in trusted if "*" in entry)
    return sorted(
        name
        for name in set(names)
        if name not in allowed and name not in exact and (":" in name or not name.startswith(prefixes))
    )


def check_importable(names: Iterable[str]) -> None:
    """Raises EstimatorUnusable where one of `names` is of a script or notebook, which no server can import."""
    if homeless := [name for name in names if name.startswith(("__main__.", "__main__:"))]:
        raise EstimatorUnusable(
            f"the model uses {', '.join(homeless)}, defined in a script or notebook; "
            "move it to a module that the server can import"
        )


def _prefix(entry: str) -> str:
    package = entry.removesuffix(".*")
    if not package or "*" in package:
        raise ValueError(f"cannot trust {entry!r}; write 'package.module.Name' or 'package.*'")
    return f"{package}."
