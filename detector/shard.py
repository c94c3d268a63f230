"""A share of a fleet for one of several detectors."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from detector.telemetry import Gpu

_WRITTEN = re.compile(r"(\d{1,4})/(\d{1,4})$")


@dataclass(frozen=True, slots=True)
class Shard:
    """The `index`-th of `of` equal shares, from 1.

    By a hash of the rack, so that a rack's peers stay together, and of the node where racks are not known. PromQL
    cannot hash a label, so the detector seeks out its nodes and asks for them by name.
    """

    index: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`i/n`. Raises ValueError."""
        written = _WRITTEN.match(text)
        shard = cls(int(written[1]), int(written[2])) if written else cls(0, 0)
        if not 1 <= shard.index <= shard.of:
            raise ValueError(f"{text!r} is not a shard: it is written i/n, with i from 1 to n")
        return shard

    def has(self, gpu: Gpu) -> bool:
        return self.of == 1 or _number(gpu) % self.of == self.index - 1

    def part(self, gpus: Collection[Gpu], most: int) -> Shard:
        """A share of this one with about so many of its GPUs; racks are whole, so none is exactly that large."""
        count = -(-max(1, len(gpus)) // most)
        shares = [Shard(self.index + place * self.of, self.of * count) for place in range(count)]
        sizes = Counter(_number(gpu) % (self.of * count) + 1 for gpu in gpus)
        filled = [share for share in shares if sizes[share.index]] or shares
        return min(filled, key=lambda share: abs(sizes[share.index] - most))


def _number(gpu: Gpu) -> int:
    place = f"rack {gpu.rack}" if gpu.rack else f"node {gpu.node}"
    return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest(), "big")
