"""The page for people: one file, which asks for `/status` again and again."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from starlette.responses import HTMLResponse, Response


class Page:
    """The page, and the headers that keep it from loading or running anything else."""

    def __init__(self) -> None:
        self._html = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        (script,) = re.findall(r"<script>(.*?)</script>", self._html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # Should a name ever be taken for markup, the browser still runs nothing and loads nothing.
        policy = (
            "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; img-src data:; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        self._headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    def answer(self) -> Response:
        """Return the page."""
        return HTMLResponse(self._html, headers=self._headers)
