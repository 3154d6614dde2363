"""What may happen to a file: seeded, so that a failure can be had again."""

from __future__ import annotations

import random
from pathlib import Path

PICKLE = b"\x80\x02}q\x00."
DAMAGES = ("flipped", "single bits", "digit", "cut", "empty", "another kind", "folder")


def damage(path: Path, kind: str, seed: int) -> None:
    """Damage the file: 64 bytes in a row, 64 bits anywhere, one digit, its end, or all of it."""
    drawn, content = random.Random(f"{path.name} {kind} {seed}"), bytearray(path.read_bytes())
    if kind == "folder":
        path.unlink()
        path.mkdir()
        return
    if kind == "flipped":
        first = drawn.randrange(max(1, len(content) - 64))
        for place in range(first, min(len(content), first + 64)):
            content[place] ^= drawn.randrange(1, 256)
    elif kind == "single bits":
        for place in drawn.sample(range(len(content)), min(len(content), 64)):
            content[place] ^= 1 << drawn.randrange(8)
    elif kind == "digit":
        place = drawn.choice([k for k, byte in enumerate(content) if byte in b"0123456789"])
        content[place] = drawn.choice(b"0123456789".replace(content[place : place + 1], b""))
    others = {"cut": content[: drawn.randrange(1, len(content))], "empty": b"", "another kind": PICKLE}
    path.write_bytes(others.get(kind, content))
