"""The pool of threads: every task of every job runs exactly once, without a data race.

The pool is compiled here with a driver of its own, under ThreadSanitizer and plain: the sanitizer
sees races that did no harm this time, the plain build is fast enough to meet those that did.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "core"
SECONDS = "2"
TIMEOUT = 60  # a job whose tasks are miscounted never ends

pytestmark = pytest.mark.unsanitized


@pytest.fixture(scope="module", params=["-fsanitize=thread", "-O2"])
def stress(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled driver."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler is on the path")
    program = tmp_path_factory.mktemp("stress") / "threads_stress"
    sources = [str(HERE / "threads_stress.cpp"), str(CORE / "threads.cpp")]
    options = ["-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Werror", request.param, "-pthread"]
    command = [compiler, *options, f"-I{CORE}", *sources, "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    if built.returncode and "tsan" in built.stderr:
        pytest.skip(f"this compiler has no ThreadSanitizer: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    return program


@pytest.mark.parametrize("threads", [2, 4])
def test_every_task_runs_exactly_once(stress: Path, threads: int) -> None:
    command = [str(stress), str(threads), SECONDS]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    assert run.returncode == 0, f"{run.stdout[-400:]}\n{run.stderr[-4000:]}"
    assert int(run.stdout.split()[0]) > 1000
