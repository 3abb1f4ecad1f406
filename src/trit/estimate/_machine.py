"""The machine that is planned for: this one, a named device, or one of a given size."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from trit.errors import UsageError
from trit.evaluate._machine import busy, cpu_name, read_rate
from trit.machine.memory import free_memory
from trit.machine.processors import default_threads
from trit.sizes import parse_size

TABLE = Path(__file__).with_name("devices.toml")
KEPT = 2 << 30  # bytes that a system and its desktop take, of machines of 16 GiB and more …
KEPT_SHARE = 8  # … of smaller ones this part
# Of the bandwidth as it is measured, decoding reaches this much (docs/performance.md: the middle of
# eleven models on the first machine there); of what is published for a device, reading does.
DECODING_SHARE = 0.8
READING_SHARE = 0.8


@dataclass(frozen=True)
class Machine:
    """Where a model is to run.

    memory      bytes that a model may take
    total       bytes that the machine has; None: not known
    bandwidth   bytes per second that memory is read with; None: not known
    basis       what `bandwidth` is from, in words
    kept        what `memory` is, in words
    """

    name: str
    memory: int
    total: int | None
    bandwidth: float | None
    basis: str
    kept: str
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "memory_bytes": self.memory,
            "total_bytes": self.total,
            "read_bytes_per_second": self.bandwidth,
            "bandwidth_basis": self.basis,
            "memory_basis": self.kept,
            "threads": self.threads,
        }


@dataclass(frozen=True)
class Device:
    """A row of devices.toml: bytes of memory, the part of it one program gets (None: all that the
    system leaves), published bytes per second, and where that is from."""

    name: str
    about: str
    memory: int
    share: float | None
    bandwidth: float
    source: str


@cache
def devices() -> dict[str, Device]:
    """Every known device by name."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["device"]
    made = [
        Device(
            name=row["name"],
            about=row["about"],
            memory=row["gib"] << 30,
            share=row.get("share"),
            bandwidth=1e9 * row["gb_per_second"],
            source=row["source"],
        )
        for row in rows
    ]
    return {device.name: device for device in made}


def left_for_models(total: int) -> int:
    """Bytes of a machine's memory that its system leaves: 2 GiB less, of small ones an eighth."""
    return total - min(KEPT, total // KEPT_SHARE)


def machine(
    ram: str | int | None = None, device: str | None = None, measure: bool = True
) -> Machine:
    """The machine asked for; without either, this one with what is free on it now.

    `ram`: the memory of a machine that is like this one in all else. `measure`: whether this one's
    bandwidth may be measured, for less than two seconds. UsageError for both, or an unknown device.
    """
    if ram is not None and device is not None:
        raise UsageError(f"--ram {ram} and --device {device}: one machine at a time.")
    if device is not None:
        return _device(device)
    threads = default_threads()
    rate = read_rate(threads) if measure else None
    basis = f"measured here, {threads} thread{'s' if threads > 1 else ''}" if rate else ""
    if rate and busy():
        basis += ", while others compute"
    if ram is None:
        free = free_memory()
        if free is None:
            raise UsageError("this system does not tell how much memory is free: name it by --ram.")
        kept = "free now, within the cgroup's limits"
        return Machine(cpu_name(), free, None, rate, basis, kept, threads)
    total = parse_size(str(ram), "--ram")
    return Machine(f"a machine of {ram}", left_for_models(total), total, rate, basis,
                   _kept(total), threads)  # fmt: skip


def _kept(total: int) -> str:
    kept = min(KEPT, total // KEPT_SHARE)
    size = f"{kept / 2**30:.1f} GiB" if kept >= 1 << 30 else f"{kept / 2**20:.0f} MiB"
    return f"{size} left to the system"


def _device(name: str) -> Machine:
    found = devices().get(name.lower())
    if found is None:
        raise UsageError(f"--device {name}: known are {', '.join(devices())}. Or give --ram.")
    memory, kept = left_for_models(found.memory), _kept(found.memory)
    if found.share is not None:
        memory, kept = (
            int(found.memory * found.share),
            f"the {found.share:.0%} that an app may get, assumed",
        )
    basis = f"{READING_SHARE:.0%} of {found.bandwidth / 1e9:g} GB/s: {found.source}"
    return Machine(found.about, memory, found.memory, READING_SHARE * found.bandwidth, basis, kept,
                   4)  # fmt: skip
