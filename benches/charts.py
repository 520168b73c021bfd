"""Line charts as SVG files, for pages that are read in light and dark.

Owns scales, ticks, labels and colours. Knows nothing of what is measured. A
file has no scripts, refers to nothing outside, and brings its own background.
"""

import itertools
import math
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, BOTTOM = 66, 734, 384
# Below a title only, and below a legend too.
TOP_ALONE, TOP = 52, 82

# Lines in order, in light and in dark: colours that differ for the colour-blind
# too, and markers that differ without any.
COLOURS = [
    ("#0969a8", "#6cb6ff"),
    ("#bf4b00", "#ff9d57"),
    ("#117a4f", "#4fd1a0"),
    ("#8b3a9c", "#d99be8"),
]
MARKERS = [
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.6-3.6h7.2v7.2h-7.2z",
    "M0-4.6l4.6 8h-9.2z",
    "M0-5l5 5l-5 5l-5-5z",
]
# A character of a value's label, in pixels: for where labels have room.
LABEL_WIDTH, LABEL_HEIGHT = 6.8, 13
# How far apart the ends of a y axis are at least, so that noise stays small.
Y_FACTOR_MIN = 10
# Where an axis with fewer powers of ten has lines at 2 and 5 as well.
DECADES_MAX = 2.6

STYLE = """
text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:#1f2328}
.title{font-size:15px;font-weight:600}
.ground{fill:#fff;stroke:#d1d9e0}
.grid{stroke:#d5dbe1;fill:none}
.fine{stroke:#eef1f4;fill:none}
.axis{stroke:#59636e;fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.apart{stroke-dasharray:2 4}
.range{stroke-width:1.2;opacity:.55}
.value{font-size:11px;paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}
"""
DARK = """
text{fill:#e6edf3}
.ground{fill:#0d1117;stroke:#3d444d}
.grid{stroke:#30363d}
.fine{stroke:#1b2129}
.axis{stroke:#9198a1}
.value{stroke:#0d1117}
"""


class Axis(NamedTuple):
    """An axis by powers of ten; of x, a 0 stands apart from the others."""

    title: str
    # In KiB and MiB.
    bytes: bool = False
    # Ticks are where points are, not at powers of ten.
    at_points: bool = False


class Point(NamedTuple):
    """A value, and from where to where it went in the rounds."""

    x: float
    y: float
    low: float
    high: float


class Line(NamedTuple):
    """Points with rising x, and what the legend calls them."""

    label: str
    points: list


class Scale:
    """From values to pixels, by their logarithms."""

    def __init__(self, low, high, start, end):
        self.low, self.high = low, high
        self.start, self.end = start, end

    def place(self, value):
        span = math.log(self.high / self.low)
        return self.start + (self.end - self.start) * math.log(value / self.low) / span

    def ticks(self):
        """Values with a label, and those with a fine line only."""
        first, last = (math.floor(math.log10(bound)) for bound in (self.low, self.high))
        steps = [
            (digit, digit * 10.0**power)
            for power in range(first, last + 1)
            for digit in range(1, 10)
        ]
        inside = [step for step in steps if self.low * 0.999 <= step[1] <= self.high * 1.001]
        shown = (1, 2, 5) if math.log10(self.high / self.low) < DECADES_MAX else (1,)
        labelled = [number for digit, number in inside if digit in shown]
        return labelled, [number for digit, number in inside if digit not in shown]


def draw(title, x_axis, y_axis, lines):
    """The text of an SVG file. All y are above 0, and some line has a point."""
    lines = [line for line in lines if line.points]
    points = [point for line in lines for point in line.points]
    xs = sorted({point.x for point in points})
    x_scale, place_x = scale_of_x(xs)
    y_low, y_high = bounds_of_y(points)
    y_scale = Scale(y_low, y_high, BOTTOM, TOP if len(lines) > 1 else TOP_ALONE)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{style(len(lines))}</style>",
        f'<rect class="ground" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="6"/>',
        f'<text class="title" x="20" y="28">{escape(title)}</text>',
    ]
    if len(lines) > 1:
        parts += legend(lines)
    parts += grid(xs, x_axis, x_scale, place_x, y_axis, y_scale)
    places = [
        [(place_x(point.x), y_scale.place(point.y)) for point in line.points] for line in lines
    ]
    for index, line in enumerate(lines):
        parts += marks(index, line, places[index], y_scale)
    parts += labels(lines, places, y_scale.end)
    parts.append("</svg>\n")
    return "\n".join(parts)


def style(count):
    """Of so many lines."""
    colours = ["", ""]
    for index, pair in enumerate(COLOURS[:count]):
        for of, colour in enumerate(pair):
            colours[of] += f".s{index}{{stroke:{colour}}}.m{index}{{fill:{colour}}}\n"
    return f"{STYLE}{colours[0]}@media (prefers-color-scheme:dark){{{DARK}{colours[1]}}}\n"


def scale_of_x(xs):
    """The scale of those above 0, and where a value is, 0 included."""
    positive = [x for x in xs if x > 0] or [1]
    left, right = LEFT + 26, RIGHT - 26
    apart = left
    if xs[0] <= 0:
        left += 70
    low, high = positive[0], positive[-1]
    if low == high:
        low, high = low / 2, high * 2
    scale = Scale(low, high, left, right)
    return scale, lambda x: scale.place(x) if x > 0 else apart


def bounds_of_y(points):
    """Powers of ten, or twice or five times one."""
    low = min(point.low for point in points) / 1.15
    high = max(point.high for point in points) * 1.25
    steps = [
        digit * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for digit in (1, 2, 5)
    ]
    first = max(index for index, step in enumerate(steps) if step <= low)
    last = min(index for index, step in enumerate(steps) if step >= high)
    while steps[last] / steps[first] < Y_FACTOR_MIN * 0.999:
        # On both sides in turns.
        first, last = (first - 1, last) if (last - first) % 2 else (first, last + 1)
    return steps[first], steps[last]


def legend(lines):
    parts, at = [], 22
    for index, line in enumerate(lines):
        parts.append(
            f'<path class="line s{index}" d="M{at} 54h26"/>'
            f'<path class="m{index}" transform="translate({at + 13} 54)" d="{MARKERS[index]}"/>'
            f'<text x="{at + 33}" y="58">{escape(line.label)}</text>'
        )
        at += 33 + 6.6 * len(line.label) + 24
    return parts


def grid(xs, x_axis, x_scale, place_x, y_axis, y_scale):
    x_ticks, _ = x_scale.ticks()
    if x_axis.at_points or len(x_ticks) < 2:
        x_ticks = [x for x in xs if x > 0]
    top = y_scale.end
    if xs[0] <= 0:
        x_ticks = [0, *x_ticks]
    y_ticks, y_fine = y_scale.ticks()

    vertical = "".join(f"M{place_x(x):.1f} {top}V{BOTTOM}" for x in x_ticks)

    def horizontal(ys):
        return "".join(f"M{LEFT} {y_scale.place(y):.1f}H{RIGHT}" for y in ys)

    parts = [
        f'<path class="fine" d="{horizontal(y_fine)}"/>',
        f'<path class="grid" d="{vertical}{horizontal(y_ticks)}"/>',
        f'<path class="axis" d="M{LEFT} {top}V{BOTTOM}H{RIGHT}"/>',
    ]
    for x in x_ticks:
        parts.append(
            f'<text text-anchor="middle" x="{place_x(x):.1f}" y="{BOTTOM + 18}">'
            f"{tick(x, x_axis)}</text>"
        )
    for y in y_ticks:
        parts.append(
            f'<text text-anchor="end" x="{LEFT - 7}" y="{y_scale.place(y) + 4:.1f}">'
            f"{tick(y, y_axis)}</text>"
        )
    parts.append(
        f'<text text-anchor="middle" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 16}">'
        f"{escape(x_axis.title)}</text>"
    )
    parts.append(
        f'<text text-anchor="middle" transform="translate(18 {(top + BOTTOM) / 2}) rotate(-90)">'
        f"{escape(y_axis.title)}</text>"
    )
    return parts


def marks(index, line, places, y_scale):
    """The line, a marker a point, and the range of each."""
    parts = []
    path = "".join(
        f"{'L' if at else 'M'}{x:.1f} {y:.1f}"
        for at, (x, y) in enumerate(
            place for place, point in zip(places, line.points) if point.x > 0
        )
    )
    if path:
        parts.append(f'<path class="line s{index}" d="{path}"/>')
    if line.points[0].x <= 0 and len(places) > 1:
        (x, y), (next_x, next_y) = places[:2]
        parts.append(
            f'<path class="line apart s{index}" d="M{x:.1f} {y:.1f}L{next_x:.1f} {next_y:.1f}"/>'
        )
    ranges = "".join(
        f"M{x:.1f} {y_scale.place(point.low):.1f}V{y_scale.place(point.high):.1f}"
        for (x, _), point in zip(places, line.points)
        if point.low < point.high
    )
    if ranges:
        parts.append(f'<path class="range s{index}" d="{ranges}"/>')
    for x, y in places:
        parts.append(
            f'<path class="m{index}" transform="translate({x:.1f} {y:.1f})" d="{MARKERS[index]}"/>'
        )
    return parts


def labels(lines, places, top):
    """Each value at its point, where it hides no other, and no line if it can."""
    taken = [(x - 5, y - 5, x + 5, y + 5) for line_places in places for x, y in line_places]
    crossed = [(x, y, x, y) for line_places in places for x, y in between(line_places)]
    highest = {}
    for x, y in (place for line_places in places for place in line_places):
        highest[x] = min(y, highest.get(x, y))
    parts = []
    for line, line_places in zip(lines, places):
        for point, (x, y) in zip(line.points, line_places):
            text = value(point.y)
            half = LABEL_WIDTH * len(text) / 2
            # Below another line's point, a value above its own might be taken for that one's.
            baselines = (y - 9, y + 19) if y == highest[x] else (y + 19, y - 9)
            boxes = [(x - half, at - LABEL_HEIGHT + 4, x + half, at + 2) for at in baselines]
            inside = [box for box in boxes if top - 8 <= box[1] and box[3] <= BOTTOM]
            free = [box for box in inside if not any(overlap(box, other) for other in taken)]
            clear = [box for box in free if not any(overlap(box, other) for other in crossed)]
            for box in (clear or free)[:1]:
                taken.append(box)
                parts.append(
                    f'<text class="value" text-anchor="middle" x="{x:.1f}" '
                    f'y="{box[3] - 2:.1f}">{text}</text>'
                )
    return parts


def between(places):
    """Places on the line through these, a few pixels apart."""
    for (x, y), (next_x, next_y) in itertools.pairwise(places):
        steps = max(1, round(math.hypot(next_x - x, next_y - y) / 4))
        for step in range(steps + 1):
            yield x + (next_x - x) * step / steps, y + (next_y - y) * step / steps


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def tick(number, axis):
    """As it stands at an axis."""
    if not axis.bytes:
        return f"{number:,g}" if number < 1e6 else value(number)
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= size:
            return f"{number / size:g} {unit}"
    return f"{number:g} B"


def value(number):
    """Three digits, and the thousands as letters: 0.21, 1,500, 45.2k, 4.48M."""
    digits = float(f"{number:.3g}")
    if digits >= 1e6:
        return f"{digits / 1e6:g}M"
    if digits >= 1e4:
        return f"{digits / 1e3:g}k"
    return f"{number:,.0f}" if digits >= 1e3 else f"{digits:g}"
