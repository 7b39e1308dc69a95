"""Write into a folder what `dsage-spool init` writes, without what belongs to one spool only.

spool.json (a random id), roster (keys) and what runs leave behind are ignored by git.
"""

import sys
import tempfile
from pathlib import Path

from dsage_spool import layout
from dsage_spool.files import LocalFiles
from dsage_spool.spool.making import make_spool


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_spool(LocalFiles(folder), lambda count: bytes(count), "")
        for path in sorted(Path(folder).rglob("*")):
            copy = target / path.relative_to(folder)
            if path.is_dir():
                copy.mkdir(parents=True, exist_ok=True)
            elif path.name not in (layout.SETTINGS, layout.ROSTER):
                copy.write_bytes(path.read_bytes())


main(Path(sys.argv[1]))
