"""One engine of benchmarks/peers.py, in a process of its own that keeps its model loaded.

    python benchmarks/peers_worker.py trit|llama.cpp|ik_llama.cpp

Reads requests from stdin and answers on stdout, a line of JSON each: about, load, prompt, generate,
free, quantize. Runs in the interpreter that has the engine, so it imports nothing but the standard
library and that engine. Between requests it waits for a line and uses no processor.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = [100 + i % 100 for i in range(1 << 16)]  # ordinary ones: the work does not depend on them


class Trit:
    """trit, through its engine. It has no settings; TRIT_ISA chooses the instruction set."""

    def about(self) -> dict[str, Any]:
        from trit import _core
        from trit.evaluate._machine import build_commit

        isas = _core.isas()
        isa = os.environ.get("TRIT_ISA") or isas[0]
        return {"version": build_commit(), "system": f"isa {isa} of {', '.join(isas)}"}

    def load(self, model: str, threads: int, ctx: int, **settings: Any) -> dict[str, Any]:
        """Open a model; also what a token of decoding reads and a token of prompt multiplies."""
        from trit.evaluate._opened import Opened
        from trit.evaluate.speed import decoded_bytes, integer_weights

        assert not settings, settings
        self.opened = Opened(model, ctx, threads)
        return {
            "decoded_bytes": decoded_bytes(self.opened.plan, self.opened.file.tensors),
            "integer_weights": integer_weights(self.opened),
        }

    def clear(self) -> None:
        self.opened.engine.remove(0, 0)

    def forward(self, tokens: list[int], start: int) -> None:
        from trit.engine import Rows

        self.opened.engine.forward(Rows.of(tokens, start))

    def free(self) -> None:
        self.opened.__exit__(None, None, None)
        del self.opened

    def quantize(self, source: str, out: str, kind: str, threads: int) -> None:
        import trit

        trit.quantize(source, out, kind, threads=threads)


class Llama:
    """llama.cpp, through the C calls that llama-cpp-python binds."""

    def __init__(self) -> None:
        import llama_cpp

        self.api: Any = llama_cpp
        llama_cpp.llama_backend_init()

    def about(self) -> dict[str, Any]:
        system = self.api.llama_print_system_info().decode()
        return {"version": self.api.__version__, "system": system}

    def load(
        self, model: str, threads: int, ctx: int, flash: bool | None = None, repack: bool = True
    ) -> dict[str, Any]:
        """`flash` None: as llama.cpp sees fit; `repack`: weights into its interleaved buffers."""
        api = self.api
        how = api.llama_model_default_params()
        how.use_extra_bufts = repack
        self.model = _not_null(api.llama_model_load_from_file(model.encode(), how), model)
        within = api.llama_context_default_params()
        within.n_ctx, within.n_batch = ctx, ctx
        within.n_threads = within.n_threads_batch = threads
        if flash is not None:
            within.flash_attn_type = int(flash)
        self.context = _not_null(api.llama_init_from_model(self.model, within), "a context")
        return {}

    def clear(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)

    def forward(self, tokens: list[int], start: int) -> None:
        array = (self.api.llama_token * len(tokens))(*tokens)
        batch = self.api.llama_batch_get_one(array, len(tokens))
        code = self.api.llama_decode(self.context, batch)
        self.api.llama_synchronize(self.context)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")

    def free(self) -> None:
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)

    def quantize(self, source: str, out: str, kind: str, threads: int) -> None:
        how = self.api.llama_model_quantize_default_params()
        how.nthread, how.allow_requantize = threads, True
        how.ftype = getattr(self.api, f"LLAMA_FTYPE_MOSTLY_{kind}")
        if self.api.llama_model_quantize(source.encode(), out.encode(), how):
            raise RuntimeError("llama_model_quantize failed")


class IkLlama:
    """ik_llama.cpp; its binding declares the structures, and few of the functions needed here."""

    def __init__(self) -> None:
        from ik_llama_cpp import _ctypes_api

        self.api: Any = _ctypes_api
        self.lib: Any = _ctypes_api._lib
        self.lib.llama_print_system_info.restype = ctypes.c_char_p
        get_one = self.lib.llama_batch_get_one  # tokens, their count, first position, sequence
        get_one.restype = self.api.llama_batch
        get_one.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]
        self.lib.llama_synchronize.argtypes = [ctypes.c_void_p]
        self.api.llama_backend_init()

    def about(self) -> dict[str, Any]:
        from ik_llama_cpp import __version__

        system = self.lib.llama_print_system_info().decode()
        return {"version": __version__, "system": system}

    def load(
        self, model: str, threads: int, ctx: int, flash: bool = True, repack: bool = False
    ) -> dict[str, Any]:
        """`repack`: interleave rows while loading (-rtr), for which it reads the file instead of
        mapping it."""
        api = self.api
        how = api.llama_model_default_params()
        how.repack_tensors, how.use_mmap, how.flash_attn = repack, not repack, flash
        self.model = _not_null(api.llama_model_load_from_file(model.encode(), how), model)
        within = api.llama_context_default_params()
        within.n_ctx, within.n_batch = ctx, ctx
        within.n_threads = within.n_threads_batch = threads
        within.flash_attn = flash
        self.context = _not_null(api.llama_init_from_model(self.model, within), "a context")
        return {}

    def clear(self) -> None:
        self.api.llama_kv_cache_clear(self.context)

    def forward(self, tokens: list[int], start: int) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        code = self.api.llama_decode(
            self.context, self.lib.llama_batch_get_one(array, len(tokens), start, 0)
        )
        self.lib.llama_synchronize(self.context)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")

    def free(self) -> None:
        self.api.llama_free(self.context)
        self.api.llama_free_model(self.model)

    def quantize(self, source: str, out: str, kind: str, threads: int) -> None:
        raise RuntimeError("quantizing is not compared with ik_llama.cpp")


def _not_null(pointer: Any, what: str) -> Any:
    if not pointer:
        raise RuntimeError(f"{what} could not be loaded")
    return pointer


class Requests:
    """What the benchmark may ask of an engine; every answer has the seconds it took."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.loaded: dict[str, Any] | None = None
        self.known: dict[str, Any] = {}

    def about(self) -> dict[str, Any]:
        about: dict[str, Any] = self.engine.about()
        return about | {"python": sys.executable}

    def load(self, **what: Any) -> dict[str, Any]:
        """Load and warm up; nothing if it is what is loaded already."""
        if what != self.loaded:
            self.free()
            self.known = self.engine.load(**what)
            self.loaded = what
            self.prompt(32)
            self.generate(2)
        return self.known

    def free(self) -> dict[str, Any]:
        if self.loaded is not None:
            self.engine.free()
            self.loaded = None
        return {}

    def prompt(self, count: int) -> dict[str, Any]:
        """A prompt of `count` tokens, its last logits."""
        self.engine.clear()
        return self._timed(lambda: self.engine.forward(TOKENS[:count], 0))

    def generate(self, count: int) -> dict[str, Any]:
        """`count` tokens one by one, from an empty context."""
        self.engine.clear()

        def run() -> None:
            for position in range(count):
                self.engine.forward([TOKENS[position]], position)

        return self._timed(run)

    def quantize(self, source: str, kind: str, threads: int) -> dict[str, Any]:
        """A whole job, beside the source."""
        with tempfile.TemporaryDirectory(dir=Path(source).resolve().parent) as folder:
            out = str(Path(folder) / "out.gguf")
            return self._timed(lambda: self.engine.quantize(source, out, kind, threads))

    @staticmethod
    def _timed(work: Callable[[], None]) -> dict[str, Any]:
        begun = time.perf_counter()
        work()
        return {"seconds": time.perf_counter() - begun}


ENGINES = {"trit": Trit, "llama.cpp": Llama, "ik_llama.cpp": IkLlama}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engines print is not an answer
    try:
        requests = Requests(ENGINES[sys.argv[1]]())
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(requests, request.pop("do"))(**request)
        except Exception as error:  # the benchmark says it and ends
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
