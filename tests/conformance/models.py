"""The models that the corpus of requests is written for: one of each kind that the service serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from service.repository.labels import promote
from training.export import export

ROWS = 60
TEXTS = ["great fun", "bad food", "great food", "awful", "fun fun fun", "bad bad"] * 10


def export_models(repository: Path) -> None:
    """Every model of the corpus. The same bytes on every call, but for dates."""
    random = np.random.RandomState(0)
    numbers = random.normal(size=(ROWS, 4))
    kinds = np.digitize(numbers[:, 0] + numbers[:, 1], [-0.5, 0.5])
    amounts = numbers @ [1.0, -2.0, 0.5, 0.0] + 3.0
    classifier = LogisticRegression()

    export(classifier.fit(numbers, kinds), numbers, name="numbers", repository=repository)
    narrow = pd.DataFrame(numbers, columns=["a", "b", "c", "d"]).astype("float32")
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(narrow, kinds)
    export(forest, narrow, name="forest", repository=repository)
    people = mixed_table()
    export(mixed_pipeline(people), people, name="people", repository=repository)
    export(LinearRegression().fit(numbers, amounts), numbers, name="amounts", repository=repository)
    two_kinds = np.column_stack([kinds, np.where(amounts > 3, "much", "little")]).astype(object)
    export(MultiOutputClassifier(classifier).fit(numbers, two_kinds), numbers, name="two-kinds", repository=repository)
    both = np.column_stack([amounts, -amounts])
    export(LinearRegression().fit(numbers, both), numbers, name="two-amounts", repository=repository)
    colours = pd.DataFrame({"colour": ["red", "green", "blue"] * 4, "size": ["S", "M", "L", "M"] * 3})
    export(OneHotEncoder(handle_unknown="ignore").fit(colours), colours, name="one-hot", repository=repository)
    export(StandardScaler().fit(numbers), numbers, name="scaled", repository=repository)
    export(
        IsolationForest(n_estimators=5, random_state=0).fit(numbers), numbers, name="outliers", repository=repository
    )
    opinions = make_pipeline(TfidfVectorizer(), LogisticRegression())
    opinions.fit(TEXTS, ["good" if "great" in text or "fun" in text else "bad" for text in TEXTS])
    export(opinions, TEXTS, name="opinions", repository=repository)
    # Pure leaves: the logarithm of a probability of zero is -inf, which JSON lacks.
    export(DecisionTreeClassifier(random_state=0).fit(numbers, kinds), numbers, name="certain", repository=repository)
    odd = pd.DataFrame({"größe": numbers[:, 0], "日本": numbers[:, 1], 'a "b"\\c': numbers[:, 2], " ": numbers[:, 3]})
    export(LinearRegression().fit(odd, amounts), odd, name="odd.names_1", repository=repository)
    words = pd.DataFrame({"instances": numbers[:, 0], "columns": numbers[:, 1], "outputs": numbers[:, 2]})
    export(LinearRegression().fit(words, amounts), words, name="words", repository=repository)
    counts = (numbers * 10).astype("int8")
    export(FunctionTransformer(validate=True).fit(counts), counts, name="counts", repository=repository)
    for version in (1, 2, 3):
        estimator = LinearRegression().fit(numbers[:, :2] * version, amounts)
        export(estimator, numbers[:, :2], name="versions", repository=repository, version=version)
    promote(repository, "versions", 2)
    promote(repository, "versions", 3, "candidate")
    promote(repository, "versions", 1, "old")


def export_documented(repository: Path) -> None:
    """The models of TensorFlow Serving's documentation."""
    x = pd.DataFrame({"x": np.arange(8.0)})
    for name, constant in (("half_plus_two", 2), ("half_plus_three", 3)):
        line = LinearRegression().fit(x, x["x"])
        line.coef_, line.intercept_ = np.array([0.5]), float(constant)  # exactly, which fitting is not
        export(line, x, name=name, repository=repository)


def mixed_table() -> pd.DataFrame:
    """A column of each kind, most of them with holes."""
    random = np.random.RandomState(1)
    age = random.randint(18, 80, ROWS).astype(float)
    age[::7] = np.nan
    city = pd.Series(random.choice(["Graz", "Linz", "Wien"], ROWS), dtype=object)
    city[::9] = None
    return pd.DataFrame(
        {
            "age": age,
            "city": city,
            "plan": pd.Categorical(random.choice(["free", "pro"], ROWS), categories=["free", "pro", "team"]),
            "member": random.rand(ROWS) > 0.5,
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(random.randint(0, 900, ROWS), unit="D"),
            "visits": random.randint(0, 50, ROWS),
        }
    )


def mixed_pipeline(people: pd.DataFrame) -> object:
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "visits"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city", "plan", "member"]),
        (FunctionTransformer(days, feature_names_out="one-to-one"), ["since"]),
    )
    answers = np.where(people["visits"] > 25, "stays", "leaves")
    return make_pipeline(columns, LogisticRegression()).fit(people, answers)


def days(table: pd.DataFrame) -> pd.DataFrame:
    """Dates as days since 2024. Not on the allow-list: whoever serves it must trust it."""
    return (table - pd.Timestamp("2024-01-01")) / pd.Timedelta(days=365)
