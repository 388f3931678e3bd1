"""Images of every kind and files with every fault, each with the pixels or the refusal to expect.

PNGs are put together by hand here, so that Pillow's reading is not compared with Pillow's writing.
"""

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SIDE = 16
WHITE = (255, 255, 255)
Colour = tuple[int, ...]


def png(depth: int, kind: int, samples: np.ndarray, **chunks: bytes) -> bytes:
    """`samples` (height, width, channels) of `depth` bits each; `kind` is PNG's colour type; chunks go before IDAT."""

    def chunk(name: str, content: bytes) -> bytes:
        code = name.encode() + content
        return struct.pack(">I", len(content)) + code + struct.pack(">I", zlib.crc32(code))

    height, width, channels = samples.shape
    if depth == 16:
        rows = samples.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(height, width * channels * depth), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = chunk("IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    extra = b"".join(chunk(name, content) for name, content in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk("IDAT", zlib.compress(lines)) + chunk("IEND", b"")


def halves(left: Colour, right: Colour) -> np.ndarray:
    """(SIDE, SIDE, channels): one colour on the left, another on the right."""
    values = np.empty((SIDE, SIDE, len(left)), np.int64)
    values[:, : SIDE // 2], values[:, SIDE // 2 :] = left, right
    return values


def written(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def picture(left: Colour, right: Colour, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(halves(left, right).astype(np.uint8).squeeze()).convert(mode)


def palettes() -> dict[str, tuple[bytes, np.ndarray]]:
    """Indexed PNGs: the last colours of the palette, the very last one transparent in half of them."""
    found = {}
    for depth in (1, 2, 4, 8):
        size = 2**depth
        colours = [(index * 255 // (size - 1), 10, 255 - index * 255 // (size - 1)) for index in range(size)]
        chunks = {"PLTE": b"".join(map(bytes, colours))}
        indices = halves((size - 2,), (size - 1,))
        found[f"palette {depth} bits"] = (png(depth, 3, indices, **chunks), halves(colours[-2], colours[-1]))
        chunks["tRNS"] = bytes([255] * (size - 1) + [0])
        found[f"palette {depth} bits tRNS"] = (png(depth, 3, indices, **chunks), halves(colours[-2], WHITE))
    return found


def greys() -> dict[str, tuple[bytes, np.ndarray]]:
    found = {}
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        low, high = (1, 3) if depth == 2 else (top // 3, top)
        eight = tuple([round(low * 255 / top)] * 3)
        samples = halves((low,), (high,))
        found[f"grey {depth} bits"] = (png(depth, 0, samples), halves(eight, WHITE))
        transparent = {"tRNS": struct.pack(">H", low)}
        found[f"grey {depth} bits tRNS"] = (png(depth, 0, samples, **transparent), halves(WHITE, WHITE))
    half = round(100 * 51 / 255 + 255 * 204 / 255)  # 100 at an opacity of 51, on white
    for depth, unit in ((8, 1), (16, 257)):
        samples = halves((100 * unit, 51 * unit), (200 * unit, 255 * unit))
        found[f"grey and alpha {depth} bits"] = (png(depth, 4, samples), halves((half,) * 3, (200,) * 3))
    return found


def colours() -> dict[str, tuple[bytes, np.ndarray]]:
    found = {}
    half = tuple(round(value * 51 / 255 + 204) for value in (10, 100, 200))
    for depth, unit in ((8, 1), (16, 257)):
        samples = halves((10, 100, 200), (7, 8, 9)) * unit - (depth == 16)  # so that high and low byte differ
        found[f"RGB {depth} bits"] = (png(depth, 2, samples), halves((10, 100, 200), (7, 8, 9)))
        transparent = {"tRNS": struct.pack(">HHH", *samples[0, -1])}
        found[f"RGB {depth} bits tRNS"] = (png(depth, 2, samples, **transparent), halves((10, 100, 200), WHITE))
        samples = halves((10, 100, 200, 51), (7, 8, 9, 255)) * unit
        found[f"RGBA {depth} bits"] = (png(depth, 6, samples), halves(half, (7, 8, 9)))
    return found


def turned() -> dict[str, tuple[bytes, np.ndarray]]:
    """The same upright picture, stored in each of EXIF's eight ways: dark above, light below, a red stripe at left."""
    upright = np.repeat([20, 220], SIDE // 2)[:, None, None] * np.ones((SIDE, SIDE, 3), np.int64)
    upright[:, : SIDE // 2, 0] = 250
    ways = [
        upright,
        upright[:, ::-1],
        upright[::-1, ::-1],
        upright[::-1],
        upright.transpose(1, 0, 2),
        np.rot90(upright, 1),
        upright[::-1, ::-1].transpose(1, 0, 2),
        np.rot90(upright, -1),
    ]
    found = {}
    for number, stored in enumerate(ways, 1):
        exif = Image.Exif()
        exif[0x0112] = number
        image = Image.fromarray(np.ascontiguousarray(stored).astype(np.uint8))
        for kind in ("PNG", "TIFF"):
            found[f"EXIF {number} {kind}"] = (written(image, kind, exif=exif), upright)
    return found


def others() -> dict[str, tuple[bytes, np.ndarray]]:
    """Other file formats; animations show their first frame."""
    left, right = (200, 30, 60), (20, 120, 220)
    image, expected = picture(left, right), halves(left, right)
    later = picture((0, 0, 0), (1, 1, 1))
    clear = picture((*left, 255), (*right, 0), "RGBA")
    animated = {"save_all": True, "append_images": [later, image], "duration": 50}
    palette = image.quantize(4)
    deep = Image.fromarray(halves((21845,), (65535,)).squeeze().astype(np.uint16))
    thirds = halves((85,) * 3, WHITE)
    negative = Image.fromarray(65535 - np.asarray(deep))
    told = PngInfo()
    told.add_text("story", "x" * (2 << 20), zip=True)
    ink = Image.frombytes("CMYK", (SIDE, SIDE), halves((0, 255, 255, 0), (255, 0, 255, 0)).astype(np.uint8).tobytes())
    return {
        "BMP": (written(image, "BMP"), expected),
        "TIFF": (written(image, "TIFF", compression="tiff_lzw"), expected),
        "TIFF 16 bits": (written(deep, "TIFF"), thirds),
        "TIFF 16 bits, white is zero": (written(negative, "TIFF", tiffinfo={262: 0}), thirds),
        "PNG with a long text": (written(image, "PNG", pnginfo=told), expected),
        "PGM 16 bits": (b"P5 16 16 65535\n" + np.asarray(deep).astype(">u2").tobytes(), thirds),
        "TIFF CMYK": (written(ink, "TIFF"), halves((255, 0, 0), (0, 255, 0))),
        "WebP": (written(image, "WEBP", lossless=True), expected),
        "WebP with alpha": (written(clear, "WEBP", lossless=True), halves(left, WHITE)),
        "WebP animated": (written(image, "WEBP", lossless=True, **animated), expected),
        "GIF": (written(palette, "GIF"), expected),
        "GIF animated": (written(image, "GIF", **animated), expected),
        "GIF with transparency": (written(clear, "GIF"), halves(left, WHITE)),
        "APNG": (written(image, "PNG", **animated), expected),
        "PNG of 1 bit": (written(picture((0, 0, 0), WHITE, "1"), "PNG"), halves((0, 0, 0), WHITE)),
        "PNG with damaged EXIF": (written(image, "PNG", exif=b"Exif\0\0II*\0\xff\xff"), expected),
    }  # fmt: skip


def gif(indices: np.ndarray, place: tuple[int, int], palette: list[Colour]) -> bytes:
    """A frame of `indices` (height, width) at `place` (x, y) on a screen of SIDE × SIDE. Of LZW only what needs no
    table: codes of 8 bits, cleared before they would grow."""
    height, width = indices.shape
    colours = b"".join(map(bytes, palette)).ljust(3 * 128, b"\0")
    pixels = indices.astype(np.uint8).tobytes()
    codes = b"".join(b"\x80" + pixels[at : at + 100] for at in range(0, len(pixels), 100)) + b"\x81"
    blocks = [codes[at : at + 255] for at in range(0, len(codes), 255)]
    screen = b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0x86, 0, 0) + colours
    frame = b"," + struct.pack("<HHHHBB", *place, width, height, 0, 7)
    return screen + frame + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0;"


def tiff(tags: dict[int, int], content: bytes) -> bytes:
    """A grey TIFF of `tags`; `content` is its one strip or tile."""
    known = {256: SIDE, 257: SIDE, 258: 8, 259: 1, 262: 1, 277: 1, **tags}
    start = 8 + 2 + 12 * (len(known) + 1) + 4
    known[324 if 322 in tags else 273] = start
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(known.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(known)) + entries + bytes(4) + content


def unusual() -> dict[str, tuple[bytes, np.ndarray]]:
    """What is right by its format, though few programs write it."""
    left, right = (200, 30, 60), (20, 120, 220)
    small = np.full((SIDE, SIDE, 3), WHITE)
    small[2:10, 4:12] = halves(left, right)[4:12, 4:12]
    frame = gif(halves((1,), (2,))[4:12, 4:12, 0], (4, 2), [(250, 0, 0), left, right])
    twelve = np.unpackbits(halves((1365,), (4095,)).astype(">u2").view(np.uint8), axis=-1)[..., 4:]
    note = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    told = {"iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + note}
    return {
        "GIF of a small frame": (frame, small),
        "TIFF 12 bits": (tiff({258: 12, 279: 384}, np.packbits(twelve).tobytes()), halves((85,) * 3, WHITE)),
        "PNG turned by XMP": (png(8, 2, halves(left, right), **told), halves(right, left)),
    }


def jpegs() -> dict[str, tuple[bytes, np.ndarray]]:
    """JPEG rounds: these are right within a few levels."""
    left, right = (200, 30, 60), (20, 120, 220)
    image = picture(left, right)
    sharp = {"quality": 100, "subsampling": 0}
    exif = Image.Exif()
    exif[0x0112] = 3
    return {
        "JPEG": (written(image, "JPEG", **sharp), halves(left, right)),
        "JPEG progressive": (written(image, "JPEG", progressive=True, **sharp), halves(left, right)),
        "JPEG grey": (written(picture((50, 50, 50), WHITE, "L"), "JPEG", **sharp), halves((50,) * 3, WHITE)),
        "JPEG CMYK": (written(image.convert("CMYK"), "JPEG", **sharp), halves(left, right)),
        "JPEG upside down": (written(image, "JPEG", exif=exif, **sharp), halves(right, left)),
        "JPEG of two pictures": (written(image, "MPO", save_all=True, append_images=[image.rotate(180)], **sharp),
                                 halves(left, right)),
    }  # fmt: skip


GOOD = {**palettes(), **greys(), **colours(), **turned(), **others(), **unusual()}
"""Name → (the file, its pixels on white: (SIDE, SIDE, 3))."""
NEARLY = jpegs()


def bomb(side: int = 20_000) -> bytes:
    """A PNG of a few kilobytes whose header promises `side`² pixels, and keeps the promise."""
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    content = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    small = png(1, 0, np.zeros((1, 1, 1)))
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", content), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts]
    return small[:8] + b"".join(chunks)


def tiled() -> bytes:
    """A TIFF of 16×16 pixels in a tile of 20,000×20,000."""
    return tiff({259: 8, 322: 20_000, 323: 20_000, 325: 99}, zlib.compress(bytes(20_000)))


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Name → (the file, words its refusal must hold)."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    cut = {kind: written(noise, kind)[:-3000] for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP")}
    return {
        "cut.png": (cut["PNG"], "truncated"),
        "cut.jpg": (cut["JPEG"], "truncated"),
        "cut.webp": (cut["WEBP"], ""),
        "cut.tif": (cut["TIFF"], ""),
        "cut.bmp": (cut["BMP"], "truncated"),
        "header alone.png": (written(noise, "PNG")[:33], ""),
        "nothing.png": (b"", "is empty"),
        "text.jpg": (b"just some words, and no image at all", "is not an image"),
        "page.png": (b"<!DOCTYPE html><html>404</html>", "is not an image"),
        "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n%%EOF\n", "is not an image"),
        "bomb.png": (bomb(), "20000×20000 pixels, more than --data-options.max-megapixels"),
        "phone.HEIC": (b"\0\0\0\x18ftypheic", "HEIC is not read here"),
        "tile.tif": (tiled(), "more than --data-options.max-megapixels"),
        "float.tif": (written(Image.new("F", (16, 16), 0.5), "TIFF"), "no fixed range"),
        "integer.tif": (written(Image.new("I", (16, 16), 200), "TIFF"), "mode 'I' have no fixed range"),
    }


BAD = bad_files()
SPECIAL = {"pipe.png": "pipe", "socket.png": "socket", "dangling.png": "dangling link", "itself.png": "symbolic links"}
"""What is not a file at all, with words of its refusal."""


def write_folder(root: Path) -> None:
    """The whole corpus, in folders below `root`, among things that must be left out without a word."""
    for name, (content, _) in {**GOOD, **NEARLY}.items():
        kind = name.split()[0].lower()
        suffix = kind if kind in ("tiff", "webp", "gif", "bmp", "jpeg", "pgm") else "png"
        place = root / "good" / f"{name}.{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (root / "bad").mkdir()
    for name, (content, _) in BAD.items():
        (root / "bad" / name).write_bytes(content)
    write_special(root / "bad")
    plain = GOOD["RGB 8 bits"][0]
    names = ("a wrong suffix.jpg", "ä 象 🦊.png", "x" * 250 + ".png", 'line\nbreak, "quoted".png')
    for number, name in enumerate(names):
        (root / "names").mkdir(exist_ok=True)
        (root / "names" / name).write_bytes(plain + bytes(number))  # what follows IEND does not matter
    (root / "names" / os.fsdecode(b"not utf-8 \xff.png")).write_bytes(plain)
    for hidden in (".hidden/x.png", "__MACOSX/y.png", "good/._RGB.png", "notes.txt", "good/Thumbs.db"):
        (root / hidden).parent.mkdir(exist_ok=True)
        (root / hidden).write_bytes(plain)
    (root / "names" / "loop").symlink_to(root)
    (root / "again.png").symlink_to(root / "names" / names[0])


def write_special(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    here = os.getcwd()
    os.chdir(folder)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("socket.png")
    finally:
        os.chdir(here)
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
