"""A zoo of one small model: its file, the wheels that carry it, and the manifest that says so."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from trit.zoo import _manifest

PARTS = 3


def tiny_model(path: Path, spoilt: bool = False) -> bytes:
    """A GGUF file of one tensor, NaN in it if `spoilt`; its bytes."""
    writer = gguf.GGUFWriter(path, "llama")
    weights = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    weights[3, 5] = np.nan if spoilt else 0
    writer.add_tensor("token_embd.weight", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def write_wheel(folder: Path, package: str, member: str, data: bytes) -> Path:
    """A wheel that pip accepts and that carries one file of data."""
    module = package.replace("-", "_")
    path = folder / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}/__init__.py", "")
        archive.writestr(f"{module}/data/{member}", data)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@dataclass
class Shelf:
    """A package index of three wheels that make one model, and the cache it is pulled into."""

    index: Path
    cache: Path
    model: bytes
    wheels: list[Path]
    manifest: Path

    @property
    def target(self) -> Path:
        return self.cache / "trit" / "models" / "tiny.gguf"

    def left_behind(self) -> set[str]:
        """What lies beside the model, apart from locks."""
        names = {path.name for path in self.target.parent.iterdir()}
        return {name for name in names if not name.endswith(".lock")}

    def write_manifest(self, sha256: str | None = None, source: str | None = None) -> None:
        hashes = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in self.wheels]
        rows = "\n".join(
            f'{{ part = {part}, size = {wheel.stat().st_size}, sha256 = "{digest}" }},'
            for part, (wheel, digest) in enumerate(zip(self.wheels, hashes, strict=True), 1)
        )
        wheels = (
            'kind = "wheels"\npackage = "trit-test-part{part}"\nversion = "1.0"\n'
            f'member = "*/data/part*.bin"\nwheels = [\n{rows}\n]'
        )
        self.manifest.write_text(
            '[[model]]\nname = "tiny"\ndescription = "for tests"\nfile = "tiny.gguf"\n'
            f"size = {len(self.model)}\n"
            f'sha256 = "{sha256 or hashlib.sha256(self.model).hexdigest()}"\n'
            'licence = "MIT"\nlicence_url = "https://example.org/licence"\n\n'
            f"[[model.source]]\n{source or wheels}\n"
        )
        _manifest.read.cache_clear()
