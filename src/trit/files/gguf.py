"""GGUF files: opened lazily and checked, written atomically.

    with gguf.open("model.gguf") as file:
        file.metadata["general.architecture"]
        file["blk.0.ffn_down.weight"].decode()

Reading maps the file and looks at its header only. What it promises: a file that breaks any rule of
the format raises InvalidFileError in well under a second, and never anything else. Spec: ggml,
docs/gguf.md.
"""

import os
from pathlib import Path
from types import TracebackType

from trit.errors import InvalidFileError
from trit.files._checksum import Progress, sha256
from trit.files._header import parse, plain
from trit.files._layout import place
from trit.files._mapping import Mapping
from trit.files._shard_writer import ShardWriter
from trit.files._shards import check_split, check_tensor_count, shard_paths
from trit.files._strings import StringArray
from trit.files._tensor import Tensor, TensorInfo
from trit.files._values import Plain, Value, ValueType
from trit.files._writer import Writer, write

__all__ = [
    "GGUF",
    "Plain",
    "Progress",
    "ShardWriter",
    "StringArray",
    "Tensor",
    "TensorInfo",
    "Value",
    "ValueType",
    "Writer",
    "open",
    "sha256",
    "write",
]


class GGUF:
    """An open GGUF model, of one file or several shards.

    path      the file that was asked for; `paths` are all its shards
    metadata  keys and plain values; arrays of strings decode on access
    values    the same keys with their exact GGUF types, for copying them verbatim
    tensors   name -> Tensor, in the order of the files
    """

    def __init__(self, path: Path, mappings: list[Mapping], model: bool) -> None:
        self.path = path
        self.paths = [mapping.path for mapping in mappings]
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, Tensor] = {}
        self._mappings = mappings
        for number, mapping in enumerate(mappings):
            header = parse(mapping)
            check_split(mapping.path, header.values, number, len(mappings))
            if number == 0:
                self.values = header.values
                self.alignment = header.alignment
                if model:
                    _check_architecture(mapping.path, header.values)
            for name, tensor in place(mapping, header).items():
                if name in self.tensors:
                    problem = "expected in one shard, got it again"
                    raise InvalidFileError(mapping.path, f"tensor {name!r}", problem)
                self.tensors[name] = tensor
        check_tensor_count(mappings[0].path, self.values, len(self.tensors))
        self.metadata: dict[str, Plain] = {key: plain(value) for key, value in self.values.items()}

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of that name; InvalidFileError if the file has none."""
        try:
            return self.tensors[name]
        except KeyError:
            problem = f"expected among the {len(self.tensors)} tensors of the file, got none"
            raise InvalidFileError(self.path, f"tensor {name!r}", problem) from None

    def close(self) -> None:
        """Let go of the files. Arrays already taken from them stay good."""
        self.tensors = {}
        for mapping in self._mappings:
            mapping.close()

    def __enter__(self) -> "GGUF":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open(path: str | os.PathLike[str], *, model: bool = True) -> GGUF:
    """Open a GGUF file, or all shards of the model that it is a shard of.

    `model=False` opens files that hold no model, such as importance matrices: they need not name an
    architecture. InvalidFileError (file, offset or key or tensor, expected, got) for what breaks a
    rule of the format; UnsupportedError for a legal tensor type that trit has no format for.
    """
    mappings: list[Mapping] = []
    try:
        for shard in shard_paths(Path(path)):
            mappings.append(Mapping(shard))
        return GGUF(Path(path), mappings, model)
    except BaseException:
        for mapping in mappings:
            mapping.close()
        raise


def _check_architecture(path: Path, values: dict[str, Value]) -> None:
    where = "key 'general.architecture'"
    if "general.architecture" not in values:
        raise InvalidFileError(path, where, "expected the name of an architecture, got no such key")
    architecture = values["general.architecture"].value
    if not isinstance(architecture, str) or not architecture:
        problem = f"expected the name of an architecture, got {architecture!r:.80}"
        raise InvalidFileError(path, where, problem)
