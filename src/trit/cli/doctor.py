"""`trit doctor`: what this machine offers, and what would make it faster."""

from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import Json

if TYPE_CHECKING:
    from trit.doctor import Doctor


def command(
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Measure bandwidth and int8 products."),
    ] = True,
    json: Json = False,
) -> None:
    """Describe this machine, its limits, and what would be faster."""
    from trit.cli._terminal import note, print_json
    from trit.doctor import doctor

    if measure:
        note("measuring for about two seconds, with up to 1 GiB")
    found = doctor(measure)
    if json:
        print_json(found.to_dict())
    else:
        print(as_text(found))


def as_text(found: "Doctor") -> str:
    """The answer for people, in 80 columns."""
    import textwrap

    from trit.cli._terminal import size, table

    def bytes_of(count: int | None) -> str:
        return "not told" if count is None else size(count)

    rows = [
        ("processor", found.cpu),
        ("instructions", f"{found.isa}, of {', '.join(found.isas)}"),
        ("threads", f"{found.threads} of {found.processors} processors"),
        ("memory", f"{bytes_of(found.memory_free)} free of {bytes_of(found.memory_total)}"),
        ("cgroup", "no limit" if found.memory_limit is None else size(found.memory_limit)),
    ]
    if found.read_bytes_per_second is not None and found.int8_ops_per_second is not None:
        rows.append(("bandwidth", f"{found.read_bytes_per_second / 1e9:.1f} GB/s read"))
        rows.append(("int8 products", f"{found.int8_ops_per_second / 1e9:.0f} Gop/s"))
    rows += [
        ("large pages", found.large_pages or "not told"),
        ("GPU", ", ".join(found.gpus) or "none found"),
        ("cache", f"{size(found.cache_bytes)}, {size(found.disk_free)} free on its disk"),
        ("", found.cache_folder),
        ("system", found.system),
        *((name, text) for name, text in found.versions.items()),
    ]
    advice = [
        textwrap.fill(each, 78, initial_indent="- ", subsequent_indent="  ")
        for each in found.advice
    ]
    return "\n".join([table(rows), "", *(advice or ["Nothing is known that would be faster."])])
