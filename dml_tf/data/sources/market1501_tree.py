"""Market-1501's folders and file names, on disk or in the .zip as it is distributed."""

import re
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

TRAIN, QUERY, GALLERY, MULTI_QUERY = "bounding_box_train", "query", "bounding_box_test", "gt_bbox"
FOLDERS = (TRAIN, QUERY, GALLERY, MULTI_QUERY)
FOLDER = "Market-1501-v15.09.15"
_NAME = re.compile(r"(-1|[0-9]{4})_c([1-6])s([0-9])_([0-9]{6})_([0-9]{2})(?:\.jpg)+")
_LISTED = 10  # names in a warning

AnyPath = Path | zipfile.Path


class ImageName(NamedTuple):
    """What the name of a picture says.

    Attributes:
        pid: Identity; 0 is a distractor, -1 junk.
        camid: Camera, 1 to 6.
        sequence: Recording of the camera.
        frame: Frame of the recording.
        box: Number of the box in the frame; 0 where it was drawn by hand.
    """

    pid: int
    camid: int
    sequence: int
    frame: int
    box: int


def parse_name(name: str) -> ImageName | None:
    """Reads a picture's file name.

    Args:
        name: File name without its folder; some end `.jpg.jpg`.

    Returns:
        What it says, or None if it is no picture of Market-1501.

    Example:
        >>> parse_name("0002_c1s1_000451_03.jpg")
        ImageName(pid=2, camid=1, sequence=1, frame=451, box=3)
    """
    match = _NAME.fullmatch(name)
    return ImageName(*map(int, match.groups())) if match else None


def find_tree(data_dir: str | Path) -> AnyPath:
    """Finds the folder that holds `bounding_box_train` and the others.

    Args:
        data_dir: The folder with the four folders, or one that holds `Market-1501-v15.09.15` or
            `Market-1501-v15.09.15.zip`, or the path of that .zip.

    Returns:
        The folder, on disk or inside the .zip.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: The .zip is damaged.
    """
    given = Path(data_dir).expanduser()
    looked = [given, given / FOLDER, given / f"{FOLDER}.zip"]
    for place in looked:
        root = _open_zip(place) if place.suffix == ".zip" and place.is_file() else place
        if (root / TRAIN).is_dir():
            return root
    raise FileNotFoundError(
        f"Market-1501 is missing: {TRAIN} was looked for in {', '.join(map(str, looked))}. "
        f"Download {FOLDER}.zip from its authors "
        "(https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html), put it into a folder, "
        "unpacked or not, and give --data_dir=FOLDER; or try --dataset=pedestrians, a generated "
        "stand-in that needs no download."
    )


def list_pictures(folder: AnyPath) -> list[tuple[AnyPath, ImageName]]:
    """Lists the pictures of a folder, and warns of whatever else is in it.

    Args:
        folder: One of the four folders.

    Returns:
        Paths and what their names say, in the order of the names.

    Raises:
        FileNotFoundError: The folder is missing, or has no picture.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: get the whole of {FOLDER}.zip.")
    parsed = [(path, parse_name(path.name)) for path in folder.iterdir()]
    strange = sorted(path.name for path, picture in parsed if picture is None)
    if strange:
        listed = ", ".join(strange[:_LISTED]) + (", ..." if len(strange) > _LISTED else "")
        warnings.warn(
            f"{folder}: {len(strange)} names are not Market-1501's and left out: {listed}",
            stacklevel=2,
        )
    pictures = [(path, picture) for path, picture in parsed if picture is not None]
    if not pictures:
        raise FileNotFoundError(f"{folder} has no pictures: get the whole of {FOLDER}.zip.")
    return sorted(pictures, key=lambda item: item[0].name)


def _open_zip(archive: Path) -> AnyPath:
    """The folder in the archive that holds the four folders; what holds it differs by copy."""
    try:
        opened = zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{archive} is damaged ({error}): download it again.") from error
    names = [name for name in opened.namelist() if not name.startswith("__MACOSX/")]
    first = next((name for name in names if f"/{TRAIN}/" in f"/{name}"), "")
    return zipfile.Path(opened, first.partition(f"{TRAIN}/")[0])
