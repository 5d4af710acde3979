"""What the pages need to be a site: links to files outside docs/ become plain text, as the site does not have them."""

from __future__ import annotations

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)#\s]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page with such links replaced. Raises FileNotFoundError for one that leads nowhere."""

    def plain(link: re.Match[str]) -> str:
        text, path = link.groups()
        if (_ROOT / "docs" / path).exists():
            return link[0]
        if not (_ROOT / path).exists():
            raise FileNotFoundError(f"a page links to {path}, which does not exist")
        return f"`{path}`" if path in text.replace("`", "") else f"{text} (`{path}`)"

    return _OUTSIDE.sub(plain, markdown)
