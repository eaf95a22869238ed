from __future__ import annotations

import importlib
import warnings

import pytest

from service.core.artefact_errors import EstimatorUnusable
from service.repository.allowlist import ALLOWED, check_importable, refused_names
from tests.tools.generate_sklearn_names import TARGET, names


@pytest.mark.filterwarnings("ignore")
def test_committed_scikit_learn_names_are_what_the_generator_finds() -> None:
    committed = TARGET.read_text("utf-8").splitlines()

    assert committed == names()


@pytest.mark.parametrize(
    "name",
    [
        "builtins.__import__", "builtins.compile", "builtins.eval", "builtins.exec", "builtins.getattr",
        "builtins.open", "builtins.type", "codecs.open", "ctypes.CDLL", "functools.partial", "joblib.Memory",
        "joblib.load", "joblib.numpy_pickle.NDArrayWrapper", "numpy.fromfile", "numpy.lib._npyio_impl.load",
        "numpy.load", "numpy.save", "numpy.testing._private.utils.runstring", "operator.attrgetter",
        "operator.methodcaller", "os.system", "pandas.io.pickle.read_pickle", "pandas.read_pickle",
        "posix.system", "scipy.io._netcdf.netcdf_file", "scipy.stats._continuous_distns.loguniform_gen",
        "scipy.stats._distn_infrastructure.rv_continuous_frozen",
        "sklearn.base.clone", "sklearn.datasets._base.load_files", "sklearn.datasets._openml.fetch_openml",
        "sklearn.utils._testing.ignore_warnings", "subprocess.Popen", "sklearn", "sklearn.base", "",
    ],
)  # fmt: skip
def test_dangerous_name_is_refused(name: str) -> None:
    assert refused_names([name], ()) == [name]


def test_no_allowed_name_is_a_module_or_reaches_into_helpers_for_tests_and_downloads() -> None:
    forbidden = (".datasets.", ".externals.", ".tests.", "._testing.", ".estimator_checks.", ".conftest")

    assert not [name for name in ALLOWED if any(part in name for part in forbidden) or ":" in name]
    assert not [name for name in ALLOWED if name.count(".") == 0]


def test_every_scikit_learn_name_leads_to_something_callable() -> None:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for full in TARGET.read_text("utf-8").split():
            module, _, name = full.rpartition(".")
            found[full] = getattr(importlib.import_module(module), name)

    assert [name for name, value in found.items() if not callable(value)] == []


@pytest.mark.parametrize(
    ("name", "trusted", "refused"),
    [
        pytest.param("shop.model.Net", (), True, id="nobody trusts it"),
        pytest.param("shop.model.Net", ("shop.model.Net",), False, id="exact"),
        pytest.param("shop.model.Net", ("shop.model.Other",), True, id="another name"),
        pytest.param("shop.model.Net", ("shop.model",), True, id="a package is no name"),
        pytest.param("shop.model.Net", ("shop.*",), False, id="wildcard far above"),
        pytest.param("shop.model.Net", ("shop.model.*",), False, id="wildcard just above"),
        pytest.param("shopping.Net", ("shop.*",), True, id="same beginning"),
        pytest.param("shop.model:os.system", ("shop.*",), True, id="wildcard and attributes"),
        pytest.param("shop.model:Net.Inner", ("shop.model:Net.Inner",), False, id="exact inner"),
        pytest.param("sklearn.base:BaseEstimator.get_params", (), True, id="inside an allowed package"),
    ],
)
def test_name_is_refused_unless_allowed_or_trusted(name: str, trusted: tuple[str, ...], refused: bool) -> None:
    assert refused_names([name, "numpy.ndarray"], trusted) == ([name] if refused else [])


def test_refused_names_are_sorted_and_named_once() -> None:
    assert refused_names(["b.B", "a.A", "b.B"], ()) == ["a.A", "b.B"]


@pytest.mark.parametrize("entry", ["*", ".*", "shop*", "*.Net", "shop.*.Net", "shop.**"])
def test_wider_wildcard_is_not_accepted(entry: str) -> None:
    with pytest.raises(ValueError, match="cannot trust"):
        refused_names(["shop.model.Net"], (entry,))


def test_names_that_would_be_called_are_asked_of_the_operator_alone() -> None:
    called = ["sklearn.linear_model._base.LinearRegression", "shop.Model"]

    assert refused_names(called, ["shop.*"]) == []
    assert refused_names(called, ["shop.*"], allowed=()) == ["sklearn.linear_model._base.LinearRegression"]


def test_names_of_a_script_cannot_be_imported_by_a_server() -> None:
    check_importable(["shop.Model", "main__.Model"])

    with pytest.raises(EstimatorUnusable, match=r"__main__\.Model, __main__:Model\.Part, defined in a script"):
        check_importable(["__main__.Model", "shop.Model", "__main__:Model.Part"])
