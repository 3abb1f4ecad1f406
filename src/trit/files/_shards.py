"""Models cut into several GGUF files: NAME-00001-of-0000N.gguf and so on.

Each shard is a whole GGUF file. All carry `split.no` (counted from 0), `split.count` and
`split.tensors.count` (over all shards); the other keys stand in the first.
"""

import re
from pathlib import Path

from trit.errors import InvalidFileError
from trit.files._values import Value

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def shard_paths(path: Path) -> list[Path]:
    """All shards of the model that `path` is a shard of, in order; [path] if it is none."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count:
        problem = f"expected a shard from 1 to {count}, got {number}"
        raise InvalidFileError(path, "file name", problem)
    paths = [
        path.with_name(f"{match['stem']}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)
    ]
    for shard in paths:
        if not shard.is_file():
            problem = (
                f"expected all {count} shards of the model in one folder, got none of that name"
            )
            raise InvalidFileError(shard, "", problem)
    return paths


def check_split(path: Path, values: dict[str, Value], number: int, count: int) -> None:
    """Check what the `number`-th (from 0) of `count` shards says of its place."""
    for key, expected in (("split.no", number), ("split.count", count)):
        got = _integer(path, values, key, 0 if key == "split.no" else 1)
        if got != expected:
            raise InvalidFileError(path, f"key {key!r}", f"expected {expected}, got {got}")


def check_tensor_count(path: Path, values: dict[str, Value], tensors: int) -> None:
    """Check the number of tensors in all shards together against what one of them says."""
    got = _integer(path, values, "split.tensors.count", tensors)
    if got != tensors:
        problem = f"expected the {tensors} tensors that the shards hold, got {got}"
        raise InvalidFileError(path, "key 'split.tensors.count'", problem)


def _integer(path: Path, values: dict[str, Value], key: str, default: int) -> int:
    if key not in values:
        return default
    number = values[key].value
    if not isinstance(number, int) or isinstance(number, bool):
        raise InvalidFileError(path, f"key {key!r}", f"expected an integer, got {number!r:.80}")
    return number
