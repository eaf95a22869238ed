"""Models whose outputs are all compiled are served without opening the model file, and without scikit-learn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from training.export import export

# Whoever opens a pickle, or as much as imports scikit-learn, dies with what it was about to do.
_SERVE: Final = """
import pickle, sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sklearn", "joblib", "pandas"):
            raise AssertionError(f"{name} was imported")

def refuse(*arguments, **named):
    raise AssertionError("a pickle was opened")

sys.meta_path.insert(0, Refuse())
from service.repository import opener
pickle.Unpickler = pickle._Unpickler = pickle.load = pickle.loads = refuse
opener._Opener.__init__ = refuse

import time
from concurrent.futures import Future
from pathlib import Path
from service.assembly import Tandem
from service.protocols.http import HttpRequest
from service.protocols.routes import by_path
from service.observability.logs import configure_logs
from service.settings import Settings

configure_logs("json", "info")
if "--touch" in sys.argv:
    opener.open_model(Path(sys.argv[1], "numbers", "1", "model.joblib").read_bytes())

tandem = Tandem(Settings(models=sys.argv[1], pickle=sys.argv[2]))
tandem.start()
while not tandem.server.is_ready():
    time.sleep(0.01)
for model in tandem.server.models():
    assert model.state == "live", model
    about = tandem.server.describe(model.name)
    example = {served.model: served.example for served in tandem.server.served()}[model.name]
    import orjson
    http = HttpRequest(
        "POST", "/", {"name": model.name}, {"outputs": ",".join(o["name"] for o in about["signature"]["outputs"])},
        {"content-type": "application/json"}, orjson.dumps(example), "id",
    )
    reply = tandem.api.answer(by_path()["/models/{name}/predict"], http)
    reply = reply.result(60) if isinstance(reply, Future) else reply
    assert reply.status == 200, reply.body
    print(model.name, reply.body.decode())
tandem.stop()
print("touched", sorted({name.partition(".")[0] for name in sys.modules} & {"sklearn", "joblib", "pandas"}))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    random = np.random.RandomState(0)
    numbers = random.normal(size=(80, 5))
    kinds = np.where(numbers[:, 0] > 0, "yes", "no")
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    export(scaled.fit(numbers, kinds), numbers, name="numbers", repository=root)
    forest = RandomForestClassifier(10, random_state=0)
    export(forest.fit(numbers, kinds), numbers, name="forest", repository=root)
    people = pd.DataFrame({"age": numbers[:, 0], "city": random.choice(["Graz", "Linz", "Wien"], 80)}).astype(
        {"city": object}
    )
    people.loc[::7, "age"] = np.nan
    mixed = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            (OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ),
        LogisticRegression(),
    )
    export(mixed.fit(people, kinds), people, name="people", repository=root)
    return root


def _serve(models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _SERVE, str(models), *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("pickle", ["lazy", "never"])
def test_compiled_models_answer_without_a_pickle_and_without_scikit_learn(models: Path, pickle: str) -> None:
    done = _serve(models, pickle)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["forest", "numbers", "people", "touched"]
    assert lines[-1] == "touched []"


def test_the_test_would_notice_an_opened_model_file(models: Path) -> None:
    done = _serve(models, "lazy", "--touch")

    assert done.returncode != 0
    assert "a pickle was opened" in done.stderr


def test_the_test_would_notice_a_load_of_the_estimator(models: Path) -> None:
    done = _serve(models, "always")

    assert done.returncode != 0
