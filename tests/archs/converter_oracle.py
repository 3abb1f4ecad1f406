"""Run llama.cpp's own converter: converter_oracle.py SOURCES FOLDER OUT f32|f16|bf16.

SOURCES is a checkout of llama.cpp. The converter knows byte-level tokenizers by a hash of what they
do, and refuses all others; a tiny tokenizer is one of GPT-2's shape, so that name is put in.
"""

import sys
from pathlib import Path


def main(sources: str, folder: str, out: str, kind: str) -> None:
    """Convert `folder` to the GGUF `out`, matrices in the type `kind`."""
    sys.path[:0] = [sources, f"{sources}/gguf-py"]
    import gguf
    from conversion import get_model_class
    from conversion.base import ModelBase, ModelType, TextModel, get_model_architecture

    TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    types = gguf.LlamaFileType
    wanted = {"f32": types.ALL_F32, "f16": types.MOSTLY_F16, "bf16": types.MOSTLY_BF16}[kind]
    config = ModelBase.load_hparams(Path(folder), False)
    converter = get_model_class(get_model_architecture(config, ModelType.TEXT))
    converter(Path(folder), wanted, Path(out)).write()


if __name__ == "__main__":
    main(*sys.argv[1:])
