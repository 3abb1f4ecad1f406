"""The energy counters of processors: RAPL, as Linux shows it in /sys/class/powercap.

A domain is a folder with `name`, `energy_uj` (microjoules, counting up) and `max_energy_range_uj`,
at which the counter begins again. Packages are counted, and memory where a domain of its own has
it; core and uncore are part of the package, psys of the whole machine. Virtual machines rarely have
any; since 2020 only root may read them. Source: Linux, Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trit.errors import UnsupportedError

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Domain:
    """A counter: its name, its folder, and the microjoules at which it begins again."""

    name: str
    folder: Path
    range_uj: int

    def read(self) -> int:
        """Microjoules since some time; UnsupportedError where they may not be read."""
        path = self.folder / "energy_uj"
        try:
            return int(path.read_text(encoding="ascii"))
        except PermissionError:
            raise UnsupportedError(
                f"{path} may be read by root alone: run as root, or 'chmod a+r' it"
            ) from None
        except (OSError, ValueError) as error:
            raise UnsupportedError(f"{path} cannot be read: {error}") from None


class Meter:
    """Joules of all domains together. UnsupportedError, with the reason, where there are none."""

    def __init__(self, folder: Path) -> None:
        self.domains = tuple(_domains(folder))
        if not self.domains:
            raise UnsupportedError(f"{folder} has no RAPL counters")
        self._last = [domain.read() for domain in self.domains]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the domains: package-0, dram and so on."""
        return tuple(domain.name for domain in self.domains)

    def advance(self) -> float:
        """Joules since the last call; a counter may have begun again once, not twice."""
        now = [domain.read() for domain in self.domains]
        moved = 0
        for domain, before, after in zip(self.domains, self._last, now, strict=True):
            moved += after - before + (domain.range_uj if after < before else 0)
        self._last = now
        return moved / 1e6


def _domains(folder: Path) -> Iterator[Domain]:
    for each in sorted(folder.glob("intel-rapl:*")):  # AMD's are called so, too
        try:
            name = (each / "name").read_text(encoding="ascii").strip()
            most = int((each / "max_energy_range_uj").read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        if name.startswith("package-") or name == "dram":
            yield Domain(name, each, most)
