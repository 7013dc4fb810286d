"""Parts of a page that different scripts write: each replaces its own and keeps the others'."""

import re

PART = re.compile(r"<!-- begin (?P<name>\S+) -->\n.*?<!-- end (?P=name) -->\n", re.S)


def with_part(page: str, name: str, text: str) -> str:
    """The page with this part replaced, or added at the end."""
    part = f"<!-- begin {name} -->\n{text.strip()}\n<!-- end {name} -->\n"
    for old in PART.finditer(page):
        if old["name"] == name:
            return page[: old.start()] + part + page[old.end() :]
    return (page.rstrip() + "\n\n" if page else "") + part


def with_parts_of(before: str, page: str) -> str:
    """A page written anew, with the parts that the one before had at its end."""
    parts = [part[0] for part in PART.finditer(before)]
    return "\n".join([page.rstrip() + "\n", *parts]) if parts else page
