"""`trit recommend`: which quant to take, in three lines, and the table behind them."""

from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import CacheTypes, Context, Device, Json, Measure, Ram, cache_type

if TYPE_CHECKING:
    from trit.recommend import Candidate, Recommendation

DOES_NOT_FIT = 3


def command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="A model, a shape such as 8B, or several files."),
    ],
    ctx: Context = None,
    cache: CacheTypes = None,
    ram: Ram = None,
    device: Device = None,
    measure: Measure = True,
    json: Json = False,
) -> int:
    """Say which quant to take: quality, memory and speed weighed.

    Quality is read from the cards of the files ('trit quantize --card'), or from the curve of a
    model that was measured, and marked so. Exit code 3 where nothing fits.
    """
    from trit.cli._terminal import note, print_json
    from trit.recommend import recommend

    found = recommend(
        models, ctx, cache_type=cache_type(cache), ram=ram, device=device, measure=measure,
        on_notice=note,
    )  # fmt: skip
    if json:
        print_json(found.to_dict())
    else:
        print(as_text(found))
    return DOES_NOT_FIT if found.chosen is None else 0


def as_text(found: "Recommendation") -> str:
    """Three lines, then the table."""
    from trit.cli._terminal import machine_line, wrapped

    lines = [*map(wrapped, found.words), "", _table(found), "", machine_line(found.machine)]
    if any(not each.measured for each in found.candidates):
        lines.append(f"~ read off the curve of {found.curve.model}, not measured on this model")
    lines.append("the best file of a given size: trit quantize SRC OUT.gguf --fit SIZE")
    return "\n".join(lines)


def _table(found: "Recommendation") -> str:
    from trit.cli._terminal import rate, size, table

    rows = [("", "TYPE", "BITS", "IN ALL", "FITS", "T/S", "LOSS", "KNOWN FROM")]
    for each in found.candidates:
        chosen = found.chosen is not None and each.label == found.chosen.label
        speed = each.option.tokens_per_second
        rows.append(
            (
                "->" if chosen else "",
                _short(each),
                f"{each.option.bits:.2f}",
                size(each.option.needs.total),
                "yes" if each.fits else "no",
                "?" if speed is None else rate(speed),
                f"{'' if each.measured else '~'}{each.kld:.2g}",
                each.basis,
            )
        )
    return table(rows, right=frozenset({2, 3, 5, 6}))


def _short(each: "Candidate") -> str:
    """The file's name, its end where it is long, or the type."""
    name = each.label.rpartition("/")[2]
    return name if len(name) <= 24 else "…" + name[-23:]
