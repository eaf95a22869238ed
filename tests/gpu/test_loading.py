"""From export to an answer of cuML: what no export could prove is proven by the service that has the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from service.core.rules import ModelRules
from service.core.table import Matrix
from service.hosting import OPENER
from service.loading.elsewhere import Elsewhere
from service.loading.loader import Loader
from service.repository.sources import Folder
from service.runtimes.device_process import DeviceProcess
from service.runtimes.remote import DeviceClient
from training.export import export

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

_START_S = 120.0
_X = np.random.RandomState(0).normal(size=(300, 4))
_TEXTS = np.where(_X[:, 0] + _X[:, 1] > 0, "yes", "no").astype(object)
_AMOUNTS = _X @ [1.0, 2.0, 3.0, -1.0]


@pytest.fixture
def process(cuml_on_gpu: None) -> Iterator[DeviceProcess]:
    process = DeviceProcess(OPENER, device=0)
    process.start()
    assert process.wait_until_ready(_START_S), process.status.last_end
    yield process
    process.close()


@pytest.mark.parametrize(
    ("estimator", "y"),
    [
        pytest.param(make_pipeline(StandardScaler(), LogisticRegression()), _TEXTS, id="logistic regression"),
        pytest.param(SVC(), _TEXTS, id="svc"),
        pytest.param(KNeighborsClassifier(), _TEXTS, id="neighbours"),
        pytest.param(Ridge(), _AMOUNTS, id="ridge"),
    ],
)
def test_an_exported_model_is_answered_by_cuml(process: DeviceProcess, estimator: Any, y: Any, tmp_path: Path) -> None:
    export(estimator.fit(_X, y), _X, name="it", repository=tmp_path)
    rules = ModelRules(fidelity="close", pickle="lazy", engine="cuml")

    checked = Loader(elsewhere=Elsewhere(gpu=DeviceClient(process.path)), rules=lambda _: rules)(
        Folder(tmp_path).scan().versions["it"][1]
    )

    assert [drop for drop in checked.dropped if drop.name == "cuml"] == []
    answers = checked.engine.run(Matrix(_X.copy()), ("predict",))["predict"]
    assert isinstance(answers, np.ndarray)
    if y.dtype.kind == "f":
        np.testing.assert_allclose(answers, estimator.predict(_X), rtol=1e-5)
    else:
        assert np.array_equal(answers, estimator.predict(_X))
    checked.close()
