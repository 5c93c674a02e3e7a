"""The figures of the architecture, measured on the source (`make figures`).

    python -m tests.figures                      the table
    python -m tests.figures --list [FOLDER …]    and what exceeds, per folder
    python -m tests.figures workers/pipeline     of one folder alone

What each figure counts:

product lines         all lines of messages/, handlers/ and workers/, blank lines and comments too
statements            as the syntax tree has them: the size whatever the layout
entries at the top    modules and folders of workers/ and handlers/, without `__init__.py` and
                      `py.typed`
constructor           parameters of a hand-written `__init__` without `self`, keyword-only ones too.
                      The fields of a dataclass that is not frozen count likewise (it is a class
                      with a constructor that nobody had to write). Frozen dataclasses, pydantic
                      models and named tuples are records and do not count.
lines over 100        of all lines that are not blank
called from one place functions and methods whose name begins with one underscore, where the name is
                      read (called or passed on) just once in the whole product
docstrings            of modules, classes and functions, that begin with one of the words
files touched         product files without the demo that name an existing example in code
                      (docstrings and comments apart): its wire name as a whole string, its enum
                      member or its model
"""

import argparse
import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = ("messages", "handlers", "workers")
#: Columns of a line.
WIDTH = 100
OPENINGS = ("What", "Whether", "Who", "How", "As", "Which", "Where", "When")
#: An existing operation or action, under the names that it has in code. The first must be there.
NEW_READ = ("server.tags.list", "SERVER_TAGS_LIST", "ServerTagsList")
NEW_ACTION = ("createImage", "CREATE_IMAGE", "CreateImage", "ImageCreate", "ServerCreateImage")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A product module: its path inside the repository, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(frozen=True)
class Figure:
    """A row of the table, and the places that it was counted at."""

    name: str
    value: str
    target: str
    met: bool
    #: (path and line, text) each.
    places: tuple[tuple[str, str], ...] = ()


def product(folders: Iterable[str] = PRODUCT) -> list[Source]:
    """All modules in the folders, in order."""
    found = {path for folder in folders for path in _python_files(ROOT / folder)}
    return [
        Source(path.relative_to(ROOT).as_posix(), text := path.read_text("utf-8"), ast.parse(text))
        for path in sorted(found)
    ]


def _python_files(path: Path) -> Iterator[Path]:
    return path.rglob("*.py") if path.is_dir() else iter((path,))


def figures(sources: list[Source]) -> list[Figure]:
    """All figures; entries and files touched only where the sources are the whole product."""
    whole = {source.path.split("/")[0] for source in sources} == set(PRODUCT)
    return [
        _lines(sources),
        _statements(sources),
        *((_entries("workers", 15), _entries("handlers", 8)) if whole else ()),
        *(
            (
                _touched("files touched by a new read operation", NEW_READ, 3, sources),
                _touched("files touched by a new action", NEW_ACTION, 4, sources),
            )
            if whole
            else ()
        ),
        _constructors(sources),
        _unformatted(sources),
        _long_lines(sources),
        _called_once(sources),
        _docstrings(sources),
    ]


def _lines(sources: list[Source]) -> Figure:
    count = sum(len(source.text.splitlines()) for source in sources)
    return Figure("product lines", f"{count:,}", "≤ 16,000", count <= 16_000)


def _statements(sources: list[Source]) -> Figure:
    nodes = (node for source in sources for node in ast.walk(source.tree))
    count = sum(isinstance(node, ast.stmt) for node in nodes)
    return Figure("statements", f"{count:,}", "", met=True)


def _entries(folder: str, most: int) -> Figure:
    names = sorted(
        path.name
        for path in (ROOT / folder).iterdir()
        if path.name not in ("__init__.py", "__pycache__", "py.typed")
    )
    return Figure(
        f"entries at the top of {folder}/",
        str(len(names)),
        f"≤ {most}",
        len(names) <= most,
        tuple((f"{folder}/{name}", "") for name in names),
    )


def _touched(name: str, example: tuple[str, ...], most: int, sources: list[Source]) -> Figure:
    places = [
        (f"{source.path}:{line}", word)
        for source in sources
        if not source.path.startswith("workers/demo/")
        for line, word in sorted(_named(source.tree, example))
    ]
    if example[0] not in {word for _, word in places}:
        raise SystemExit(f"tests/figures.py: there is no {example[0]} in the product any more")
    count = len({place.partition(":")[0] for place, _ in places})
    return Figure(f"{name} ({example[0]})", str(count), f"≤ {most}", count <= most, tuple(places))


def _named(tree: ast.Module, example: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as word):
                pass
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.ClassDef(name=word):
                pass
            case _:
                continue
        if word in example:
            yield node.lineno, word


def _constructors(sources: list[Source]) -> Figure:
    found = sorted(
        ((count, place, name) for source in sources for count, place, name in _taking(source)),
        reverse=True,
    )
    most, _, name = found[0] if found else (0, "", "none")
    return Figure(
        "constructor with most parameters",
        f"{most} ({name})",
        "≤ 5",
        most <= 5,
        tuple((place, f"{name}: {count}") for count, place, name in found if count > 5),
    )


def _taking(source: Source) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        place = f"{source.path}:{node.lineno}"
        if _is_open_dataclass(node):
            yield sum(isinstance(one, ast.AnnAssign) for one in node.body), place, node.name
        for one in node.body:
            if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                a = one.args
                variable = (a.vararg is not None) + (a.kwarg is not None)
                count = len(a.posonlyargs) + len(a.args) + len(a.kwonlyargs) + variable - 1
                yield count, place, node.name


def _is_open_dataclass(node: ast.ClassDef) -> bool:
    for one in node.decorator_list:
        name = one.func if isinstance(one, ast.Call) else one
        if isinstance(name, ast.Name) and name.id == "dataclass":
            keywords = one.keywords if isinstance(one, ast.Call) else []
            return not any(
                word.arg == "frozen"
                and isinstance(word.value, ast.Constant)
                and word.value.value is True
                for word in keywords
            )
    return False


def _unformatted(sources: list[Source]) -> Figure:
    places = [
        (f"{source.path}:{token.start[0]}", token.string)
        for source in sources
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
        if token.type == tokenize.COMMENT and "fmt:" in token.string
    ]
    return Figure("`# fmt: skip` or `off`", str(len(places)), "0", not places, tuple(places))


def _long_lines(sources: list[Source]) -> Figure:
    lines = [
        (f"{source.path}:{number}", line)
        for source in sources
        for number, line in enumerate(source.text.splitlines(), 1)
        if line.strip()
    ]
    places = tuple((place, f"{len(line)} columns") for place, line in lines if len(line) > WIDTH)
    share = 100 * len(places) / len(lines)
    return Figure("lines over 100 columns", f"{share:.1f} %", "≤ 1 %", share <= 1, places)


def _called_once(sources: list[Source]) -> Figure:
    read = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        # Of the whole product, even where only a folder is shown.
        for source in product()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
    )
    places = tuple(
        (f"{source.path}:{node.lineno}", f"{node.name} ({_length(node)} lines)")
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, Function)
        and node.name.startswith("_")
        and not node.name.startswith("__")
        and read[node.name] == 1
    )
    return Figure(
        "private functions called from one place only",
        str(len(places)),
        "≤ 120",
        len(places) <= 120,
        places,
    )


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstrings(sources: list[Source]) -> Figure:
    count, places = 0, []
    for source in sources:
        for node in ast.walk(source.tree):
            if not isinstance(node, Function | ast.ClassDef | ast.Module):
                continue
            if text := ast.get_docstring(node):
                count += 1
                if text.split()[0] in OPENINGS:
                    places.append((f"{source.path}:{node.body[0].lineno}", text.splitlines()[0]))
    share = 100 * len(places) / max(count, 1)
    return Figure(
        "docstrings that begin with " + "/".join(OPENINGS),
        f"{share:.1f} % ({len(places)} of {count:,})",
        "≤ 2 %",
        share <= 2,
        tuple(places),
    )


def _print_table(rows: list[Figure]) -> None:
    width = max(len(row.name) for row in rows)
    value = max(len(row.value) for row in rows)
    print(f"{'':{width}}  {'now':{value}}  target")
    for row in rows:
        print(f"{row.name:{width}}  {row.value:{value}}  {row.target:9} {'' if row.met else '✗'}")


def _print_folders(sources: list[Source]) -> None:
    sizes = Counter[str]()
    for source in sources:
        sizes[source.folder] += len(source.text.splitlines())
    print("\nlines per folder")
    for folder, size in sorted(sizes.items()):
        print(f"  {size:6,}  {folder}/")


def _print_places(rows: list[Figure]) -> None:
    for row in rows:
        if not row.places:
            continue
        print(f"\n{row.name}: {len(row.places)}")
        folder = None
        for place, text in row.places:
            if (here := place.rpartition("/")[0]) != folder:
                folder = here
                inside = sum(other.rpartition("/")[0] == here for other, _ in row.places)
                print(f"  {folder}/  {inside}")
            print(f"    {place}  {text}")


def main() -> None:
    """Print the table, the lines per folder and, if asked, the places."""
    parser = argparse.ArgumentParser(prog="figures", description="the figures of the architecture")
    parser.add_argument("folders", nargs="*", default=PRODUCT, help="folders or modules")
    parser.add_argument("--list", action="store_true", help="the places that were counted")
    options = parser.parse_args()
    sources = product(options.folders)
    if not sources:
        parser.error("there are no modules")
    rows = figures(sources)
    _print_table(rows)
    _print_folders(sources)
    if options.list:
        _print_places(rows)


if __name__ == "__main__":
    main()
