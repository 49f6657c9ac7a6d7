"""Contact sheets: small pictures in rows, with words below each."""

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dml_tf.atomic import write_whole
from dml_tf.data.pictures import read_rgb

SIDE, GAP, TEXT = 144, 12, 34  # pixels: of a picture, around it, of the words below
COLUMNS = 6
_FRAMES = {"same": (40, 140, 60), "other": (200, 60, 50), "": (255, 255, 255)}


def of_predictions(file: Path, paths: Sequence[Path], rows: Sequence[dict]):
    """Draws pictures with the first answer of the ensemble, or of the last network.

    Args:
        file: Where to write a PNG.
        paths: The pictures.
        rows: As `predict.table` makes them.
    """
    firsts = {row["picture"]: row for row in rows if row["rank"] == 1}
    tiles = [
        (path, f"{firsts[str(path)]['class']} {100 * firsts[str(path)]['probability']:.0f}%", "")
        for path in paths
    ]
    write(file, [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)])


def of_ranking(file: Path, rows: Sequence[dict]):
    """Draws each query, and in its row the most similar pictures.

    Args:
        file: Where to write a PNG.
        rows: As `rank.ranking` makes them.
    """
    lines: dict[str, list] = {}
    for row in rows:
        line = lines.setdefault(row["query"], [(Path(row["query"]), "query", "")])
        words = f"{row['rank']}: {row['similarity']:.2f}"
        line.append((Path(row["picture"]), words, row["identity"]))
    write(file, list(lines.values()))


def write(file: Path, lines: Sequence[Sequence[tuple[Path, str, str]]]):
    """Writes a sheet of tiles: picture, words, and whose frame it gets."""
    if file.suffix.lower() != ".png":
        raise ValueError(f"--sheet={file}: the name of a sheet ends in .png.")
    width = GAP + max(map(len, lines)) * (SIDE + GAP)
    sheet = Image.new("RGB", (width, GAP + len(lines) * (SIDE + TEXT + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, line in enumerate(lines):
        for column, (path, words, frame) in enumerate(line):
            left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + TEXT + GAP)
            picture = ImageOps.contain(Image.fromarray(read_rgb(path)), (SIDE, SIDE))
            inside = left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2
            edges = (inside[0] - 3, inside[1] - 3)
            corner = (inside[0] + picture.width + 2, inside[1] + picture.height + 2)
            pen.rectangle((*edges, *corner), fill=_FRAMES[frame])
            sheet.paste(picture, inside)
            for number, text in enumerate((words, path.name)):
                pen.text((left, top + SIDE + 4 + 14 * number), _fit(text, font), "black", font)
    with write_whole(file) as part:
        sheet.save(part, format="PNG")
    print(f"wrote {file}", file=sys.stderr)


def _fit(text: str, font) -> str:
    """A text cut to the width of a picture."""
    if font.getlength(text) <= SIDE:
        return text
    while text and font.getlength(text + "...") > SIDE:
        text = text[:-1]
    return text + "..."
