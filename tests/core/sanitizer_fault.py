"""A fault made on purpose, which a sanitizer must end: the proof that it is on.

    sanitizer_fault.py address | undefined | race      makes it; survives only unnoticed
    sanitizer_fault.py --expect KIND                   prints what the report must say

Run by scripts/sanitize on a core compiled for it. The faults are in what the core is given, the
core itself has none: bytes declared unreadable in the middle of a row (under every instruction set,
the last of which must still be reached), floats at an odd address, one output for two threads.
"""

import ctypes
import os
import sys
import threading

EXPECTED = {
    "address": "use-after-poison",
    "undefined": "misaligned address",
    "race": "data race",
}
BLOCK_BYTES = 18  # of q4_0


def poison() -> None:
    """Each set of kernels in a process of its own reads a block that is not to be read."""
    import numpy as np

    from trit import _core

    for isa in _core.isas():
        if (child := os.fork()) == 0:
            data = np.zeros((1, 8 * BLOCK_BYTES), np.uint8)
            hidden = ctypes.c_void_p(data.ctypes.data + 4 * BLOCK_BYTES)
            ctypes.CDLL(None).__asan_poison_memory_region(hidden, ctypes.c_size_t(BLOCK_BYTES))
            _core.decode("q4_0", data, 256, isa)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            sys.exit(0)  # unnoticed
    sys.exit(1)


def misalign() -> None:
    """Float inputs that begin at an odd address."""
    import numpy as np

    from trit import _core

    weights = np.zeros(4 * 256 + 1, np.uint8)[1:].view(np.float32).reshape(1, 256)
    _core.quantize("q4_0", weights, None, 1)


def race() -> None:
    """Two engines write their hidden states into one array."""
    import numpy as np
    from small_plan import Parts, small_plan

    from trit.engine import Engine

    tokens = np.arange(20_000, dtype=np.int32) % 100
    out = np.empty((len(tokens), 256), np.float32)
    engines = [Engine(*small_plan(Parts()), threads=1) for _ in range(2)]
    for _ in range(20):  # until they meet
        threads = [threading.Thread(target=e._decoder.embed, args=(tokens, out)) for e in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    kind = sys.argv[-1]
    if "--expect" in sys.argv:
        print(EXPECTED[kind])
    else:
        import sanitized_core  # noqa: F401  (the core, instead of the one installed)

        {"address": poison, "undefined": misalign, "race": race}[kind]()
