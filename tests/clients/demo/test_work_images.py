"""The image vendor: the size and format asked for, or one documented reason."""

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image

from farthing.clients.demo import sample
from farthing.clients.demo.outcomes import Reason, Unworkable
from farthing.clients.demo.work_images import BYTES_MAX, ImageFormat, pixel_count, resize


def refusal(work: Callable[[], object]) -> Reason:
    with pytest.raises(Unworkable) as caught:
        work()
    return caught.value.reason


def written(picture: Image.Image, kind: str = "png", **options: object) -> bytes:
    out = BytesIO()
    picture.save(out, format=kind, **options)
    return out.getvalue()


def read(image: bytes) -> Image.Image:
    picture = Image.open(BytesIO(image))
    picture.load()
    return picture


def png_that_claims(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [header, data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


@pytest.mark.parametrize("kind", ImageFormat)
def test_an_image_gets_the_size_and_the_format_asked_for(kind: ImageFormat) -> None:
    picture = read(resize(sample.sample_png(120, 90), 33, 77, kind))

    assert (picture.size, picture.format) == ((33, 77), kind.name)


def test_the_picture_is_still_the_picture() -> None:
    halves = Image.new("RGB", (40, 20), "red")
    halves.paste("blue", (20, 0, 40, 20))

    smaller = read(resize(written(halves), 20, 10, "png"))

    assert smaller.getpixel((2, 5)) == (255, 0, 0)
    assert smaller.getpixel((17, 5)) == (0, 0, 255)


def test_the_same_work_gives_the_same_bytes() -> None:
    image = sample.sample_png(60, 40)

    assert resize(image, 30, 20, "jpeg") == resize(image, 30, 20, "jpeg")


def test_pixels_are_counted_from_the_input() -> None:
    assert pixel_count(sample.sample_png(321, 123)) == 321 * 123


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_the_usual_formats_are_read(kind: str) -> None:
    image = written(Image.new("RGB", (8, 8), "red"), kind)

    assert pixel_count(image) == 64
    assert read(resize(image, 4, 4, "png")).size == (4, 4)


@pytest.mark.parametrize("kind", ["bmp", "tiff", "ppm"])
def test_formats_that_are_not_offered_are_not_read(kind: str) -> None:
    image = written(Image.new("RGB", (8, 8)), kind)

    assert refusal(lambda: resize(image, 4, 4, "png")) is Reason.BROKEN


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("kind", ImageFormat)
def test_every_colour_mode_can_be_resized(mode: str, kind: ImageFormat) -> None:
    image = written(Image.new(mode, (8, 8)))

    assert read(resize(image, 4, 4, kind)).size == (4, 4)


def test_the_colours_of_print_become_those_of_a_screen() -> None:
    image = written(Image.new("CMYK", (8, 8)), "jpeg")

    assert read(resize(image, 4, 4, "png")).getpixel((1, 1)) == (255, 255, 255)


def test_deep_greys_stay_grey() -> None:
    image = written(Image.new("I;16", (8, 8), 0x8000))

    assert read(resize(image, 4, 4, "png")).getpixel((1, 1)) == 0x80


def test_transparency_is_kept_where_the_format_has_it_and_white_where_not() -> None:
    image = written(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))

    kept = read(resize(image, 4, 4, "png")).getpixel((1, 1))
    grounded = read(resize(image, 4, 4, "jpeg")).getpixel((1, 1))

    assert isinstance(kept, tuple)
    assert kept[3] == 0
    assert grounded == (255, 255, 255)


def test_a_picture_is_turned_upright_and_loses_its_notes() -> None:
    notes = Image.Exif()
    notes[0x0112] = 6  # the camera was held on its side
    notes[0x010F] = "the maker of the camera"
    left_red = Image.new("RGB", (16, 16), "blue")
    left_red.paste("red", (0, 0, 8, 16))

    turned = read(resize(written(left_red, "jpeg", exif=notes, quality=95), 16, 16, "png"))

    top, bottom = turned.getpixel((8, 2)), turned.getpixel((8, 13))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert (top[0] > 200, top[2] < 50) == (True, True)
    assert (bottom[0] < 50, bottom[2] > 200) == (True, True)
    assert (dict(turned.getexif()), turned.info) == ({}, {})


@pytest.mark.parametrize("kind", ImageFormat)
def test_what_was_written_beside_the_picture_is_left_behind(kind: ImageFormat) -> None:
    picture = Image.new("RGB", (16, 16), "red")
    image = written(picture, "jpeg", comment=b"taken at home", icc_profile=b"a profile", dpi=(9, 9))

    resized = resize(image, 8, 8, kind)

    assert b"taken at home" in image
    assert b"a profile" in image
    assert b"taken at home" not in resized
    assert b"a profile" not in resized
    assert read(resized).info.get("dpi") is None


def test_of_an_animation_the_first_frame_is_taken() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    image = written(first, "gif", save_all=True, append_images=[second])

    picture = read(resize(image, 4, 4, "png"))

    assert picture.convert("RGB").getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (-1, 5), (8193, 1), (1, 8193), (8192, 8192)])
def test_a_size_out_of_range_is_refused(size: tuple[int, int]) -> None:
    image = sample.sample_png(8, 8)

    assert refusal(lambda: resize(image, *size, "png")) is Reason.INVALID_SIZE


@pytest.mark.parametrize("kind", ["gif", "PNG", "", "pdf"])
def test_a_format_that_is_not_offered_is_refused(kind: str) -> None:
    image = sample.sample_png(8, 8)

    assert refusal(lambda: resize(image, 4, 4, kind)) is Reason.INVALID_FORMAT


@pytest.mark.parametrize("image", [b"", b"no image", bytes(999), sample.sample_pdf()])
def test_what_is_no_image_is_broken(image: bytes) -> None:
    assert refusal(lambda: resize(image, 4, 4, "png")) is Reason.BROKEN
    assert refusal(lambda: pixel_count(image)) is Reason.BROKEN


def test_half_an_image_is_broken() -> None:
    image = sample.sample_png(80, 60)

    assert refusal(lambda: resize(image[: len(image) // 2], 4, 4, "png")) is Reason.BROKEN


@pytest.mark.parametrize("side", [7072, 10_000, 14_000, 60_000])
def test_an_image_that_unpacks_to_too_many_pixels_is_refused_by_its_header(side: int) -> None:
    bomb = png_that_claims(side, side)

    assert len(bomb) < 100
    assert refusal(lambda: resize(bomb, 4, 4, "png")) is Reason.TOO_LARGE
    assert refusal(lambda: pixel_count(bomb)) is Reason.TOO_LARGE


def test_too_many_bytes_are_not_looked_at() -> None:
    image = sample.sample_png(8, 8)
    room = bytes(BYTES_MAX - len(image))

    assert pixel_count(image + room) == 64
    assert refusal(lambda: resize(image + room + b"!", 4, 4, "png")) is Reason.TOO_LARGE
    assert refusal(lambda: pixel_count(image + room + b"!")) is Reason.TOO_LARGE


def test_whatever_is_done_to_an_image_it_ends_in_an_image_or_in_a_reason() -> None:
    chance = random.Random(20261121)
    picture = read(sample.sample_png(24, 16))
    originals = [written(picture, kind) for kind in ("png", "jpeg", "webp", "gif")]
    outcomes = set()

    for _ in range(600):
        image = bytearray(chance.choice(originals))
        for _ in range(chance.choice((1, 3, 20))):
            image[chance.randrange(len(image))] = chance.randrange(256)
        del image[chance.choice((len(image), chance.randrange(len(image)))) :]
        try:
            resize(bytes(image), 6, 4, chance.choice(list(ImageFormat)))
            outcomes.add("image")
        except Unworkable as unworkable:
            outcomes.add(unworkable.reason)

    assert outcomes >= {"image", Reason.BROKEN}
