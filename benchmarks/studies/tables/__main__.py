"""Write the figures into the pages, or check that they are there."""

import argparse
import sys

from benchmarks.studies.tables.pages import PAGES, rewritten


def main() -> None:
    parser = argparse.ArgumentParser(description="The figures of README and docs.")
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = rewritten(before)
        if check and before != after:
            sys.exit(f"{page} is not made from the results")
        if not check:
            page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
