"""The general.* keys of a virtual GGUF: name, size, licence, tags, sampling defaults.

Read from the folder's name, config.json, generation_config.json and the front matter of README.md,
of which only plain `key: value` lines and lists are understood.
"""

from __future__ import annotations

import re
from pathlib import Path

from trit.errors import InvalidFileError
from trit.files._hf_json import Object, read_optional, read_text
from trit.files._values import Plain, Value, ValueType

# Keys of generation_config.json -> keys under general.sampling, and their types.
_SAMPLING = {
    "top_k": ("top_k", ValueType.INT32),
    "top_p": ("top_p", ValueType.FLOAT32),
    "min_p": ("min_p", ValueType.FLOAT32),
    "temperature": ("temp", ValueType.FLOAT32),
    "repetition_penalty": ("penalty_repeat", ValueType.FLOAT32),
}

# GGUF file types by the format of the matrices.
_FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32}


def general_keys(
    folder: Path, config: Object, arch: str, label: str, matrix_format: str
) -> dict[str, Plain | Value]:
    """The keys; `matrix_format` is the format of the first matrix, `label` names the size."""
    keys: dict[str, Plain | Value] = {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": _name(folder, config),
        "general.size_label": label,
        "general.file_type": _FILE_TYPES[matrix_format],
        "general.quantization_version": 2,
    }
    return (
        keys | _sampling_keys(folder / "generation_config.json") | _card_keys(folder / "README.md")
    )


def _sampling_keys(path: Path) -> dict[str, Value]:
    """The sampling defaults, with the exact types that the converter gives them."""
    keys = {}
    for key, value in read_optional(path).items():
        if key not in _SAMPLING or value is None:
            continue
        name, kind = _SAMPLING[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) < 2**31:
            raise InvalidFileError(path, f"key '{key}'", f"expected a number, got {value!r:.40}.")
        value = int(value) if kind is ValueType.INT32 else float(value)
        keys[f"general.sampling.{name}"] = Value(kind, value)
    return keys


def size_label(parameters: int, experts: int = 0) -> str:
    """A count of weights as in file names, of two digits at least: 135M, 1.8B, 8x7.2K."""
    if experts:
        return f"{experts}x{size_label(parameters)}"
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (0.0, "K")):
        if parameters > limit:
            scaled = parameters / (limit or 1e3)
            decimals = max(2 - len(str(round(scaled)).lstrip("0")), 0)
            return f"{scaled:.{decimals}f}{unit}"
    return "0K"


def _name(folder: Path, config: Object) -> str:
    name = config.get("_name_or_path")
    # Only an id of the hub is a name; a path of somebody's machine is not.
    if not isinstance(name, str) or not name or name.count("/") > 1:
        name = folder.resolve().name
    words = name.rpartition("/")[2].replace("-", " ").split()
    plain = re.compile(r"v\d+(\.\d+)*|\d.*")
    titled = (w.title() if w.islower() and not plain.fullmatch(w) else w for w in words)
    return " ".join(titled) or "model"


def _card_keys(path: Path) -> dict[str, Plain]:
    """Licence, tags and languages of the model card."""
    if not path.is_file():
        return {}
    card = front_matter(read_text(path))
    keys: dict[str, Plain] = {}
    for name, key in (
        ("license", "general.license"),
        ("license_name", "general.license.name"),
        ("license_link", "general.license.link"),
    ):
        if card.get(name):
            keys[key] = ",".join(card[name])
    if tags := card.get("tags", []) + card.get("pipeline_tag", []):
        keys["general.tags"] = tags
    if languages := card.get("languages", []) + card.get("language", []):
        keys["general.languages"] = languages
    return keys


def front_matter(text: str) -> dict[str, list[str]]:
    """Top-level scalars and lists of the YAML between the two `---` lines at the top of a text."""
    lines = text.splitlines()
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return {}
    found: dict[str, list[str]] = {}
    key = None
    for line in lines[1 : lines.index("---", 1)]:
        if match := re.fullmatch(r"([A-Za-z_]+):\s*(.*)", line):
            key, value = match[1], match[2].strip()
            inline = value.startswith("[") and value.endswith("]")
            parts = value[1:-1].split(",") if inline else [value]
            found[key] = [item for item in map(_unquote, parts) if item]
        elif key and (match := re.fullmatch(r"\s*-\s+(.*)", line)) and ": " not in match[1]:
            found[key].append(_unquote(match[1]))
    return found


def _unquote(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
