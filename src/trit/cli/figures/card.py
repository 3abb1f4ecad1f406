"""The quality card for people, and its measuring after `trit quantize --card`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trit.evaluate.card import Card

WORST = 2  # tensors named


def fill(path: Path, source: Path, threads: int | None, jsonl: bool) -> "Card":
    """Measure, with progress on stderr, and write the card into the file."""
    from trit.evaluate import card

    found = measured(path, source, threads, jsonl)
    card.write(path, found)
    return found


def measured(path: Path, source: Path, threads: int | None, jsonl: bool) -> "Card":
    """Measure, with progress on stderr."""
    from trit.cli._progress import Progress
    from trit.cli._windows import WindowProgress
    from trit.evaluate import card

    windows = WindowProgress(jsonl=jsonl)
    try:
        with Progress(jsonl=jsonl, unit="weight") as progress:
            return card.measure(path, source, threads, windows, progress)
    finally:
        windows.end()


def card_rows(card: dict[str, Any]) -> list[tuple[str, str]]:
    """Label and figure, of `Card.to_dict`."""
    worst = sorted(card["tensor_errors"].items(), key=lambda item: -item[1])[:WORST]
    return [
        ("KLD", f"{card['kld']:.5f} ± {card['kld_stderr']:.5f} from the source"),
        (
            "PPL",
            f"{card['ppl']:.3f} ± {card['ppl_stderr']:.3f}; "
            f"{card['ppl_source']:.3f} ± {card['ppl_source_stderr']:.3f} of the source",
        ),
        (
            "same top token",
            f"{100 * card['same_top']:.2f} ± {100 * card['same_top_stderr']:.2f}%",
        ),
        (
            "measured on",
            f"{card['tokens']:,} tokens of the card's text ({card['text_sha256'][:16]}…), "
            f"ctx {card['ctx']}",
        ),
        (
            "largest errors",
            ", ".join(
                f"{name.removesuffix('.weight')} {100 * error:.1f}%" for name, error in worst
            ),
        ),
    ]
