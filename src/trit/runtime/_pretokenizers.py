"""What each value of `tokenizer.ggml.pre` means: where words end, and three habits beside.

The names and their meaning are llama.cpp's (llama-vocab.cpp); the splits are functions of
core/pretokenizer.cpp, each cutting the pieces the one before left.
"""

from dataclasses import dataclass

from trit.errors import UnsupportedError


@dataclass(frozen=True)
class PreTokenizer:
    """`ignore_merges`: a word that is a token is taken whole. `bos`: False where no default
    BOS token exists, `add_bos` the default of tokenizer.ggml.add_bos_token."""

    splits: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    bos: bool = True


_GPT2 = PreTokenizer(("gpt2_words",))
_DIGITS_GPT2 = PreTokenizer(("number", "gpt2_words"))
_LLAMA3 = PreTokenizer(("llama3_words",), ignore_merges=True, add_bos=True)
_LLAMA3_MERGES = PreTokenizer(("llama3_words",))
_QWEN2 = PreTokenizer(("qwen2_words",))
_GPT4O = PreTokenizer(("gpt4o_words",))
_DEEPSEEK3 = PreTokenizer(("number3", "deepseek3_cjk", "deepseek3_words"))

_NAMES = {
    "default": PreTokenizer(("punctuation", "gpt2_words", "numbers", "ascii_triples")),
    "falcon": PreTokenizer(("falcon_punctuation", "gpt2_words", "ascii_triples")),
    "deepseek-llm": PreTokenizer(
        (
            "line_breaks",
            "deepseek_letters",
            "deepseek_punctuation",
            "trailing_space",
            "deepseek_cjk",
            "numbers",
        )
    ),
    "deepseek-coder": PreTokenizer(
        ("line_breaks", "spaced_letters", "spaced_punctuation", "deepseek_cjk", "number")
    ),
    "tekken": PreTokenizer(("tekken_words",), ignore_merges=True, add_bos=True),
    "qwen35": PreTokenizer(("qwen35_words",)),
    "chatglm-bpe": PreTokenizer(("llama3_words",), bos=False),
    "glm4": PreTokenizer(("llama3_words",), ignore_merges=True, bos=False),
    "glm5": PreTokenizer(("llama3_words",), ignore_merges=True, bos=False),
    **dict.fromkeys(("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4"), _GPT2),
    **dict.fromkeys(("mpt", "olmo", "jais", "trillion", "granite-docling", "modern-bert"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _DIGITS_GPT2),
    **dict.fromkeys(("exaone", "minerva-7b", "mellum2"), _DIGITS_GPT2),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1"), _LLAMA3),
    **dict.fromkeys(("pixtral", "midm-2.0", "lfm2"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _LLAMA3_MERGES),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2"), _QWEN2),
    **dict.fromkeys(
        ("hunyuan", "solar-open", "grok-2", "bailingmoe", "bailingmoe2", "llada-moe"), _QWEN2
    ),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _GPT4O),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK3),
}


def pre_tokenizer(name: str | None, path: object) -> PreTokenizer:
    """The pre-tokenizer of this name; None (the key is missing) means "default", as in llama.cpp.

    UnsupportedError for a name trit does not know: any other choice would give wrong ids.
    """
    try:
        return _NAMES[name or "default"]
    except KeyError:
        raise UnsupportedError(
            f"{path}: tokenizer.ggml.pre is '{name}', a pre-tokenizer trit does not know. "
            f"Known are {', '.join(sorted(_NAMES))}."
        ) from None
