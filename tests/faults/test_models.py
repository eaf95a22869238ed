"""Versions on disk, as people and accidents leave them, met by the catalog and loader of a service."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from service.core.artefact_errors import NameReserved, OutOfMemory
from service.core.errors import Unavailable
from service.core.messages import InferRequest, Target
from service.core.rules import ModelRules
from service.core.table import Matrix
from service.loading.loader import Loader
from service.repository import manifest as manifests
from service.repository.catalog import Catalog
from service.repository.manifest import GOLDEN, MANIFEST, MODEL, digest
from service.repository.signing import create_keys, read_signer, read_trusted_keys, sign_version
from service.repository.sources import Folder, Found
from service.repository.versions import Loaded
from tests.faults.cases import Came, fault
from tests.faults.versions import X, change_manifest, export_two, flip_a_bit
from training.export import export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_two(tmp_path_factory.mktemp("models"))


class Service:
    """What follows a folder in a service, polled by hand."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.loads = 0
        self._load = Loader(**options)
        self.catalog = Catalog(Folder(root, pause=lambda _: None), self._loaded, keep=1)
        self.catalog.poll()

    def _loaded(self, found: Found) -> Loaded:
        self.loads += 1
        checked = self._load(found)
        return Loaded(checked.manifest, checked.engine.run, checked.example, checked.about, checked.close)  # type: ignore[arg-type]

    def answer(self) -> tuple[int, float]:
        """Version, and prediction for a row of ones."""
        lease = self.catalog.lease(Target("line"))
        request = InferRequest(Matrix(np.ones((1, 2))), ("predict",))
        answers: Any = lease.loaded.submit(request.rows, request.outputs)  # type: ignore[arg-type, call-arg]
        lease.release()
        return lease.loaded.manifest.version, round(float(answers["predict"][0]), 6)

    def codes(self) -> dict[int, str]:
        (summary,) = self.catalog.summaries()
        return summary.codes

    def reasons(self) -> dict[int, str]:
        (summary,) = self.catalog.summaries()
        return summary.reasons


@pytest.fixture
def root(exported: Path, tmp_path: Path) -> Path:
    """A folder with version 1, into which the test puts version 2."""
    root = tmp_path / "models"
    shutil.copytree(exported / "line" / "1", root / "line" / "1")
    return root


@pytest.fixture
def second(exported: Path, tmp_path: Path) -> Path:
    """Version 2, beside the folder of models, to be damaged and then put there."""
    return Path(shutil.copytree(exported / "line" / "2", tmp_path / "second"))


@fault(
    "M01",
    sent="each file of a version cut at every hundredth of its length",
    expected="refused naming the file; the old version serves on; ready stays true",
)
@pytest.mark.parametrize("file", [MODEL, GOLDEN, "onnx.onnx", MANIFEST])
def test_file_cut_anywhere(root: Path, second: Path, file: str, came: Came) -> None:
    service = Service(root)
    whole = (second / file).read_bytes()
    second.rename(root / "line" / "2")

    for part in range(100):
        (root / "line" / "2" / file).write_bytes(whole[: len(whole) * part // 100])
        service.catalog.poll()

        code = "manifest-invalid" if file == MANIFEST else "digest-mismatch"
        assert service.codes() == {2: code}, part
        assert f"line/2/{file}" in service.reasons()[2]
        assert service.answer() == (1, 1.0)
        assert service.catalog.is_loaded
    came(f"100 refused ({code})")


def twice(version: Path) -> None:
    text = (version / MANIFEST).read_text()
    (version / MANIFEST).write_text(text.replace('"files":', '"files": {}, "files":', 1))


CASES = [
    pytest.param(lambda v: flip_a_bit(v / MODEL), "digest-mismatch", MODEL, id="a bit of the model"),
    pytest.param(lambda v: flip_a_bit(v / "onnx.onnx"), "digest-mismatch", "onnx.onnx", id="a bit of an engine"),
    pytest.param(lambda v: flip_a_bit(v / GOLDEN), "digest-mismatch", GOLDEN, id="a bit of the stored rows"),
    pytest.param(
        lambda v: change_manifest(v, lambda m: m["files"][MODEL].update(sha256="0" * 64)),
        "digest-mismatch", MODEL, id="a wrong digest",
    ),
    pytest.param(
        lambda v: change_manifest(v, lambda m: m["files"][MODEL].update(bytes=1)), "digest-mismatch", MODEL, id="a size"
    ),
    pytest.param(lambda v: (v / MODEL).unlink(), "file-missing", MODEL, id="no model"),
    pytest.param(lambda v: (v / MANIFEST).unlink(), "manifest-missing", MANIFEST, id="no manifest"),
    pytest.param(lambda v: (v / "more.py").touch(), "file-unlisted", "more.py", id="a file more"),
    pytest.param(lambda v: (v / "sub").mkdir(), "file-unlisted", "sub", id="a folder more"),
    pytest.param(
        lambda v: change_manifest(v, lambda m: m["files"].pop(GOLDEN)), "manifest-invalid", GOLDEN, id="an entry less"
    ),
    pytest.param(
        lambda v: change_manifest(v, lambda m: m["files"].pop("onnx.onnx")),
        "manifest-invalid", "onnx.onnx", id="an engine's entry less",
    ),
    pytest.param(twice, "manifest-invalid", "twice", id="an entry twice"),
    pytest.param(
        lambda v: change_manifest(v, lambda m: m.update(name="other")), "manifest-of-another", "other", id="a name"
    ),
    pytest.param(
        lambda v: change_manifest(v, lambda m: m.update(version=1)), "manifest-of-another", "version 1", id="a version"
    ),
]  # fmt: skip


@fault(
    "M05",
    sent="a bit, a digest, a size, a file or an entry that is wrong, missing or too many; another name or version",
    expected="refused, each with its own code in GET /models; the old version serves on",
)
@pytest.mark.parametrize(("damage", "code", "told"), CASES)
def test_damaged_version_is_refused_with_a_code(
    root: Path, second: Path, damage: Callable[[Path], None], code: str, told: str, came: Came
) -> None:
    service = Service(root)
    damage(second)
    second.rename(root / "line" / "2")

    service.catalog.poll()

    came(code)
    assert service.codes() == {2: code}
    assert told in service.reasons()[2]
    assert service.answer() == (1, 1.0)


@fault(
    "M05",
    sent="versions unsigned, signed by another key, changed after they were signed; a key is trusted",
    expected="refused: signature-missing, signer-unknown, signature-wrong; nothing else of it is opened",
)
@pytest.mark.parametrize(
    ("damage", "code"),
    [
        pytest.param(lambda v, sign: None, "signature-missing", id="unsigned"),
        pytest.param(lambda v, sign: sign("other"), "signer-unknown", id="by another key"),
        pytest.param(
            lambda v, sign: (sign("mine"), change_manifest(v, lambda m: m.update(scores={"r2": 1}))),
            "signature-wrong", id="changed afterwards",
        ),
        pytest.param(lambda v, sign: (sign("mine"), (v / "more").touch()), "file-unlisted", id="a file more"),
        pytest.param(lambda v, sign: (sign("mine"), flip_a_bit(v / GOLDEN)), "digest-mismatch", id="a bit"),
    ],
)  # fmt: skip
def test_only_what_a_trusted_key_signed_is_served(
    root: Path, second: Path, tmp_path: Path, damage: Callable[..., object], code: str, came: Came,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("mine", "other"):
        create_keys(tmp_path / name)

    def sign(key: str, version: Path = second) -> None:
        sign_version(version, (version / MANIFEST).read_bytes(), read_signer(tmp_path / f"{key}.key"))

    sign("mine", root / "line" / "1")
    service = Service(root, keys=read_trusted_keys([tmp_path / "mine.pub"]))
    assert service.answer() == (1, 1.0)
    damage(second, sign)
    second.rename(root / "line" / "2")
    read: list[str] = []
    known = manifests._read
    monkeypatch.setattr(manifests, "_read", lambda *about, **more: (read.append(about[2]), known(*about, **more))[1])

    service.catalog.poll()

    came(code)
    assert service.codes() == {2: code}
    assert service.answer() == (1, 1.0)
    if code.startswith("sign"):
        assert read == []


def test_signed_version_is_served(root: Path, second: Path, tmp_path: Path) -> None:
    create_keys(tmp_path / "mine")
    sign_version(second, (second / MANIFEST).read_bytes(), read_signer(tmp_path / "mine.key"))
    second.rename(root / "line" / "2")

    service = Service(root, keys=read_trusted_keys([tmp_path / "mine.pub"]))

    assert service.answer() == (2, 2.0)


@fault(
    "M02",
    sent="a file rewritten in place while it is read",
    expected="digest-mismatch; loaded once it has settled",
)
@pytest.mark.parametrize("moment", ["before the first byte", "after it was read"])
def test_file_rewritten_while_it_is_read(
    root: Path, second: Path, moment: str, monkeypatch: pytest.MonkeyPatch, came: Came
) -> None:
    service = Service(root)
    path = root / "line" / "2" / "onnx.onnx"
    whole = (second / "onnx.onnx").read_bytes()
    second.rename(root / "line" / "2")
    known = manifests._hashed

    def rewritten(file: Any, size: int, keep: bool) -> Any:
        if not keep or size != len(whole):
            return known(file, size, keep)
        if moment == "before the first byte":
            path.write_bytes(bytes(size))
            return known(file, size, keep)
        content, sha256 = known(file, size, keep)
        path.write_bytes(bytes(size))
        return content, sha256

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "_hashed", rewritten)
        service.catalog.poll()
    if moment == "before the first byte":
        came(service.codes()[2])
        assert service.codes() == {2: "digest-mismatch"}
        assert service.answer() == (1, 1.0)
    else:
        # What was hashed is what is used: the change came too late to matter, and is seen at the next poll.
        assert service.answer() == (2, 2.0)
        service.catalog.poll()
        assert service.codes() == {2: "digest-mismatch"}
        assert service.answer() == (2, 2.0)

    path.write_bytes(whole)
    service.catalog.poll()

    assert service.codes() == {}
    assert service.answer() == (2, 2.0)


@fault("M04", sent="the files of a live version deleted, one by one", expected="serves on, until its folder goes")
def test_files_deleted_while_serving(root: Path) -> None:
    service = Service(root)

    for file in (MODEL, GOLDEN, "onnx.onnx", MANIFEST):
        (root / "line" / "1" / file).unlink()
        service.catalog.poll()
        assert service.answer() == (1, 1.0)
        assert service.codes() == {1: "manifest-missing" if file == MANIFEST else "file-missing"}

    assert Service(root).catalog.summaries()[0].versions == ()


@fault("M16", sent="folders that others can write", expected="model files are refused; what is compiled is served")
def test_compiled_version_of_a_shared_folder_is_served_and_its_model_file_stays_closed(root: Path, came: Came) -> None:
    (root / "line").chmod(0o777)

    assert Service(root).answer() == (1, 1.0)

    always = ModelRules(fidelity="close", pickle="always")
    service = Service(root, rules=lambda _: always)
    came(service.codes()[1])
    assert service.codes() == {1: "file-not-private"}
    with pytest.raises(Unavailable):
        service.answer()
    assert Service(root, rules=lambda _: always, allow_shared_files=True).answer() == (1, 1.0)


@fault("M20", sent="a version that does not fit into memory", expected="refused: out-of-memory; the old one serves on")
def test_version_that_does_not_fit(root: Path, second: Path, monkeypatch: pytest.MonkeyPatch, came: Came) -> None:
    service = Service(root)
    second.rename(root / "line" / "2")

    def no_room(file_bytes: int, where: str) -> None:
        raise OutOfMemory(f"{where} does not fit")

    monkeypatch.setattr(manifests, "require_room", no_room)
    service.catalog.poll()

    came(service.codes()[2])
    assert service.codes() == {2: "out-of-memory"}
    assert service.answer() == (1, 1.0)


@fault("N07", sent="a model called like a route", expected="refused at export and at load")
def test_model_called_like_a_route(root: Path, came: Came) -> None:
    shutil.copytree(root / "line" / "1", root / "health" / "1")
    change_manifest(root / "health" / "1", lambda m: m.update(name="health"))

    service = Service(root)

    codes = {summary.name: summary.codes for summary in service.catalog.summaries()}
    came(codes["health"][1])
    assert codes == {"health": {1: "name-reserved"}, "line": {}}
    with pytest.raises(NameReserved, match="a model cannot be called 'metrics'"):
        export(LinearRegression().fit(X, X[:, 0]), X, name="metrics", repository=root)
    assert not (root / "metrics").exists()


@fault("L07", sent="a manifest without the fields that came later", expected="read; the version serves")
def test_manifest_of_the_first_exporter(root: Path) -> None:
    version = root / "line" / "1"
    change_manifest(version, lambda m: [m.pop(field) for field in ("engines", "dropped", "scores", "trust")])
    change_manifest(version, lambda m: m["files"].pop("onnx.onnx"))
    (version / "onnx.onnx").unlink()

    assert Service(root).answer() == (1, 1.0)


@fault("M29", sent="a bad version, fifty polls, then a good one", expected="tried once; the good one at the next poll")
def test_bad_version_is_not_tried_in_a_loop(root: Path, second: Path) -> None:
    service = Service(root)
    bad = root / "line" / "2"
    shutil.copytree(second, bad)
    flip_a_bit(bad / MODEL)

    for _ in range(50):
        service.catalog.poll()
    assert (service.loads, service.codes()) == (2, {2: "digest-mismatch"})
    change_manifest(second, lambda m: m.update(version=3))
    second.rename(root / "line" / "3")
    service.catalog.poll()

    assert service.answer() == (3, 2.0)


def test_what_was_hashed_is_what_is_loaded(root: Path) -> None:
    """Each file that is kept is opened once; its digest is that of the very bytes that the engine gets."""
    manifest = manifests.read_manifest(root / "line" / "1", "line", 1)

    files = manifests.check_files(root / "line" / "1", manifest, {GOLDEN, "onnx.onnx"})

    assert {name: digest(content) for name, content in files.items()} == {
        name: manifest.files[name].sha256 for name in (GOLDEN, "onnx.onnx")
    }
