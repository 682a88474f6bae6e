"""Thumbnails of images."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageFilter, PngImagePlugin
from werkzeug.test import TestResponse

from homebody.core.media import images
from tests.client_server.test_media import upload
from tests.conftest import Login, Person
from tests.helpers.rooms import refusal

MEDIA = "/_matrix/client/v1/media"
RED, BLUE = (255, 0, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    output = io.BytesIO()
    image.save(output, kind, **options)
    return output.getvalue()


def two_halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image.convert(mode)


def animation(kind: str, width: int, height: int, frames: int = 3) -> bytes:
    colours = [(200 * n // frames, 40, 40) for n in range(frames)]
    first, *others = [Image.new("RGB", (width, height), colour) for colour in colours]
    return encoded(first, kind, save_all=True, append_images=others, duration=80, loop=0)


def thumbnail(
    person: Person, media: str, width: int, height: int, method: str | None = None, **query: str
) -> TestResponse:
    query |= {"width": str(width), "height": str(height)} | ({"method": method} if method else {})
    return person.get(f"{MEDIA}/thumbnail/{media}", query_string=query)


def shown(answer: TestResponse) -> Image.Image:
    """The image of an answer, whose type is what it says."""
    assert answer.status_code == 200, answer.get_json()
    image = Image.open(io.BytesIO(answer.data))
    assert answer.headers["Content-Type"] == Image.MIME[image.format or ""]
    assert answer.headers["Content-Disposition"].startswith("inline; filename=")
    return image


def is_near(pixel: Any, colour: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(pixel[:3], colour, strict=True))


@pytest.mark.parametrize(
    ("width", "height", "method", "expected"),
    [
        (32, 32, "crop", (32, 32)),
        (20, 20, "crop", (32, 32)),
        (33, 33, "crop", (96, 96)),
        (96, 96, "crop", (96, 96)),
        (128, 128, "crop", (320, 320)),
        (300, 200, "crop", (320, 240)),
        (1, 1, "scale", (320, 213)),
        (320, 240, "scale", (320, 213)),
        (640, 480, "scale", (640, 427)),
        (641, 480, "scale", (800, 533)),
        (800, 600, None, (800, 533)),
        (900, 100, "scale", (1200, 800)),  # the original
        (5000, 5000, "scale", (1200, 800)),
        (10**12, 10**12, "crop", (1200, 800)),
    ],
)
def test_the_size_is_the_next_of_a_few(
    login: Login, width: int, height: int, method: str | None, expected: tuple[int, int]
) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(1200, 800)), "image/png")

    image = shown(thumbnail(alice, media, width, height, method))

    assert image.size == expected


def test_crop_cuts_the_sides_off_and_scale_does_not(login: Login) -> None:
    alice = login("alice")
    picture = Image.new("RGB", (900, 300), (0, 255, 0))
    picture.paste(RED, (300, 0, 450, 300))
    picture.paste(BLUE, (450, 0, 600, 300))
    media = upload(alice, encoded(picture), "image/png")

    cropped = shown(thumbnail(alice, media, 96, 96, "crop"))
    scaled = shown(thumbnail(alice, media, 320, 240, "scale"))

    assert cropped.size == (96, 96)
    assert is_near(cropped.getpixel((5, 50)), RED)
    assert is_near(cropped.getpixel((90, 50)), BLUE)
    assert scaled.size == (320, 107)
    assert is_near(scaled.getpixel((5, 50)), (0, 255, 0))


@pytest.mark.parametrize("method", ["crop", "scale"])
def test_nothing_is_made_larger(login: Login, method: str) -> None:
    alice = login("alice")
    small = encoded(two_halves(50, 20))
    media = upload(alice, small, "image/png")

    answers = [thumbnail(alice, media, 96, 96, method) for _ in range(2)]

    assert [answer.data for answer in answers] == [small, small]
    assert {answer.headers["Content-Type"] for answer in answers} == {"image/png"}


def test_a_picture_that_is_small_one_way_is_cut_the_other_way_only(login: Login) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(400, 20)), "image/png")

    assert shown(thumbnail(alice, media, 96, 96, "crop")).size == (96, 20)


def test_a_line_of_pixels_stays_one(login: Login) -> None:
    alice = login("alice")
    media = upload(alice, encoded(Image.new("RGB", (1, 20_000))), "image/png")

    assert shown(thumbnail(alice, media, 320, 240, "scale")).size == (1, 240)


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("PNG", "RGB", "PNG"),
        ("PNG", "RGBA", "PNG"),  # nothing in it is transparent
        ("PNG", "L", "PNG"),
        ("PNG", "P", "PNG"),
        ("PNG", "1", "JPEG"),  # dithered: as fine as a photo
        ("JPEG", "RGB", "JPEG"),
        ("JPEG", "L", "JPEG"),
        ("JPEG", "CMYK", "JPEG"),
        ("GIF", "P", "JPEG"),
        ("WEBP", "RGB", "JPEG"),
        ("AVIF", "RGB", "JPEG"),
        ("BMP", "RGB", "JPEG"),
    ],
)
def test_pictures_of_many_kinds_have_thumbnails(
    login: Login, kind: str, mode: str, expected: str
) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(640, 480, mode), kind), "x/y")

    image = shown(thumbnail(alice, media, 320, 240))

    assert (image.format, image.size) == (expected, (320, 240))
    if mode == "RGB":
        assert is_near(image.getpixel((10, 120)), RED)
        assert is_near(image.getpixel((310, 120)), BLUE)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_what_is_transparent_stays_so(login: Login, kind: str) -> None:
    alice = login("alice")
    picture = Image.new("RGBA", (640, 480), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 320, 480))
    media = upload(alice, encoded(picture, kind), "image/png")

    image = shown(thumbnail(alice, media, 320, 240))

    assert (image.format, image.mode) == ("PNG", "RGBA")
    assert image.getchannel("A").getpixel((5, 5)) == 0
    assert is_near(image.getpixel((315, 5)), RED)
    assert image.getchannel("A").getpixel((315, 5)) == 255


def test_a_photo_that_was_saved_as_png_has_a_smaller_thumbnail(login: Login) -> None:
    alice = login("alice")
    noise = Image.effect_noise((640, 480), 100).convert("RGB")
    media = upload(alice, encoded(noise.filter(ImageFilter.GaussianBlur(2))), "image/png")

    answer = thumbnail(alice, media, 320, 240)

    assert shown(answer).format == "JPEG"
    assert len(answer.data) < 30_000


def test_sixteen_bits_of_grey_keep_their_shades(login: Login) -> None:
    alice = login("alice")
    grey = Image.new("I;16", (640, 480), 0x8000)
    media = upload(alice, encoded(grey), "image/png")

    image = shown(thumbnail(alice, media, 320, 240))

    shade = image.tobytes()[0]
    assert 0x7C <= shade <= 0x84


def test_a_bitmap_of_windows_is_encoded_anew_however_small(login: Login) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(20, 20), "BMP"), "image/bmp")

    assert shown(thumbnail(alice, media, 32, 32, "crop")).size == (20, 20)


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (320, 160)), (6, (120, 240)), (8, (120, 240))]
)
def test_a_picture_that_lies_on_its_side_is_set_upright(
    login: Login, orientation: int, size: tuple[int, int]
) -> None:
    alice = login("alice")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "a camera"
    media = upload(alice, encoded(two_halves(2400, 1200), "JPEG", exif=exif), "image/jpeg")

    image = shown(thumbnail(alice, media, 320, 240))

    red = {1: (5, 80), 6: (60, 5), 8: (60, 235)}[orientation]
    assert image.size == size
    assert is_near(image.getpixel(red), RED)
    assert dict(image.getexif()) == {}


def test_what_a_camera_wrote_into_the_file_is_not_in_the_thumbnail(login: Login) -> None:
    alice = login("alice")
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera with a name"
    picture = encoded(two_halves(640, 480), "JPEG", exif=exif, comment=b"taken at home")
    assert b"a camera with a name" in picture
    media = upload(alice, picture, "image/jpeg")

    data = thumbnail(alice, media, 320, 240).data

    assert b"a camera" not in data
    assert b"taken at home" not in data


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("size", [(640, 480), (60, 40)])
def test_an_animation_stands_still_unless_wanted(
    login: Login, kind: str, size: tuple[int, int]
) -> None:
    alice = login("alice")
    media = upload(alice, animation(kind, *size), "image/gif")

    still = shown(thumbnail(alice, media, 320, 240))
    still_too = shown(thumbnail(alice, media, 320, 240, animated="false"))
    moving = shown(thumbnail(alice, media, 320, 240, animated="true"))

    assert [getattr(image, "n_frames", 1) for image in (still, still_too, moving)] == [1, 1, 3]
    assert {image.size for image in (still, still_too, moving)} == {
        (320, 240) if size == (640, 480) else size
    }


def test_a_moving_thumbnail_keeps_its_pace(login: Login) -> None:
    alice = login("alice")
    media = upload(alice, animation("GIF", 640, 480), "image/gif")

    image = shown(thumbnail(alice, media, 96, 96, "crop", animated="true"))
    image.seek(1)
    image.load()

    assert (image.format, image.size) == ("WEBP", (96, 96))
    assert (image.info["duration"], image.info["loop"]) == (80, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
@pytest.mark.parametrize(("limit", "most"), [("MAX_FRAMES", 2), ("MAX_PIXELS", 2 * 640 * 480)])
def test_a_long_animation_stands_still(
    login: Login, monkeypatch: pytest.MonkeyPatch, kind: str, limit: str, most: int
) -> None:
    monkeypatch.setattr(images, limit, most)
    alice = login("alice")
    media = upload(alice, animation(kind, 640, 480), f"image/{kind.lower()}")

    image = shown(thumbnail(alice, media, 320, 240, animated="true"))

    assert getattr(image, "n_frames", 1) == 1


def test_what_does_not_move_is_no_matter_when_asked_to(login: Login) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(640, 480), "JPEG"), "image/jpeg")

    assert shown(thumbnail(alice, media, 320, 240, animated="true")).format == "JPEG"


def test_the_claimed_type_does_not_matter(login: Login) -> None:
    alice = login("alice")
    picture = upload(alice, encoded(two_halves(60, 40)), "text/html")
    page = upload(alice, b"<script>alert(1)</script>" * 100, "image/png")

    assert shown(thumbnail(alice, picture, 320, 240)).format == "PNG"
    assert refusal(thumbnail(alice, page, 320, 240)) == (400, "M_UNKNOWN")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"%PDF-1.4",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"BM" + b"\xff" * 100,
        b"RIFF\xff\xff\xff\xffWEBPVP8 ",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%!PS-Adobe-3.0 EPSF-3.0",
    ],
)
def test_what_is_no_picture_has_no_thumbnail(login: Login, data: bytes) -> None:
    alice = login("alice")

    answer = thumbnail(alice, upload(alice, data, "image/png"), 96, 96)

    assert refusal(answer) == (400, "M_UNKNOWN")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF"])
def test_half_a_picture_has_no_thumbnail(login: Login, kind: str, tmp_path: Path) -> None:
    alice = login("alice")
    noise = Image.effect_noise((640, 480), 90).convert("RGB")
    data = encoded(noise, kind)

    answer = thumbnail(alice, upload(alice, data[: len(data) // 2], "image/png"), 96, 96)

    assert refusal(answer) == (400, "M_UNKNOWN")
    assert not (tmp_path / "media/thumbnails").exists()


def png_that_claims(width: int, height: int) -> bytes:
    """An image of a kilobyte, all black, which would unpack to a byte for each pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "bomb",
    [
        png_that_claims(50_000, 50_000),
        png_that_claims(2**31 - 1, 2**31 - 1),
        png_that_claims(7000, 7000),
        b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + bytes(3) + b"," + bytes(20),
        b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 60_000, 60_000, 1, 24) + bytes(100),
    ],
)
def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(
    login: Login, bomb: bytes
) -> None:
    alice = login("alice")
    media = upload(alice, bomb, "image/png")
    began = time.monotonic()

    answer = thumbnail(alice, media, 96, 96)

    assert refusal(answer) == (413, "M_TOO_LARGE")
    assert time.monotonic() - began < 1


def test_a_large_photograph_is_taken_and_a_large_progressive_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    plain, progressive = tmp_path / "plain", tmp_path / "progressive"
    plain.write_bytes(encoded(two_halves(2000, 1000), "JPEG"))
    progressive.write_bytes(encoded(two_halves(2000, 1000), "JPEG", progressive=True))
    box = images.Box(32, 32)

    picture = images.shrink(plain, box, "crop", animated=False)

    assert picture.media_type == "image/jpeg"
    with pytest.raises(images.ImageTooLargeError):
        images.shrink(progressive, box, "crop", animated=False)


def test_a_thumbnail_is_made_once(
    login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(640, 480)), "image/png")
    again = upload(alice, encoded(two_halves(640, 480)), "image/png")
    made: list[str] = []
    shrink = images.shrink
    may_go_on = threading.Event()

    def counted(*args: Any, **kwargs: Any) -> images.EncodedImage:
        made.append("once")
        may_go_on.wait(10)
        return shrink(*args, **kwargs)

    monkeypatch.setattr(images, "shrink", counted)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(thumbnail, alice, media, 96, 96, "crop") for _ in range(6)]
        time.sleep(0.2)
        may_go_on.set()
        answers = [answer.result() for answer in asked]
    answers.append(thumbnail(alice, again, 90, 90, "crop"))

    assert {answer.data for answer in answers} == {answers[0].data}
    assert {answer.status_code for answer in answers} == {200}
    assert made == ["once"]
    kept = [path.name for path in (tmp_path / "media/thumbnails").rglob("*") if path.is_file()]
    assert kept == ["96x96-crop.png"]


def test_a_thumbnail_that_was_deleted_is_made_again(login: Login, tmp_path: Path) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(640, 480)), "image/png")
    first = thumbnail(alice, media, 96, 96, "crop")
    for path in (tmp_path / "media/thumbnails").rglob("96x96*"):
        path.unlink()

    again = thumbnail(alice, media, 96, 96, "crop")

    assert (again.status_code, again.data) == (200, first.data)


def test_a_client_that_has_the_thumbnail_does_not_get_it_again(login: Login) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(640, 480)), "image/png")
    square, wide = thumbnail(alice, media, 96, 96, "crop"), thumbnail(alice, media, 320, 240)

    again = alice.get(
        f"{MEDIA}/thumbnail/{media}?width=96&height=96&method=crop",
        headers={"If-None-Match": square.headers["ETag"]},
    )

    assert again.status_code == 304
    assert square.headers["ETag"] != wide.headers["ETag"]
    assert "immutable" in square.headers["Cache-Control"]


@pytest.mark.parametrize("prefix", ["r0", "v1", "v3"])
def test_the_old_paths_have_thumbnails_too(login: Login, prefix: str) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(640, 480)), "image/png")

    answer = alice.get(f"/_matrix/media/{prefix}/thumbnail/{media}?width=96&height=96&method=crop")

    assert shown(answer).size == (96, 96)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("width=96", "M_MISSING_PARAM"),
        ("height=96", "M_MISSING_PARAM"),
        ("", "M_MISSING_PARAM"),
        ("width=x&height=96", "M_INVALID_PARAM"),
        ("width=1.5&height=96", "M_INVALID_PARAM"),
        ("width=96&height=-96", "M_INVALID_PARAM"),
        ("width=0&height=96", "M_INVALID_PARAM"),
        ("width=96&height=96&method=stretch", "M_INVALID_PARAM"),
        ("width=96&height=96&animated=maybe", "M_INVALID_PARAM"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(login: Login, query: str, expected: str) -> None:
    alice = login("alice")
    media = upload(alice, encoded(two_halves(640, 480)), "image/png")

    assert refusal(alice.get(f"{MEDIA}/thumbnail/{media}?{query}")) == (400, expected)


def test_a_png_is_measured_by_its_head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = encoded(two_halves(300, 200), "PNG")

    def decode(_image: PngImagePlugin.PngImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decode)

    assert images.measure(picture) == images.ImageInfo("image/png", 300, 200)
