"""`trit estimate`: the memory a model takes, part by part, and what fits."""

from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import CacheTypes, Context, Device, Json, Measure, Ram, cache_type

if TYPE_CHECKING:
    from trit.estimate import Canyon, Estimate, Option

DOES_NOT_FIT = 3
SHOWN = ("F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K",
         "IQ2_XXS", "IQ1_S", "TQ1_0")  # fmt: skip


def command(
    model: Annotated[
        str, typer.Argument(help="File, folder, model name, config.json, or a shape: 70B.")
    ],
    ctx: Context = None,
    type: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help="The mix. Default: the file as it is, Q4_K_M."),
    ] = None,
    bpw: Annotated[
        float | None, typer.Option("--bpw", metavar="BITS", help="Or so many bits per weight.")
    ] = None,
    cache: CacheTypes = None,
    parallel: Annotated[
        int, typer.Option("--parallel", "-np", min=1, metavar="N", help="Contexts at a time.")
    ] = 1,
    ram: Ram = None,
    device: Device = None,
    measure: Measure = True,
    all_: Annotated[bool, typer.Option("--all", help="Every mix, not only the usual.")] = False,
    json: Json = False,
) -> int:
    """Say what fits: a model's weights, context, scratch, and its speed.

    With --ram or --device, exit code 3 where nothing of the model fits.
    """
    from trit.cli._terminal import note, print_json
    from trit.estimate import estimate

    found = estimate(
        model, ctx, type=type, bpw=bpw, cache_type=cache_type(cache), sequences=parallel,
        ram=ram, device=device, measure=measure, on_notice=note,
    )  # fmt: skip
    if json:
        print_json(found.to_dict())
    else:
        print(as_text(found, all_=all_))
    fits = found.chosen.fits or any(each.fits for each in found.mixes)
    named = ram is not None or device is not None
    return DOES_NOT_FIT if named and not fits else 0


def as_text(found: "Estimate", *, all_: bool) -> str:
    """The answer for people, in 80 columns."""
    from trit.cli._terminal import human, machine_line, wrapped

    most = f"{human(found.parameters)} weights, a context of {found.context_length:,} at most"
    lines = [f"{found.model}: {most}"]
    if found.note:
        lines.append(wrapped(f"({found.note})"))
    lines += [machine_line(found.machine), "", _parts(found)]
    if found.advice:
        lines += ["", "What would fit:", *(f"  {each}" for each in found.advice)]
    shown = [each for each in found.mixes if all_ or each.type in SHOWN]
    lines += ["", _mixes(shown)]
    lines += ["", *_canyon(found.canyon, found.asked.ctx)]
    return "\n".join(lines)


def _parts(found: "Estimate") -> str:
    from trit.cli._terminal import counted, rate, size, table

    chosen, taken, asked = found.chosen, found.chosen.needs, found.asked
    several = f", {asked.sequences} at a time" if asked.sequences > 1 else ""
    verdict = "fits" if chosen.fits else "DOES NOT FIT"
    rows = [
        ("  weights", size(taken.weights), "each is read for every token, so all stay in memory"),
        ("  cache", size(taken.cache), f"keys and values in {asked.cache_type}"),
        ("  scratch", size(taken.scratch), "buffers of the engine"),
        ("  program", size(taken.program), "interpreter, libraries, vocabulary"),
        ("  in all", size(taken.total), f"of {size(found.machine.memory)}: {verdict}"),
    ]
    if chosen.tokens_per_second is not None:
        rows.append(
            ("  speed", f"{rate(chosen.tokens_per_second)} t/s", "expected, from bandwidth")
        )
    if chosen.largest_ctx:
        rows.append(("  context", f"{chosen.largest_ctx:,}", "tokens at most with this memory"))
    named = "" if chosen.type.endswith("bits") else f"{chosen.type}, "
    head = f"{named}{chosen.bits:.2f} bits per weight, "
    return "\n".join(
        [head + f"context of {counted(asked.ctx, 'token')}{several}",
         table(rows, right=frozenset({1}))]
    )  # fmt: skip


def _mixes(mixes: "list[Option]") -> str:
    """A row per mix."""
    from trit.cli._terminal import rate, size, table

    rows = [("TYPE", "BITS", "WEIGHTS", "IN ALL", "FITS", "CONTEXT", "T/S")]
    for each in mixes:
        speed = each.tokens_per_second
        rows.append(
            (
                each.type,
                f"{each.bits:.2f}",
                size(each.needs.weights),
                size(each.needs.total),
                "yes" if each.fits else "no",
                f"{each.largest_ctx:,}" if each.largest_ctx else "none",
                "?" if speed is None else rate(speed),
            )
        )
    return table(rows, right=frozenset({1, 2, 3, 5, 6}))


def _canyon(rows: "tuple[Canyon, ...]", ctx: int) -> list[str]:
    from trit.cli._terminal import size, table
    from trit.estimate import RAM_GIB

    cells = [("BITS", "WEIGHTS", "IN ALL", *(f"{gib} GiB" for gib in RAM_GIB))]
    for row in rows:
        marks = ["yes" if most >= ctx else f"{most:,}" if most else "-" for most in row.contexts]
        taken = row.needs
        cells.append((f"{row.bits:.3g}", size(taken.weights), size(taken.total), *marks))
    return [
        f"The canyon: all weights at so many bits and {ctx:,} tokens of context, on machines",
        "of so much memory; 2 GiB of it (of small ones an eighth) are the system's.",
        "A number is the most context that fits where less than that does; -: nothing.",
        "1.58 bits are for models that were trained so.",
        table(cells, right=frozenset(range(9))),
    ]
