"""Settings that pyproject.toml cannot hold: the packages of the wheel, and the metadata that depends on
where the project is published.

ECS_PROJECT_URL is the project's page (`https://git.example/cloud/ecs-worker`), ECS_PROJECT_FILES_URL
that of its files at this version, `<page>/blob/v<version>` where it is not set. They become the
wheel's project URLs and the targets of its README's links. Without them the wheel has no project
URLs, and its README no links into the repository, which would lead nowhere.
"""

import os
import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PRODUCT = ["messages*", "handlers*", "workers*", "ecs_client*", "gateway*"]
#: The demo and the servers that it starts have a wheel of their own (sandbox/pyproject.toml).
DEMO = ["workers.demo*"]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def project_url() -> str:
    """Return the project's page: of the environment, or of the source distribution we are in."""
    if given := os.environ.get("ECS_PROJECT_URL", "").strip():
        if not re.fullmatch(r"https?://[^\s,]+", given):
            raise SystemExit("ECS_PROJECT_URL must be a URL that begins with https:// or http://")
        return given.rstrip("/")
    info = HERE / "PKG-INFO"
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    found = re.search(r"^Project-URL: Homepage, (\S+)$", text, re.MULTILINE)
    return found[1] if found else ""


def readme(files_url: str) -> str:
    """Return README.md with links that hold wherever it is shown."""

    def link(found: re.Match[str]) -> str:
        mark, text, target = found.groups()
        if not files_url:
            return text
        url = files_url.replace("/blob/", "/raw/") if mark else files_url
        return f"{mark}[{text}]({url}/{target})"

    return _LINK.sub(link, (HERE / "README.md").read_text(encoding="utf-8"))


version = (HERE / "ecs_client" / "VERSION").read_text(encoding="utf-8").strip()
page = project_url()
files = os.environ.get("ECS_PROJECT_FILES_URL", "").strip().rstrip("/")
files = files or (f"{page}/blob/v{version}" if page else "")
urls = {"Homepage": page, "Documentation": f"{files}/docs", "Changelog": f"{files}/CHANGELOG.md"}

# The pages are made of the commands themselves. Only a wheel needs them.
man_pages = []
if "bdist_wheel" in sys.argv:
    sys.path.insert(0, str(HERE))
    from workers.cli.man import write_pages

    man_pages = [
        str(page.relative_to(HERE)) for page in write_pages(HERE / "build" / "man", version)
    ]

# A checkout that is installed to be worked on has everything.
is_editable = "editable_wheel" in sys.argv
setup(
    packages=(
        find_packages(include=[*PRODUCT, "sandbox*"])
        if is_editable
        else find_packages(include=PRODUCT, exclude=DEMO)
    ),
    data_files=[("share/man/man1", man_pages)],
    long_description=readme(files),
    long_description_content_type="text/markdown",
    project_urls=urls if page else {},
)
