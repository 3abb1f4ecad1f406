"""A trained model as a Hugging Face folder and as a GGUF file, with the card of its training.

The folder holds packed ternary digits as BitNet-2B-4T's does, or float32 matrices of a float twin;
both are what transformers' BitNet loads. The GGUF is quantized from the folder. What a stock reader
has no key for is under `trit.training.*`:

    .kind               "ternary", or "float" for a twin
    .bits_per_byte      of the text held out, all of it, by the model in torch
    .held_out_bytes, .held_out_sha256     of that text; of its packed tokens
    .steps, .tokens, .parameters, .seed   of the run
    .texts, .licence, .provenance         what it was trained on, as the config says it
    .config             every setting, as JSON
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import recipe
from trit.archs import bitnet_b158
from trit.files._folder_writer import Entry, FolderWriter
from trit.files.gguf import Plain, Value, ValueType
from trit.files.quantized import bitnet as packed_digits
from trit.quantize import prepare_quantize
from trit.training import bitnet
from trit.training import config as configs
from trit.training import tokenizer as tokenizers
from trit.training.session import Session

PREFIX = "trit.training."
QUANTIZATION = {
    "quant_method": "bitnet",
    "linear_class": "autobitlinear",  # digits are multiplied by weight_scale
    "quantization_mode": "offline",
}


def card(session: Session, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be known of a trained model; `measured` is what `held_out` found."""
    config, about = session.config, session.packed.about
    training = config.training
    return {
        "kind": "float" if session.twin else "ternary",
        "bits_per_byte": measured["bits_per_byte"],
        "held_out_bytes": measured["bytes"],
        "held_out_sha256": about["held_out"]["sha256"],
        "steps": training.steps,
        "tokens": training.steps * training.batch * config.model.context,
        "parameters": sum(weight.numel() for weight in session.network.weights.values()),
        "seed": config.seed,
        "texts": json.dumps(about["texts"], sort_keys=True),
        "licence": about["licence"],
        "provenance": about["provenance"],
        "config": json.dumps(configs.flat(config), sort_keys=True),
    }


def write_folder(
    session: Session, hf: Mapping[str, Any], facts: Mapping[str, Any], out: Path
) -> None:
    """Write the Hugging Face folder of a session; one that is there is replaced."""
    made = out.with_name(out.name + ".new")
    if made.exists():
        shutil.rmtree(made)
    config = dict(hf) if session.twin else dict(hf) | {"quantization_config": QUANTIZATION}
    texts = {
        "config.json": json.dumps(config, indent=2) + "\n",
        "README.md": _readme(facts),
    }
    files = [session.folder / name for name in (tokenizers.FILE, tokenizers.SETTINGS)]
    copies = [path for path in files if path.is_file()]
    arrays = dict(_arrays(session, hf))
    kinds = {"float32": "F32", "uint8": "U8"}
    entries = [Entry(name, kinds[str(array.dtype)], array.shape) for name, array in arrays.items()]
    with FolderWriter(made, entries, texts, copies, {}) as writer:
        for entry in entries:
            writer.add(entry, arrays[entry.name])
        writer.finish()
    if out.exists():
        shutil.rmtree(out)
    made.rename(out)


def _arrays(session: Session, hf: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    """The folder's tensors by HF name; ternary matrices as digits and their unit."""
    for name, shape in bitnet_b158.hf_shapes(hf).items():
        weight = session.network.weights[str(bitnet_b158.rename(name))].detach().cpu()
        assert tuple(weight.shape) == shape, f"{name}: {tuple(weight.shape)}, not {shape}"
        layer = name.startswith("model.layers.") and len(shape) == 2
        if session.twin or not layer:
            yield name, weight.numpy()
            continue
        digits, unit = bitnet.ternary(weight)
        yield name, packed_digits.pack(digits.numpy().astype(np.int8))
        scale = name.removesuffix(".weight") + ".weight_scale"
        yield scale, unit.reshape(1).numpy()


def write_gguf(
    session: Session, folder: Path, facts: Mapping[str, Any], out: Path
) -> tuple[int, tuple[str, ...]]:
    """Write the GGUF of a folder that `write_folder` made; its bytes, and the fallbacks taken."""
    output = session.config.output
    wishes = recipe.overrides((), output.embedding, output.embedding)
    with prepare_quantize(folder, out, _type(session), wishes) as job:
        job.reserve(values_of(PREFIX, facts))
        result = job.run()
    lacks = tuple(
        f"{tensor.name}: rows of {tensor.shape[-1]} do not fit {str(tensor.fallback_from).upper()},"
        f" {tensor.format.upper()} instead"
        for tensor in result.fallbacks
    )
    return result.bytes, lacks


def _type(session: Session) -> str:
    """A twin's matrices are no digits: F16, unless F32 was wished for."""
    wished = session.config.output.type
    return "F16" if session.twin and wished in configs.TERNARY_TYPES else wished


def values_of(prefix: str, facts: Mapping[str, Any]) -> dict[str, Plain | Value]:
    """Facts as GGUF keys, each of the largest type of its kind."""
    found: dict[str, Plain | Value] = {}
    for key, value in facts.items():
        if isinstance(value, float):
            found[prefix + key] = Value(ValueType.FLOAT64, value)
        elif isinstance(value, int):
            found[prefix + key] = Value(ValueType.UINT64, value)
        else:
            found[prefix + key] = str(value)
    return found


def _readme(facts: Mapping[str, Any]) -> str:
    """The folder's card, with the licence where readers look for it."""
    licence = str(facts["licence"])
    head = f"---\nlicense: {licence}\n---\n\n" if licence else ""
    names = ", ".join(text["name"] for text in json.loads(facts["texts"]))
    return (
        f"{head}A BitNet b1.58 model ({facts['kind']} weights, {facts['parameters']:,} parameters) "
        f"trained by trit.\n\n"
        f"- {facts['bits_per_byte']:.4f} bits per byte on {facts['held_out_bytes']:,} bytes held "
        "out\n"
        f"- {facts['steps']:,} steps, {facts['tokens']:,} tokens, seed {facts['seed']}\n"
        f"- texts: {names}\n"
        f"- provenance: {facts['provenance'] or 'not stated'}\n"
        f"- licence of the texts: {licence or 'not stated'}\n"
    )
