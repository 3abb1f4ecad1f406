"""The cgroups around this process: its own and those that it lies in, whose limits all count.

Source: cgroups(7).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cgroups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of the groups around this process, the innermost first, not all of which exist.

    Version 2, and of version 1 those of `controller`. `root`: where /proc and /sys are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # In v1 the controllers have trees of their own. "..": beyond what is mounted here.
        top = mounts / controller if controllers else mounts
        folder = top.joinpath(*(part for part in PurePosixPath(path).parts if part not in "/.."))
        for group in (folder, *folder.parents):
            if not group.is_relative_to(top):
                break
            yield group
