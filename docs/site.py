"""What MkDocs does not do by itself: pages and files outside docs/ become part of the site.

The pages link to each other, to the README and to source files as they stand in the repository.
In the site everything outside docs/ lies in `repository/`.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
BESIDE = "repository"
BROUGHT = (
    "*.md", "LICENSE", "CITATION.cff", "benchmarks/*.md", "results/**/*.md", "results/**/*.png",
    "dml_tf/**/*.py", "examples/*.py", "examples/*.ipynb", "flags/**/*.flags",
)  # fmt: skip
_LINK = re.compile(r"(\]\(|src=\"|href=\")(?![a-z]+:|#|/)([^)#\"\s]+)")


def on_files(files, config):
    """Adds what the pages link to."""
    for pattern in BROUGHT:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, f"{BESIDE}/{name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Points a page's links to where their files are in the site."""
    place = page.file.src_uri
    outside = place.startswith(f"{BESIDE}/")
    origin = posixpath.dirname(place.removeprefix(f"{BESIDE}/") if outside else f"docs/{place}")

    def moved(link):
        target = posixpath.normpath(posixpath.join(origin, link[2]))
        in_docs = target.startswith("docs/") and target.endswith(".md")
        there = target.removeprefix("docs/") if in_docs else f"{BESIDE}/{target}"
        return link[1] + posixpath.relpath(there, posixpath.dirname(place) or ".")

    return _LINK.sub(moved, markdown)
