"""What the efforts of `trit quantize` are worth: KLD of files against their source, in pairs.

    python benchmarks/efforts.py F16 --text TEXT fast.gguf balanced.gguf best.gguf

KLD at every fourth position of the second half of each window of 512, the same positions for all.
Prints means ± standard errors over windows, and the ratio of each file to the one before it, with
95% of 10,000 paired bootstraps over windows (seed 0). TEXT shall not be what was calibrated on.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from groups import CTX, asked, cut, logits, ratio

from trit.evaluate._opened import Opened
from trit.evaluate._rows import Scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    parts = cut(given.source, given.text, given.windows)
    base = logits(given.source, parts, given.threads)
    digest = hashlib.sha256(given.text.read_bytes()).hexdigest()
    print(f"{given.text.name} {digest}, {len(parts)} windows of {CTX}")
    before = None
    for path in given.files:
        with (
            Opened(path, CTX, given.threads) as model,
            Scorer(base[0].shape[1], given.threads) as scorer,
        ):
            scores = [
                scorer.compare(asked(model, part), of, part.expected)[:, 2:].mean(axis=0)
                for part, of in zip(parts, base, strict=True)
            ]
        kld, top = np.array(scores).T
        error = kld.std(ddof=1) / len(kld) ** 0.5
        line = f"{path.name}: KLD {kld.mean():.5f} ± {error:.5f}, same top {100 * top.mean():.1f}%"
        print(line if before is None else f"{line}, of the one before {ratio(kld, before)}")
        before = kld


if __name__ == "__main__":
    main()
