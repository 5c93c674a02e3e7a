"""`make trace`: the figures of the three messages, and with `--list` every function in order."""

import sys

from tests.trace.messages import Outside, trace


def main() -> None:
    """Trace and print."""
    for way in trace():
        all_of, before = way.figures, way.before_work
        print(
            f"{way.title:24} {all_of.functions:4} functions {all_of.files:3} files {all_of.returns:4} returns"
            f"    before the handler {before.functions:3} functions {before.files:3} files"
        )
        if "--list" in sys.argv[1:]:
            for one in way.events:
                is_outside = isinstance(one, Outside)
                print(
                    f"    → {one.kind} {one.text}"
                    if is_outside
                    else f"  {one.file}  {one.function}"
                )


if __name__ == "__main__":
    main()
