"""Says what is wrong with the distributions in a folder: `python tests/distributions.py DIST`.

Needs nothing but the standard library, and the sources beside it.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def sources() -> set[str]:
    """Return the package's files, as a wheel names them."""
    package = ROOT / "src" / "arthur_relay"
    return {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def faults_of_wheel(path: Path) -> list[str]:
    """Return what is missing from a wheel, and what does not belong there."""
    names = {name for name in zipfile.ZipFile(path).namelist() if not name.endswith("/")}
    own = {name for name in names if ".dist-info/" not in name}
    faults = [f"{path.name} lacks {name}" for name in sorted(sources() - own)]
    faults += [f"{path.name} has {name}" for name in sorted(own - sources())]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        faults.append(f"{path.name} lacks the licence")
    return faults


def faults_of_sdist(path: Path) -> list[str]:
    """Return what is missing from a source distribution: it has to be enough to work with."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {f"src/{name}" for name in sources()}
    needed |= {"README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt"}
    needed |= {"noxfile.py", "mkdocs.yml", "tests/conftest.py", "docs/README.md"}
    return [f"{path.name} lacks {name}" for name in sorted(needed - names)]


def main(folder: Path) -> int:
    """Check what `python -m build` has made, and print each fault on a line.

    Returns:
        The exit status.
    """
    [wheel], [sdist] = list(folder.glob("*.whl")), list(folder.glob("*.tar.gz"))
    faults = faults_of_wheel(wheel) + faults_of_sdist(sdist)
    sys.stderr.write("".join(f"{fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
