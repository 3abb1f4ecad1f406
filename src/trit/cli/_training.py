"""What `trit train` and `trit distill` show alike: what a run will cost, and the run under way."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from trit.cli._interrupts import Interrupts
from trit.cli._progress import Progress
from trit.cli._terminal import counted, note, size

if TYPE_CHECKING:
    from trit.training import Cost

Result = TypeVar("Result", covariant=True)

NO_PLOT = "no plot: it needs matplotlib (pip install 'trit[plot]')"


class Run(Protocol[Result]):
    """A run that is prepared, in its folder."""

    folder: Path

    def run(
        self,
        on_progress: Callable[[str, int, int], None],
        on_event: Callable[[dict[str, Any]], None],
        stop: Callable[[], bool],
    ) -> Result: ...


def followed(
    prepared: Run[Result], tell: Callable[[Progress, dict[str, Any], bool], None], jsonl: bool
) -> tuple[Result, bool]:
    """Take the steps that are left; the result, and whether Ctrl-C came too late to stop them.

    `tell` is given each line of the run's log. KeyboardInterrupt, once it is said what is kept.
    """
    with Progress(jsonl=jsonl, unit="token") as progress, Interrupts() as interrupts:
        try:
            result = prepared.run(
                progress, lambda entry: tell(progress, entry, jsonl), lambda: interrupts.asked
            )
        except KeyboardInterrupt:
            progress.__exit__(None, None, None)
            if (prepared.folder / "state.npz").exists():
                note(f"the state is kept in {prepared.folder}; the same command goes on there")
            raise
    return result, interrupts.asked


def cost_text(cost: "Cost", step: int, steps: int) -> str:
    """What is left of a run of so many steps will cost, behind `step` of them."""
    from trit.training import duration

    done = f" of {steps:,}, {step:,} are done" if step else ""
    return (
        f"{counted(cost.steps, 'step')}{done}; {counted(cost.tokens, 'token')}, "
        f"{cost.flops:.2g} operations; {size(cost.memory_bytes)} of memory and activations, "
        f"{size(cost.disk_bytes)} of disk; about {duration(cost.seconds)} with "
        f"{counted(cost.threads, 'thread')}"
    )
