"""The film of a run's sample grids."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from gan.telemetry.animation import CAPTION, FRAMES, animation


def test_progress_is_an_endless_film_of_the_grids(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    assert animation(samples) is None
    for number in range(100):
        Image.new("RGB", (600, 300), (number, 0, 255 - number)).save(samples / f"iteration-{number * 10:08d}.png")
    Image.new("RGB", (9, 9), "lime").save(samples / "iteration-00000500-32px.png")
    Image.new("RGB", (9, 9), "lime").save(samples / "iteration-500.png")
    film = Image.open(io.BytesIO(animation(samples) or b""))
    assert (film.n_frames, film.size, film.info["loop"]) == (FRAMES, (512, 256 + CAPTION), 0)  # type: ignore[attr-defined]
    levels, times, captions = [], [], set()
    for number in range(FRAMES):
        film.seek(number)
        still = film.convert("RGB")
        levels.append(still.getpixel((250, 100))[0])  # type: ignore[index]
        times.append(film.info["duration"])
        captions.add(still.crop((0, 256, *still.size)).tobytes())
    assert levels == np.linspace(0, 99, FRAMES).astype(int).tolist()
    assert len(set(times[:-1])) == 1
    assert times[-1] > 5 * times[0]
    assert len(captions) == FRAMES


def test_grids_of_every_kind_in_one_film(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (200, 200), (255, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 100, 200))
    pictures = [Image.new("L", (200, 200), 7), clear, Image.new("RGB", (100, 200), "blue"), Image.new("1", (200, 200))]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"iteration-{number * 2 + 1:08d}.png")
    whole = (tmp_path / "iteration-00000001.png").read_bytes()
    for number, content in ((0, b""), (4, whole[:-30]), (9, b"<html>"), (6, whole[:60])):
        (tmp_path / f"iteration-{number:08d}.png").write_bytes(content)
    film = Image.open(io.BytesIO(animation(tmp_path) or b""))
    assert (film.n_frames, film.size) == (4, (200, 200 + CAPTION))  # type: ignore[attr-defined]
    seen = []
    for number in range(4):
        film.seek(number)
        seen.append([film.convert("RGB").getpixel((x, 100)) for x in (60, 190)])
    white = (255, 255, 255)
    expected = [[(7, 7, 7)] * 2, [(255, 0, 0), white], [(0, 0, 255), white], [(0, 0, 0)] * 2]
    assert np.abs(np.array(seen) - np.array(expected)).max() <= 2, "but for the choice of 256 colours"
