"""Draws the bodies of walking people as a camera would see them.

Heights along a person are fractions of the whole, 0 at the crown and 1 at the soles; widths are in
the same unit. Colours are red, green and blue from 0 to 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dml_tf.data.generated.people import COLOURS, HAIR, SKIN, Person


@dataclass(frozen=True)
class Pose:
    """How a person stands in a picture."""

    yaw: float  # where the person faces, in radians: 0 to the camera, pi / 2 to the right
    phase: float  # place in the walking cycle, in radians
    stride: float  # largest angle of the legs, in radians
    x: float  # middle of the body, in pixels from the left
    top: float  # crown of the head, in pixels from the top
    height: float  # pixels from crown to soles
    elevation: float  # how far the camera looks down, 0 to about 0.5; it shortens the legs


def draw(canvas: np.ndarray, person: Person, pose: Pose, light: float = 0.0):
    """Paints a person on a canvas, float32 from 0 to 1; light comes from -1 (left) to 1 (right)."""
    _Body(canvas, person, pose, light).draw()


class _Body:
    """One drawing: each part is a profile around a line from top to bottom."""

    def __init__(self, canvas: np.ndarray, person: Person, pose: Pose, light: float):
        self.canvas, self.person, self.pose, self.light = canvas, person, pose, light
        self.front, self.side = np.cos(pose.yaw), np.sin(pose.yaw)
        self.swing = pose.stride * np.sin(pose.phase)
        self.upper, self.skin = COLOURS[person.upper_colour], SKIN[person.skin]

    def draw(self):
        """Paints the parts, the farthest first."""
        near = 1 if self.side > 0 else -1  # 1 if the person's right side is nearer
        if self.front > 0:
            self._back_of_head()
            self._backpack()
        self._arm(-near)
        self._leg(-near)
        self._leg(near)
        self._lower()
        self._neck()
        self._torso()
        self._head()
        if self.front <= 0:
            self._back_of_head()
            self._backpack()
        self._hat()
        self._shoulder_bag()
        self._arm(near)

    def _across(self, lateral, depth=0.0):
        """Horizontal place of a point to the person's right (`lateral`) and ahead (`depth`)."""
        return -np.asarray(lateral) * self.front + np.asarray(depth) * self.side

    def _extent(self, width, depth):
        """Half-width in view of an elliptic cross-section."""
        return np.hypot(np.asarray(width) * self.front, np.asarray(depth) * self.side)

    def _paint(self, heights, centres, widths, colour, texture: Callable | None = None):
        """Paints a profile: half-widths around centres at given heights, linear between them."""
        pose, elevation = self.pose, self.pose.elevation
        heights = np.asarray(heights, float)
        rows = pose.top + pose.height * heights * (1 + elevation) / (1 + elevation * heights)
        scale = 1.1 * pose.height * (1 + elevation * (0.45 - heights))
        centres = pose.x + scale * np.broadcast_to(centres, heights.shape)
        widths = scale * np.broadcast_to(widths, heights.shape)
        paint_profile(self.canvas, rows, centres, widths, colour, texture, self.light)

    def _ellipse(self, height, centre, tall, wide, colour):
        angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
        self._paint(height + tall * np.sin(angle), centre, wide * np.cos(angle), colour)

    def _leg(self, side: int):
        person, angle = self.person, side * self.swing
        lateral = 0.048 * person.build * side
        knee = self._across(lateral, 0.22 * np.sin(angle) + 0.02 * abs(angle))
        lift = 0.10 * max(0.0, -np.sin(angle)) ** 2 + 0.02 * self.front * np.sin(angle)
        foot = self._across(lateral, 0.44 * np.sin(angle))
        sole, centres = 1 - lift, [self._across(lateral), knee, foot]
        thick = 0.9 + 0.1 * person.build
        widths = np.array([0.056 * person.build, 0.038 * thick, 0.027 * thick])
        self._paint([0.49, 0.73, sole - 0.02], centres, widths, self.skin)
        if person.lower in ("trousers", "shorts"):
            colour = COLOURS[person.lower_colour]
            if person.lower == "trousers":
                self._paint([0.48, 0.73, sole - 0.03], centres, widths + 0.008, colour)
            else:
                above = 0.9 * knee + 0.1 * centres[0]
                self._paint([0.48, 0.7], [centres[0], above], [widths[0] + 0.01, 0.058], colour)
        toe = foot + 0.022 * self.side
        self._ellipse(
            sole - 0.014, toe, 0.022, 0.03 + 0.016 * abs(self.side), COLOURS[person.shoes]
        )

    def _arm(self, side: int):
        person, angle = self.person, -0.8 * side * self.swing
        lateral = 0.114 * person.build * side
        shoulder = self._across(lateral)
        elbow = self._across(lateral * 1.1, 0.16 * np.sin(angle))
        hand = self._across(lateral * 1.08, 0.32 * np.sin(angle) + 0.03)
        thick = 0.75 + 0.25 * person.build
        widths = np.array([0.034, 0.028, 0.021]) * thick
        self._paint([0.19, 0.345, 0.485], [shoulder, elbow, hand], widths, self.skin)
        self._ellipse(0.5, hand, 0.026, 0.022, self.skin)
        if person.upper == "short sleeves":
            low = 0.35 * shoulder + 0.65 * elbow
            centres, heights = [0.9 * shoulder, shoulder, low], [0.16, 0.195, 0.3]
            self._paint(heights, centres, [0.012, widths[0] + 0.006, 0.038], self.upper)
        else:
            centres, heights = [0.9 * shoulder, shoulder, elbow, hand], [0.16, 0.195, 0.345, 0.475]
            self._paint(heights, centres, np.append(0.012, widths + 0.007), self.upper)
        if person.bag == "carrier" and side == person.bag_side:
            self._paint([0.52, 0.54, 0.68], hand, [0.012, 0.06, 0.075], COLOURS[person.bag_colour])

    def _lower(self):
        person = self.person
        build, lower = person.build, COLOURS[person.lower_colour]
        hips = self._extent(0.112 * build, 0.092 * build)
        if person.lower in ("trousers", "shorts"):
            self._paint([0.44, 0.5, 0.55], 0, [hips * 0.95, hips, hips * 0.8], lower)
            return
        dress = person.lower == "dress"
        sway = 0.02 * self.side * np.sin(self.pose.phase)
        flare = [hips * 0.95, hips * 1.08, hips * 1.3]
        colour = self.upper if dress else lower
        texture = self._texture() if dress else None
        self._paint([0.42, 0.52, 0.72], [0, 0, sway], flare, colour, texture)

    def _neck(self):
        self._paint([0.11, 0.175], [0.01 * self.side, 0], [0.034, 0.042], self.skin)

    def _torso(self):
        person, build = self.person, self.person.build
        heights = np.array([0.15, 0.175, 0.25, 0.38, 0.47])
        wide = np.array([0.045, 0.108, 0.122, 0.106, 0.115]) * build
        deep = np.array([0.04, 0.065, 0.092, 0.085, 0.088]) * build
        if person.upper == "coat":
            heights[-1], wide[-1], deep[-1] = 0.68, 0.14 * build, 0.12 * build
        outline = self._extent(wide, deep)
        self._paint(heights, 0, outline, self.upper, self._texture())
        if person.upper in ("open jacket", "coat") and self.front > 0.1:
            shirt = 0.25 if person.upper == "open jacket" else 0.12
            middle = self._across(0, 0.09 * build) * np.array([1, 1])
            inner = COLOURS[person.second_colour]
            self._paint([0.165, 0.46], middle, shirt * outline[2] * np.array([0.7, 1.1]), inner)

    def _texture(self) -> Callable | None:
        """The pattern of the upper clothes: a function from `(u, v)` in the outline to colour."""
        pattern, turn = self.person.pattern, self.pose.yaw
        if pattern == "plain" or (pattern == "print" and self.front < 0.2):
            return None
        base, second = np.array(self.upper), np.array(COLOURS[self.person.second_colour])

        def texture(u, v):
            around = np.arcsin(np.clip(u, -1, 1)) - turn  # stripes stay on the cloth as it turns
            masks = {
                "hoops": (v * 6.5) % 1 < 0.42,
                "stripes": (around * 2.2) % 1 < 0.35,
                "checks": ((v * 6) % 1 < 0.4) != ((around * 2) % 1 < 0.4),
                "print": (np.abs(around) < 0.55) & (np.abs(v - 0.38) < 0.17),
                "yoke": v < 0.36,
            }
            mask = np.broadcast_to(masks[pattern], np.broadcast(u, v).shape)
            return np.where(mask[..., None], second, base)

        return texture

    def _head(self):
        ahead = 0.012 * self.side
        self._ellipse(0.07, ahead, 0.072, self._extent(0.054, 0.06), self.skin)
        if self.person.hair != "bald":
            back = -0.016 * self.side
            hair, low = HAIR[self.person.hair_colour], 0.028 + 0.02 * (1 - self.front) / 2
            self._ellipse(low, back, 0.034 + low * 0.3, self._extent(0.057, 0.062), hair)
            if abs(self.side) > 0.35:
                self._ellipse(0.06, -0.034 * self.side, 0.05, 0.034, hair)
        if self.front > 0.25:
            for eye in (-0.02, 0.02):
                place = self._across(eye, 0.035) + ahead
                self._ellipse(0.072, place, 0.008, 0.009, (0.12, 0.08, 0.07))

    def _back_of_head(self):
        """Paints the hair behind the head: before the head if seen from the front, else after."""
        hair, back = HAIR[self.person.hair_colour], -0.03 * self.side
        if self.person.hair == "bald":
            return
        if self.front <= 0:
            self._ellipse(0.062, back * 0.6, 0.062, self._extent(0.056, 0.058), hair)
        if self.person.hair == "long":
            wide = self._extent(0.066, 0.05)
            self._paint([0.03, 0.1, 0.24], back, [wide * 0.8, wide, wide * 0.75], hair)
        elif self.person.hair == "bun":
            self._ellipse(0.022, -0.05 * self.side, 0.028, 0.03, hair)

    def _hat(self):
        hat, colour = self.person.hat, COLOURS[self.person.hat_colour]
        if not hat:
            return
        if hat == "sun hat":
            self._paint([-0.012, 0.04], 0, [0.04, 0.066], colour)
            self._ellipse(0.043, 0, 0.016, 0.115, colour)
            return
        low = 0.052 if hat == "beanie" else 0.038
        wide = self._extent(0.06, 0.066)
        self._paint([-0.014, 0.01, low], 0, [wide * 0.6, wide, wide * 1.02], colour)
        if hat == "cap" and self.front > -0.3:
            brim = tuple(0.8 * channel for channel in colour)
            self._ellipse(low, 0.06 * self.side, 0.012, 0.055, brim)

    def _backpack(self):
        if self.person.bag != "backpack":
            return
        colour = COLOURS[self.person.bag_colour]
        place = self._across(0, -0.105 * self.person.build)
        wide = self._extent(0.1, 0.062)
        self._paint([0.17, 0.2, 0.38, 0.41], place, wide * np.array([0.7, 1, 1, 0.85]), colour)

    def _shoulder_bag(self):
        person, colour = self.person, COLOURS[self.person.bag_colour]
        if person.bag == "backpack" and self.front > 0.1:
            for side in (-1, 1):
                lateral = self._across(0.075 * side * person.build, 0.05)
                self._paint([0.165, 0.34], lateral, 0.016, colour)
        if person.bag == "shoulder bag":
            hip = self._across(0.14 * person.build * person.bag_side)
            shoulder = self._across(-0.075 * person.build * person.bag_side)
            dark = tuple(0.7 * channel for channel in colour)
            self._paint([0.165, 0.46], [shoulder, hip], 0.013, dark)
            self._paint([0.43, 0.45, 0.56], hip, np.array([0.055, 0.066, 0.06]), colour)


def paint_profile(canvas, rows, centres, widths, colour, texture, light):
    """Paints what is within `widths` of a line through `(rows, centres)`, shaded as if round."""
    # Rows, centres and half-widths are in pixels. A texture maps (u, v), across -1 to 1 and down
    # 0 to 1, to colours.
    height, width, _ = canvas.shape
    first, last = max(0, int(rows[0])), min(height, int(np.ceil(rows[-1])) + 1)
    if first >= last:
        return
    y = np.arange(first, last) + 0.5
    c, w = np.interp(y, rows, centres)[:, None], np.interp(y, rows, widths)[:, None]
    left, right = max(0, int((c - w).min()) - 1), min(width, int((c + w).max()) + 2)
    if left >= right:
        return
    x = np.arange(left, right) + 0.5
    end = np.clip(np.minimum(y - rows[0], rows[-1] - y) + 0.5, 0, 1)[:, None]
    cover = np.clip(w - np.abs(x - c) + 0.5, 0, 1) * end
    u = np.clip((x - c) / np.maximum(w, 0.5), -1, 1)
    paint = colour if texture is None else texture(u, (y[:, None] - rows[0]) / (rows[-1] - rows[0]))
    shade = 1 - 0.3 * u**2 + 0.16 * light * u
    part = canvas[first:last, left:right]
    part += cover[..., None] * (np.asarray(paint) * shade[..., None] - part)
