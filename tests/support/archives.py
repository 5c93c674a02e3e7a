"""Extracts archives that the tests made themselves."""

import tarfile
from pathlib import Path


def extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract all into the folder, by the filter "data" where Python has it (from 3.11.4; Debian 12
    has 3.11.2).
    """
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
    else:
        archive.extractall(folder)
