"""The index of a Hugging Face checkpoint in several files: which tensor is in which.

The file names in it come from a stranger. They must be plain names of files in the same folder, and
what they name must not lead out of it: a link would make trit open, and perhaps publish, any file
of the user's. Links into the `blobs` of the Hugging Face cache, which every model there is made of,
are allowed.
"""

from pathlib import Path

from trit.errors import InvalidFileError
from trit.files._json import Reader
from trit.files._mapping import Mapping

_MAX_INDEX_BYTES = 1 << 26
_MAX_TENSORS = 160_000
_MAX_NAME_BYTES = 1 << 10
_MAX_KEYS = 1 << 6


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name; InvalidFileError for a bad index, or a file missing or outside."""
    mapping = Mapping(index)
    try:
        if mapping.size > _MAX_INDEX_BYTES:
            problem = f"expected at most {_MAX_INDEX_BYTES} bytes, got {mapping.size}"
            raise InvalidFileError(index, "", problem)
        weight_map = _parse(Reader(index, memoryview(mapping.buffer), 0, mapping.size))
    finally:
        mapping.close()
    for name in sorted(set(weight_map.values())):
        _check_file(index, name)
    return weight_map


def _parse(reader: Reader) -> dict[str, str]:
    weight_map: dict[str, str] = {}
    names: dict[str, str] = {}  # each file name is kept once, not once a tensor
    for key in reader.keys("index", _MAX_NAME_BYTES, _MAX_KEYS):
        if key != "weight_map":
            reader.skip(f"key {key[:80]!r}")
            continue
        for tensor in reader.keys(key, _MAX_NAME_BYTES, _MAX_TENSORS):
            name = reader.string(f"weight_map {tensor[:80]!r}", _MAX_NAME_BYTES)
            weight_map[tensor] = names.setdefault(name, name)
    reader.finish()
    if not weight_map:
        problem = "expected a weight_map that names files, got none"
        raise InvalidFileError(reader.path, "", problem)
    return weight_map


def _check_file(index: Path, name: str) -> None:
    where = f"weight_map, file {name[:80]!r}"
    if name in ("", ".", "..") or any(mark in name for mark in "/\\\0:"):
        problem = "expected the name of a file in the same folder"
        raise InvalidFileError(index, where, problem)
    path = index.parent / name
    if not path.is_file():
        raise InvalidFileError(index, where, "expected that file beside the index, got none")
    if not stays_inside(path):
        problem = f"expected a file of the same folder, got a link to {path.resolve()}"
        raise InvalidFileError(index, where, problem)


def stays_inside(path: Path) -> bool:
    """Whether a file, links followed, is of its folder or of the cache that the folder is in."""
    folder = path.parent.resolve()
    allowed = [folder]
    if folder.parent.name == "snapshots":
        allowed.append(folder.parent.parent / "blobs")
    return path.resolve().parent in allowed
