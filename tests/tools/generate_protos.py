"""Writes a module of message classes, `service/protocols/protos/<name>_pb.py`, for every `<name>.proto` there.

Run it after a change of a `.proto`, and read the difference:

    python -m tests.tools.generate_protos

A new protocol begins with its `.proto` beside the others; it may import them by file name, and
`google/protobuf/*.proto`. Messages and enums at the top of the file become names of the module; nested ones are
attributes of their message, as are the numbers of nested enums. Services get no code: what is served is a table of
`service.protocols.rpc.Rpc`, which takes the classes of a method's messages from `pool.methods`.
"""

from __future__ import annotations

import base64
import tempfile
import textwrap
from pathlib import Path
from typing import Final

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

FOLDER: Final = Path(__file__).parents[2] / "service" / "protocols" / "protos"

MODULE: Final = '''"""Messages of `{proto}`. Written by tests/tools/generate_protos.py: change the `.proto`."""

from __future__ import annotations

from typing import Any, Final

from service.protocols.protos import pool

pool.add(
    """
{files}
    """
)

{names}'''


def modules() -> dict[Path, str]:
    """The text of every module, by its path."""
    return {proto.with_name(f"{proto.stem}_pb.py"): module(proto) for proto in sorted(FOLDER.glob("*.proto"))}


def module(proto: Path) -> str:
    files = compiled(proto)
    coded = base64.b64encode(files.SerializeToString(deterministic=True)).decode()
    return MODULE.format(
        proto=proto.name,
        files="\n".join(textwrap.wrap(coded, 116, initial_indent="    ", subsequent_indent="    ")),
        names="".join(names(files.file[-1])),
    )


def compiled(proto: Path) -> FileDescriptorSet:
    """What protoc makes of `proto`, after what it makes of the files that it imports."""
    googles = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.NamedTemporaryFile() as output:
        options = (f"-I{proto.parent}", f"-I{googles}", "--include_imports", f"--descriptor_set_out={output.name}")
        if protoc.main(["protoc", *options, proto.name]) != 0:
            raise SystemExit(f"protoc refused {proto.name}")
        return FileDescriptorSet.FromString(output.read())


def names(file: FileDescriptorProto) -> list[str]:
    """A line of the module for each enum and each message at the top of `file`."""
    enums = [f'{e.name}: Final = pool.enum("{file.package}.{e.name}")\n' for e in file.enum_type]
    return enums + [
        f'{m.name}: Final[type[Any]] = pool.message("{file.package}.{m.name}")\n' for m in file.message_type
    ]


if __name__ == "__main__":
    for path, text in modules().items():
        path.write_text(text, "utf-8")
