"""The image vendor's work: resizing. The meter `pixel` counts the pixels of the input.

Boundary: bytes in, bytes out. Only a file's header is read before its size is judged, so that a
small file cannot unpack to a huge picture. Metadata (camera, place, comment,
colour profile) does not survive.
"""

import struct
import zlib
from collections.abc import Callable
from enum import StrEnum
from io import BytesIO
from typing import Final, TypeVar

from PIL import Image, ImageOps

from farthing.clients.demo.outcomes import Reason, Unworkable

__all__ = ["BYTES_MAX", "SIDE_MAX", "ImageFormat", "pixel_count", "resize"]

BYTES_MAX: Final = 32 * 1024 * 1024
_PIXELS_MAX: Final = 50_000_000
SIDE_MAX: Final = 8192

_READABLE: Final = ("PNG", "JPEG", "WEBP", "GIF")
# What Pillow raises for damaged files, found by cutting and flipping bytes of every format above.
_DAMAGE: Final = (
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
_T = TypeVar("_T")


class ImageFormat(StrEnum):
    """The formats that can be made."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


def pixel_count(image: bytes) -> int:
    """The pixels of an image, as its header states them: what `resize` is charged by.

    Raises:
        Unworkable: `too_large` or `broken`.
    """
    picture = _open(image)
    return picture.width * picture.height


def resize(
    image: bytes,
    width: int,
    height: int,
    format: str,  # noqa: A002 - the word every image library and every caller uses
) -> bytes:
    """Resize an image to exactly `width` by `height` pixels and write it as `format`.

    The picture is turned upright as its camera noted; of an animation the first frame is taken;
    where JPEG has no transparency, the ground is white.

    Args:
        image: PNG, JPEG, WebP or GIF.
        width: 1 to `SIDE_MAX`.
        height: 1 to `SIDE_MAX`; together no more pixels than an input may have.
        format: `png`, `jpeg` or `webp`.

    Raises:
        Unworkable: `invalid_format`, `invalid_size`, `too_large` or `broken`.
    """
    if format not in set(ImageFormat):
        raise Unworkable(Reason.INVALID_FORMAT, f"one of {', '.join(ImageFormat)}")
    if not (1 <= width <= SIDE_MAX and 1 <= height <= SIDE_MAX and width * height <= _PIXELS_MAX):
        raise Unworkable(Reason.INVALID_SIZE, f"sides of 1 to {SIDE_MAX} pixels")
    picture = _open(image)

    def work() -> bytes:
        upright = ImageOps.exif_transpose(picture)
        resized = _plain(upright, opaque=format == ImageFormat.JPEG).resize(
            (width, height), Image.Resampling.LANCZOS
        )
        resized.info.clear()
        out = BytesIO()
        resized.save(out, format=format)
        return out.getvalue()

    return _guarded(work)


def _open(image: bytes) -> Image.Image:
    if len(image) > BYTES_MAX:
        raise Unworkable(Reason.TOO_LARGE, f"{len(image)} of at most {BYTES_MAX} bytes")
    picture = _guarded(lambda: Image.open(BytesIO(image), formats=_READABLE))
    if picture.width * picture.height > _PIXELS_MAX:
        raise Unworkable(Reason.TOO_LARGE, f"more than {_PIXELS_MAX} pixels")
    return picture


def _plain(picture: Image.Image, *, opaque: bool) -> Image.Image:
    """The picture in plain colours: palettes, CMYK and deep greys have no smooth resizing."""
    if picture.mode.startswith("I"):
        # Sixteen bits a pixel: `convert` alone would cut everything above 255 off to white.
        return picture.convert("I").point(lambda value: value / 256).convert("L")
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        if not opaque:
            return coloured
        ground = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(ground, coloured).convert("RGB")
    return picture if picture.mode in {"RGB", "L"} else picture.convert("RGB")


def _guarded(work: Callable[[], _T]) -> _T:
    try:
        return work()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise Unworkable(Reason.TOO_LARGE, "it unpacks to too many pixels") from None
    except _DAMAGE as error:
        raise Unworkable(Reason.BROKEN, str(error)) from None
