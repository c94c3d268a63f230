"""A share of a fleet for one of several detectors."""

from __future__ import annotations

import hashlib
import re
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

    def part(self, parts: int) -> Shard:
        """One of `parts` equal shares of this one."""
        return Shard(self.index, self.of * parts)

    def has(self, gpu: Gpu) -> bool:
        if self.of == 1:
            return True
        place = f"rack {gpu.rack}" if gpu.rack else f"node {gpu.node}"
        digest = hashlib.blake2b(place.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.index - 1
