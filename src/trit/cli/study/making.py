"""The study of `trit compare`: begun or gone on with, its answers made, a machine asked."""

from pathlib import Path
from typing import TYPE_CHECKING

from trit.errors import UsageError

if TYPE_CHECKING:
    from trit.cli.chat.settings import Asked
    from trit.compare import Settings, Store


def study(
    models: list[str],
    prompts: Path | None,
    output: Path,
    asked: "Asked",
    ctx: int | None,
    catch_every: int | None,
    belief: bool | None,
) -> "Store":
    """The study of the file, begun if there is none."""
    from trit.cli._resolve import resolve
    from trit.cli._terminal import note
    from trit.compare import Store, begin, own_settings, read_prompts

    if not output.exists() and (len(models) < 2 or prompts is None):
        raise UsageError(
            f"{output}: there is no such study. To begin one: trit compare A B --prompts FILE"
        )
    texts = [] if prompts is None else read_prompts(prompts)
    paths = [resolve(model) for model in models]
    if output.exists():
        with Store.open(output) as store:
            base, known = store.settings, len(store.prompts())
    else:
        base, known = own_settings(paths[0]), 0
        note("reading the files for their hashes")
    settings = _with(base, asked, ctx, catch_every, belief)
    store = begin(paths, texts, output, settings)
    if 0 < known < len(store.prompts()):
        note(f"{len(store.prompts()) - known} new prompts")
    return store


def _with(
    base: "Settings",
    asked: "Asked",
    ctx: int | None,
    catch_every: int | None,
    belief: bool | None,
) -> "Settings":
    """`base` with the flags that were given."""
    from dataclasses import replace

    return replace(
        base,
        seed=base.seed if asked.seed is None else asked.seed,
        max_tokens=base.max_tokens if asked.max_tokens is None else asked.max_tokens,
        system=base.system if asked.system is None else asked.system,
        ctx=base.ctx if ctx is None else ctx,
        catch_every=base.catch_every if catch_every is None else catch_every,
        ask_belief=base.ask_belief if belief is None else belief,
        sampling=replace(asked.sampling(base.sampling), seed=None),
    )


def make(store: "Store", threads: int | None, jsonl: bool) -> None:
    """Make answers, with their cost before and how far they are on the way."""
    from trit.cli._progress import Progress
    from trit.cli._terminal import counted, note
    from trit.cli.chat.settings import described
    from trit.compare import Making
    from trit.compare import make as make_answers

    missing = len(store.missing())
    if not missing:
        return
    settings = store.settings
    sampling = described(settings.sampling).rpartition(", ")[0]
    note(
        f"{counted(missing, 'answer')} to make, at most {missing * settings.max_tokens:,} tokens; "
        f"the time is known after the first ones\nsampling: {sampling}, seed {settings.seed}"
    )
    with Progress(jsonl=jsonl, unit="token") as progress:

        def report(making: Making) -> None:
            progress.remark = f"{making.done} of {making.total} answers"
            progress(f"answers of {making.model}", making.tokens, making.most_tokens)

        make_answers(store, threads, report)
    note(f"{store.path}: {counted(len(store.made()), 'answer')}")


def judged(store: "Store", reference: str, threads: int | None, jsonl: bool) -> None:
    """Have a reference read the answers."""
    from trit.cli._progress import Progress
    from trit.cli._resolve import resolve
    from trit.compare import judge

    path = resolve(reference)
    with Progress(jsonl=jsonl, unit="answer") as progress:
        judge(
            store, path, path.stem, threads,
            lambda done, total: progress(f"judging by {path.stem}", done, total),
        )  # fmt: skip
