"""The tree cut into tiles, and where each is found: C2SP tlog-tiles with tiles of 256 hashes.

Boundary: paths and hashes; nothing is served here. Source: https://c2sp.org/tlog-tiles,
spec/merkle.md.
"""

import re
from dataclasses import dataclass
from typing import Final

from farthing.protocol.merkle import Tree

__all__ = ["TILE_WIDTH", "Tile", "parse_tile", "tile_of", "tile_path"]

_TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 2**_TILE_HEIGHT
# Eight levels of tiles cover 2^64 leaves; sizes end at 2^63.
_LEVEL_MAX: Final = 7

_PATH: Final = re.compile(
    r"(?P<level>0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The first `width` hashes of the tile `index` of a level; 256 where it is complete."""

    level: int
    index: int
    width: int = TILE_WIDTH


def tile_path(tile: Tile) -> str:
    """Where a tile is found, below `/tile/`.

    The number is written in groups of three digits, all but the last behind an `x`.
    """
    groups, rest = [f"{tile.index % 1000:03}"], tile.index // 1000
    while rest:
        groups.insert(0, f"x{rest % 1000:03}")
        rest //= 1000
    partial = "" if tile.width == TILE_WIDTH else f".p/{tile.width}"
    return f"{tile.level}/{'/'.join(groups)}{partial}"


def parse_tile(path: str) -> Tile | None:
    """The tile that a path names in its one spelling, or None."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    tile = Tile(
        level=int(match["level"]),
        index=int(re.sub(r"[x/]", "", match["index"])),
        width=int(match["width"] or TILE_WIDTH),
    )
    well_formed = tile.level <= _LEVEL_MAX and tile.width <= TILE_WIDTH
    return tile if well_formed and tile_path(tile) == path else None


def tile_of(tree: Tree, level: int, index: int, width: int) -> bytes | None:
    """The hashes of a tile, one after another; None where the tree does not reach that far."""
    if not (0 <= level <= _LEVEL_MAX and index >= 0 and 0 < width <= TILE_WIDTH):
        return None
    shift, first = level * _TILE_HEIGHT, index * TILE_WIDTH
    if (first + width) << shift > tree.size:
        return None
    return b"".join(tree.node(shift, first + place) for place in range(width))
