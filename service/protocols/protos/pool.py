"""The pool that holds the descriptors of our messages.

Message names are global to a pool. In protobuf's default one, ours would clash with those of the clients' own
packages (tritonclient, kserve, TensorFlow), which register the same names, wherever both are in one process.
"""

from __future__ import annotations

from base64 import b64decode
from enum import IntEnum
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from service.core.errors import UnreadableRequest

_POOL: Final[Any] = descriptor_pool.DescriptorPool()


def add(files: str) -> None:
    """Make the messages of `files` known: a serialized FileDescriptorSet, imports first, in base64.

    Files that are known already are left as they are.
    """
    for file in FileDescriptorSet.FromString(b64decode(files)).file:
        _POOL.AddSerializedFile(file.SerializeToString())


def message(name: str) -> type[Any]:
    """The class of a message, by its full name. Raises KeyError where there is none."""
    found: type[Any] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))
    return found


def enum(name: str) -> Any:
    """An enum, by its full name, as a class. Raises KeyError where there is none."""
    found = _POOL.FindEnumTypeByName(name)
    return IntEnum(found.name, {value.name: value.number for value in found.values})


def parse(kind: type[Any], content: bytes) -> Any:
    """A message of this class. Raises UnreadableRequest where `content` is none."""
    try:
        return kind.FromString(content)
    except DecodeError:
        raise UnreadableRequest(f"the message is no {kind.DESCRIPTOR.full_name}") from None
