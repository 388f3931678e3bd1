"""Procedurally drawn little creatures: a data set that needs no download.

Each creature is symmetric and composed from independent choices (body, palette, pattern, ears, limbs, eyes, mouth),
so that a generator that has lost its variety is seen at a glance. Creature number i is always the same creature.
"""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw

from gan.randomness import generator

Colour = tuple[int, int, int]
INK: Colour = (38, 32, 48)
WHITE: Colour = (255, 255, 255)


def draw_sprite(index: int, size: int, seed: int = 0) -> Image.Image:
    """Creature number `index` as an RGBA image of size × size pixels on a transparent ground."""
    rng = generator(seed, "sprite", index)
    canvas = Canvas(size)
    body, detail, belly = palette(rng)
    width = rng.uniform(0.42, 0.62)
    height = rng.uniform(0.44, 0.62)
    top = 0.12 - height
    draw_limbs(canvas, rng, width, height, detail)
    draw_ears(canvas, rng, width, top, body, detail)
    draw_body(canvas, rng, width, height, body, belly, detail)
    draw_eyes(canvas, rng, width, height)
    draw_mouth(canvas, rng, height, detail)
    return canvas.image


class Canvas:
    """Mirrored drawing: x runs outwards from the axis (0 … 1), y from the top (−1) to the bottom (1)."""

    def __init__(self, size: int):
        self.image = Image.new("RGBA", (size, size), (255, 255, 255, 0))
        self.half = size / 2
        self.line = max(1, round(size / 40))
        self.pen = ImageDraw.Draw(self.image)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Coordinates from −1 to 1, y downwards → pixels."""
        return self.half * (1 + x), self.half * (1 + y)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour, outline: Colour | None = INK) -> None:
        """Two, at x and −x, y from the top; radii in the same units."""
        for side in (x, -x):
            box = (*self.at(side - rx, y - ry), *self.at(side + rx, y + ry))
            self.pen.ellipse(box, fill=fill, outline=outline, width=self.line)

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        """Two, mirrored left and right."""
        for sign in (1, -1):
            corners = [self.at(sign * x, y) for x, y in points]
            self.pen.polygon(corners, fill=fill, outline=INK, width=self.line)

    def box(self, rx: float, y0: float, y1: float, radius: float, fill: Colour) -> None:
        """A rounded rectangle about the middle line, from y0 down to y1."""
        corners = (*self.at(-rx, y0), *self.at(rx, y1))
        self.pen.rounded_rectangle(corners, radius * self.half, fill=fill, outline=INK, width=self.line)

    def stroke(self, points: list[tuple[float, float]], colour: Colour, width: float) -> None:
        """Two lines through the points, mirrored left and right; `width` in halves of the picture."""
        for sign in (1, -1):
            path = [self.at(sign * x, y) for x, y in points]
            self.pen.line(path, fill=colour, width=max(1, round(width * self.half)), joint="curve")


def palette(rng: np.random.Generator) -> tuple[Colour, Colour, Colour]:
    """A body colour, a contrasting detail colour and a pale belly colour."""
    hue = rng.uniform()
    shift = rng.choice([0.08, 0.33, 0.5, 0.92])
    body = hsv(hue, rng.uniform(0.45, 0.9), rng.uniform(0.6, 0.95))
    detail = hsv(hue + shift, rng.uniform(0.5, 0.95), rng.uniform(0.5, 0.95))
    return body, detail, hsv(hue + 0.5 * shift, 0.2, 1.0)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Hue (of any turn), saturation and value from 0 to 1 → RGB from 0 to 255."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_limbs(canvas: Canvas, rng: np.random.Generator, width: float, height: float, detail: Colour) -> None:
    """Feet below; at the sides nothing, arms or wings."""
    foot = rng.uniform(0.12, 0.2)
    canvas.ellipse(width * rng.uniform(0.4, 0.75), 0.1 + height, foot, 0.8 * foot, detail)
    kind = rng.choice(["none", "arms down", "arms up", "wings"])
    if kind == "wings":
        tip = rng.uniform(-0.55, -0.1)
        canvas.polygon(
            [(0.6 * width, 0.0), (0.95, tip), (0.9, tip + 0.35), (0.95, tip + 0.6), (0.6 * width, 0.4)], detail
        )
    elif kind != "none":
        hand = -0.2 if kind == "arms up" else 0.4
        canvas.stroke([(0.7 * width, 0.15), (width + 0.2, hand)], INK, 0.2)
        canvas.ellipse(width + 0.2, hand, 0.12, 0.12, detail)


def draw_ears(canvas: Canvas, rng: np.random.Generator, width: float, top: float, body: Colour, detail: Colour) -> None:
    """Pointed ears, round ears, antennae, one horn, or nothing."""
    kind = rng.choice(["pointed", "round", "antennae", "horn", "none"])
    tip = max(top - rng.uniform(0.2, 0.4), -0.95)
    if kind == "pointed":
        canvas.polygon([(0.25 * width, top + 0.15), (0.85 * width, tip), (0.95 * width, top + 0.4)], body)
    elif kind == "round":
        canvas.ellipse(0.7 * width, top + 0.1, 0.2, 0.2, detail)
    elif kind == "antennae":
        canvas.stroke([(0.25 * width, top + 0.2), (0.6 * width, tip + 0.1)], INK, 0.07)
        canvas.ellipse(0.6 * width, tip + 0.1, 0.1, 0.1, detail)
    elif kind == "horn":
        canvas.polygon([(0.0, tip), (0.22, top + 0.2), (0.0, top + 0.2)], detail)


def draw_body(
    canvas: Canvas, rng: np.random.Generator, width: float, height: float, body: Colour, belly: Colour, detail: Colour
) -> None:
    """A round or boxy body, plain or with a belly, spots or a band."""
    if rng.uniform() < 0.65:
        canvas.ellipse(0, 0.12, width, height, body)
    else:
        canvas.box(width, 0.12 - height, 0.12 + height, rng.uniform(0.1, 0.3), body)
    pattern = rng.choice(["plain", "belly", "spots", "band"])
    if pattern == "belly":
        canvas.ellipse(0, 0.12 + 0.45 * height, 0.6 * width, 0.45 * height, belly, outline=None)
    elif pattern == "spots":
        canvas.ellipse(0.55 * width, 0.12 + 0.45 * height, 0.1, 0.1, detail, outline=None)
        canvas.ellipse(0.2 * width, 0.12 + 0.75 * height, 0.08, 0.08, detail, outline=None)
    elif pattern == "band":
        canvas.stroke([(0, 0.12 + 0.62 * height), (0.7 * width, 0.12 + 0.62 * height)], detail, 0.14)


def draw_eyes(canvas: Canvas, rng: np.random.Generator, width: float, height: float) -> None:
    """One eye, two, or three; the pupils all look the same way up or down."""
    count = rng.choice([1, 2, 2, 2, 3])
    radius = rng.uniform(0.13, 0.2) * (1.3 if count == 1 else 1.0)
    y = 0.12 - height * rng.uniform(0.25, 0.5)
    look = rng.uniform(-0.3, 0.3) * radius
    pupil = rng.uniform(0.45, 0.65) * radius
    places = {1: [(0.0, y)], 2: [(0.45 * width, y)], 3: [(0.5 * width, y), (0.0, y - radius)]}[int(count)]
    for x, eye_y in places:
        canvas.ellipse(x, eye_y, radius, radius, WHITE)
        canvas.ellipse(x, eye_y + look, pupil, pupil, INK, outline=None)


def draw_mouth(canvas: Canvas, rng: np.random.Generator, height: float, detail: Colour) -> None:
    """A smile, an open mouth, a beak, or fangs."""
    y = 0.12 + height * rng.uniform(0.1, 0.3)
    half = rng.uniform(0.1, 0.22)
    kind = rng.choice(["smile", "open", "beak", "fangs"])
    if kind == "beak":
        canvas.polygon([(0, y - 0.1), (half, y - 0.08), (0, y + 0.14)], detail)
    elif kind == "open":
        canvas.ellipse(0, y, 0.8 * half, 0.1, (150, 40, 60))
    else:
        canvas.stroke([(0, y + 0.06), (half, y)], INK, 0.06)
        if kind == "fangs":
            canvas.polygon([(0.3 * half, y + 0.05), (0.9 * half, y + 0.03), (0.6 * half, y + 0.17)], WHITE)
