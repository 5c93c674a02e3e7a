"""Whole workers of earlier versions, to be run beside this one. A clone without history has them,
too.
"""

import tarfile
from pathlib import Path

from tests.support.archives import extract

#: Without `ecs.reads`: `git archive 45eb87a messages handlers workers | xz -9`.
WITHOUT_READS = "45eb87a"
#: The last before 1.0.0: `git archive 08875d1 messages handlers workers ecs_client | xz -9`.
BEFORE_1_0 = "08875d1"
#: 1.0.0: the same four of f46f8bf.
VERSION_1_0 = "f46f8bf"


def unpack(commit: str, folder: Path) -> Path:
    """Unpack a version into a folder that is made, and return what is its PYTHONPATH."""
    target = folder / commit
    with tarfile.open(Path(__file__).parent / commit / "worker.tar.xz") as archive:
        extract(archive, target)
    return target
