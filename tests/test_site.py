"""The docs as a site: every page is built, every link and every name of the library is found."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_site_is_built_without_a_warning(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", f"--site-dir={tmp_path}"],
        cwd=ROOT, check=True, timeout=300,
    )  # fmt: skip
    library = (tmp_path / "api" / "index.html").read_text()
    for name in (
        "dml_tf.method.cohort.Cohort",
        "dml_tf.reid.evaluate",
        "dml_tf.runs.config.Config",
    ):
        assert f'id="{name}' in library, name
    assert (tmp_path / "repository" / "dml_tf" / "method" / "losses.py").is_file()
    pages = " ".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert "cdnjs" not in pages and "fonts.googleapis" not in pages
