"""What rejecting a hostile file may cost: a second, and 64 MiB of memory beside the file."""

import ctypes
import gc
import mmap
import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trit.errors import InvalidFileError

SECONDS = 1.0
LOOPS = 8
MEMORY_BYTES = 64 << 20


@contextmanager
def memory_limit(count: int) -> Iterator[None]:
    """Let the process take at most `count` bytes more; then allocations fail with MemoryError.

    The kernel counts private memory only, so that the mapping of the file itself is free. What the
    allocator holds from the tests before is given back first, or it would be taken uncounted.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)
    status = Path("/proc/self/status").read_text()
    match = re.search(r"VmData:\s+(\d+) kB", status)
    assert match is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(match[1]) * 1024 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def assert_rejected(open_file: Callable[[], object], name: str, message: str) -> None:
    """Opening raises InvalidFileError within the budget, which is of this process's own time: how
    busy the machine is does not matter.

    The message names the file, says what was expected, and matches `message`.
    """
    gc.collect()
    with memory_limit(MEMORY_BYTES), pytest.raises(InvalidFileError) as caught:
        start = time.process_time()
        try:
            open_file()
        finally:
            seconds = time.process_time() - start
    problem = str(caught.value)
    assert name in problem
    assert "expected" in problem
    assert re.search(message, problem, re.DOTALL), problem
    assert len(problem) < 1000
    # Twice that where a core is slow or its caches shared, in turns of a plain loop there.
    assert seconds < SECONDS or seconds < LOOPS * _loop_seconds()


def _loop_seconds() -> float:
    """This process's own time for ten million turns, a quarter of a second on a core of 2025."""
    start = time.process_time()
    for _ in range(10_000_000):
        pass
    return time.process_time() - start


def test_the_limit_is_real() -> None:
    # Asked of the kernel: the allocator might find room in what earlier tests have given back.
    with memory_limit(MEMORY_BYTES), pytest.raises(OSError, match="Cannot allocate memory"):
        mmap.mmap(-1, 2 * MEMORY_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
