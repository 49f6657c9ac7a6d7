"""Market-1501's folders and file names, on disk or in the .zip as it is distributed."""

import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple, Protocol

from dml_tf.data.pictures import counted
from dml_tf.errors import DataWarning

TRAIN, QUERY, GALLERY, MULTI_QUERY = "bounding_box_train", "query", "bounding_box_test", "gt_bbox"
FOLDERS = (TRAIN, QUERY, GALLERY, MULTI_QUERY)
FOLDER = "Market-1501-v15.09.15"
REMEDY = f"get it from {FOLDER}.zip; if it was generated, remove the whole folder"
INSTRUCTIONS = (
    f"Download {FOLDER}.zip from its authors "
    "(https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html), put it into a folder, "
    "unpacked or not, and give --data_dir=FOLDER; or try --dataset=pedestrians, which is "
    "generated and needs no download."
)
_NAME = re.compile(r"(-1|[0-9]{4})_c([1-6])s([0-9])_([0-9]{6})_([0-9]{2})(?:\.jpg)+")
_MOST_MEMBERS = 1_000_000
_MOST_BYTES = 64 << 20  # of one picture

AnyPath = Path | zipfile.Path


class ImageName(NamedTuple):
    """What the name of a picture says; pid 0 is a distractor, -1 junk; box 0 was drawn by hand."""

    pid: int
    camid: int
    sequence: int
    frame: int
    box: int


class PictureFile(Protocol):
    """A file, as far as the loader needs one: a path, or a picture in another container."""

    @property
    def name(self) -> str:
        """File name without its folder."""

    def read_bytes(self) -> bytes:
        """The encoded picture."""


class Folder(NamedTuple):
    """The pictures of one of the four folders, in the order of their names, and where they are."""

    place: str
    pictures: list[tuple[PictureFile, ImageName]]


def parse_name(name: str) -> ImageName | None:
    """Reads a file name; None if it is not one of Market-1501's. Some end in `.jpg.jpg`."""
    match = _NAME.fullmatch(name)
    return ImageName(*map(int, match.groups())) if match else None


def find_tree(data_dir: str | Path) -> AnyPath:
    """The folder that contains the four folders: `data_dir`, or one inside it, or in a .zip."""
    given = Path(data_dir).expanduser()
    looked = [given, given / FOLDER, given / f"{FOLDER}.zip"] if data_dir else []
    for place in looked:
        root = _open_zip(place) if place.suffix == ".zip" and place.is_file() else place
        if (root / TRAIN).is_dir():
            return root
    where = f"{TRAIN} is not in {', '.join(map(str, looked))}" if looked else "--data_dir is empty"
    raise FileNotFoundError(f"Market-1501 is missing: {where}. {INSTRUCTIONS}")


def tree_files(data_dir: str | Path) -> dict[str, list[Path]]:
    """The pictures of each of the four folders, or the archive; none if there is no such tree."""
    try:
        root = find_tree(data_dir)
    except FileNotFoundError:
        return {}
    if isinstance(root, zipfile.Path):
        return {"archive": [Path(root.root.filename)]}
    found = {name: sorted((root / name).iterdir()) for name in FOLDERS if (root / name).is_dir()}
    named = {
        name: [path for path in paths if parse_name(path.name)] for name, paths in found.items()
    }
    return {name: paths for name, paths in named.items() if paths}


def list_pictures(folder: AnyPath) -> Folder:
    """Lists the pictures of one folder, and warns of other files in it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: {REMEDY}.")
    # A folder, a device, or a link to nothing is no picture, whatever its name.
    files = [(path, parse_name(path.name)) for path in folder.iterdir()]
    parsed = [(path, name if name and path.is_file() else None) for path, name in files]
    strange = sorted(path.name for path, picture in parsed if picture is None)
    if strange:
        warnings.warn(
            f"{folder}: {counted(strange)} skipped, whose names are not Market-1501's.",
            DataWarning,
            stacklevel=2,
        )
    pictures = [(path, picture) for path, picture in parsed if picture is not None]
    if not pictures:
        raise FileNotFoundError(f"{folder} has no pictures: {REMEDY}.")
    return Folder(str(folder), sorted(pictures, key=lambda item: item[0].name))


def _open_zip(archive: Path) -> AnyPath:
    """The folder in the archive that contains the four folders; its place differs by copy."""
    try:
        opened = zipfile.ZipFile(archive)
    except Exception as error:  # of damaged archives zipfile raises many types
        raise ValueError(f"{archive} is damaged ({error}): download it again.") from error
    _check_members(archive, opened.infolist())
    names = [name for name in opened.namelist() if not name.startswith("__MACOSX/")]
    first = next((name for name in names if f"/{TRAIN}/" in f"/{name}"), "")
    return zipfile.Path(opened, first.partition(f"{TRAIN}/")[0])


def _check_members(archive: Path, members: list[zipfile.ZipInfo]):
    """Refuses members that are encrypted, links, lead out, or are larger than pictures."""
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"{archive} is refused: it has {len(members):,} members.")
    for member in members:
        parts = member.filename.split("/")
        reason = ""
        if member.flag_bits & 1:
            reason = "is encrypted"
        elif stat.S_ISLNK(member.external_attr >> 16):
            reason = "is a link"
        elif ".." in parts or parts[0] == "" or "\\" in member.filename:
            reason = "leads out of it"
        elif member.file_size > _MOST_BYTES:
            reason = f"unpacks to {member.file_size:,} bytes"
        if reason:
            raise ValueError(
                f"{archive} is refused: its member {member.filename[:200]!r} {reason}. Nothing was "
                f"extracted; download {FOLDER}.zip from its authors."
            )
