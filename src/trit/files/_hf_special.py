"""Special tokens, what is added around a text, and the chat template: HF folder → GGUF keys."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from trit.errors import InvalidFileError
from trit.files._hf_json import Object, read_object, read_text

# HF's name of a special token -> its GGUF key ("seperator" is how the format spells it).
_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
}


def special_keys(
    folder: Path, tokenizer: Object, settings: Object, config: Object, rows: int
) -> dict[str, Any]:
    """Ids of special tokens, add_bos_token and its like, and the chat template."""
    keys: dict[str, Any] = {}
    ids = _ids_by_text(tokenizer)
    for name, key in _KEYS.items():
        found = ids.get(_text(settings.get(f"{name}_token")))
        if found is None:
            found = config.get(f"{name}_token_id")
        # A list (several ends) has no key of its own; readers find the others by their text.
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < rows:
            keys[f"tokenizer.ggml.{key}"] = found
    for name, adds in _added_around(tokenizer, settings).items():
        keys[f"tokenizer.ggml.add_{name}_token"] = adds
    return keys | _chat_template(folder, settings)


def check_template(path: Path, processor: object, ids: Container[int]) -> None:
    """InvalidFileError unless all special tokens of a template are declared, with known ids."""
    if not isinstance(processor, dict):
        return
    for step in _objects(processor.get("processors", [processor])):
        if step.get("type") != "TemplateProcessing":
            continue
        declared = step.get("special_tokens", {})
        if not isinstance(declared, dict):
            raise InvalidFileError(path, "key 'special_tokens'", "expected an object.")
        for side in ("single", "pair"):
            for name in filter(None, map(_special, _objects(step.get(side)))):
                if name not in declared:
                    problem = f"names {name!r:.60}, which special_tokens does not declare."
                    raise InvalidFileError(path, f"key 'post_processor.{side}'", problem)
        for name, token in declared.items():
            given = token.get("ids") if isinstance(token, dict) else None
            if not isinstance(given, list) or any(
                isinstance(id, bool) or not isinstance(id, int) or id not in ids for id in given
            ):
                problem = f"expected ids of the vocabulary, got {given!r:.60}."
                raise InvalidFileError(path, f"special token {name!r:.60}", problem)


def _text(entry: object) -> str | None:
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _ids_by_text(tokenizer: Object) -> dict[str | None, int]:
    """Ids of tokenizer.json's added tokens by text; of two with one text, the first."""
    ids: dict[str | None, int] = {}
    for token in _objects(tokenizer.get("added_tokens")):
        if isinstance(token.get("id"), int):
            ids.setdefault(_text(token), token["id"])
    return ids


def _objects(value: object) -> list[Object]:
    """The objects of an array; what else the file has in its place says nothing."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _added_around(tokenizer: Object, settings: Object) -> dict[str, bool]:
    """Which special tokens are put around a text: the post-processor first, then the settings."""
    adds: dict[str, bool] = {}
    processor = tokenizer.get("post_processor")
    if isinstance(processor, dict):
        for step in _objects(processor.get("processors", [processor])):
            if step.get("type") == "ByteLevel":
                adds.setdefault("bos", False)
                adds.setdefault("eos", False)
            elif step.get("type") == "TemplateProcessing":
                adds |= _of_template(step, settings)
    for name in _KEYS:
        given = settings.get(f"add_{name}_token")
        if isinstance(given, bool):
            adds.setdefault(name, given)
    return adds


def _of_template(step: Object, settings: Object) -> dict[str, bool]:
    """What `single` puts first and last, and whether `pair` separates its two texts."""
    single, pair = _objects(step.get("single")), _objects(step.get("pair"))
    adds: dict[str, bool] = {}
    first = last = None
    if len(single) > 1:
        if (first := _special(single[0])) is not None:
            adds["bos"] = first == (_text(settings.get("bos_token")) or first)
        if (last := _special(single[-1])) is not None:
            adds["eos"] = last == (_text(settings.get("eos_token")) or last)
    if not pair:
        return adds
    start = 1 if first is not None and _special(pair[0]) == first else 0
    stop = -1 if last is not None and _special(pair[-1]) == last else None
    between = pair[start:stop][1:-1]
    if between:
        ends = (_text(settings.get("sep_token")), _text(settings.get("eos_token")))
        specials = [_special(entry) for entry in between[:2]]
        alone = specials[0] in ends and last is None
        adds["sep"] = alone or (len(specials) == 2 and specials[1] in ends)
    return adds


def _special(entry: object) -> str | None:
    special = entry.get("SpecialToken") if isinstance(entry, dict) else None
    name = special.get("id") if isinstance(special, dict) else None
    return name if isinstance(name, str) else None


def _chat_template(folder: Path, settings: Object) -> dict[str, Any]:
    """The template of the settings, else of its own file; several are stored by name."""
    template: object = settings.get("chat_template")
    if template is None and (folder / "chat_template.jinja").is_file():
        template = read_text(folder / "chat_template.jinja")
    if template is None and (folder / "chat_template.json").is_file():
        template = read_object(folder / "chat_template.json").get("chat_template")
    if isinstance(template, str):
        return {"tokenizer.chat_template": template}
    if not isinstance(template, list):
        return {}
    named = {
        _safe(entry["name"]): entry["template"]
        for entry in template
        if isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("template"), str)
    }
    keys: dict[str, Any] = {}
    if "default" in named:
        keys["tokenizer.chat_template"] = named.pop("default")
    if named:
        keys["tokenizer.chat_templates"] = sorted(named)
    return keys | {f"tokenizer.chat_template.{name}": text for name, text in named.items()}


def _safe(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
