"""Pages for people: the API reference, served from this machine alone, and one page for every problem."""

import asyncio
import html
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from metering.api.route import Call, Reply
from metering.errors import NotFound, leaves

_HTML: Final = b"text/html; charset=utf-8"

_DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI writes styles into its elements; everything else comes from files of this server."""

_PAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

_DOCS: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Usage metering: API reference</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger.css">
<div id="swagger-ui"></div>
<noscript>The same in one file: <a href="/openapi.json">openapi.json</a></noscript>
<script src="/docs/swagger.js"></script>
<script src="/docs/start.js"></script>
</html>
"""

_START: Final = b"""window.ui = SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, persistAuthorization: false,
});
"""

_ASSETS: Final[Mapping[str, tuple[str, bytes]]] = {
    "swagger.js": ("swagger_bundle.js", b"text/javascript; charset=utf-8"),
    "swagger.css": ("swagger_style.css", b"text/css; charset=utf-8"),
}
"""Our names, the files in the `offapi` wheel, their types."""

_CACHED: Final = "public, max-age=86400"


async def get_document(call: Call) -> Reply:
    """The OpenAPI document of the table that serves it."""
    return Reply(await asyncio.to_thread(call.services.document))


async def get_docs(_: Call) -> Reply:
    """The reference's frame."""
    return Reply(_DOCS, kind=_HTML, headers={"Content-Security-Policy": _DOCS_POLICY})


async def get_docs_file(call: Call) -> Reply:
    """A file of the reference. Raises NotFound."""
    name = call.params["file"]
    if name == "start.js":
        return Reply(_START, kind=b"text/javascript; charset=utf-8", headers={"Cache-Control": _CACHED})
    if name not in _ASSETS:
        raise NotFound
    file, kind = _ASSETS[name]
    return Reply(_asset(file), kind=kind, headers={"Cache-Control": _CACHED})


@lru_cache(maxsize=len(_ASSETS))
def _asset(file: str) -> bytes:
    """A file of the offapi wheel. It is found, not imported: importing it reads nine MB."""
    spec = find_spec("offapi")
    if spec is None or spec.origin is None:
        raise NotFound("the package offapi is not installed; /openapi.json has the same content")
    return (Path(spec.origin).parent / file).read_bytes()


async def get_problem(call: Call) -> Reply:
    """What a problem's `type` leads to. Raises NotFound for a code that is none."""
    known = {problem.code: problem for problem in leaves()}
    problem = known.get(call.params["code"])
    if problem is None:
        raise NotFound(f"problems are: {', '.join(sorted(known))}")
    code, title, cure = (html.escape(text) for text in (problem.code, problem.title, problem.cure))
    again = "The same request may succeed later." if problem.retry_after_s else "The same request will fail again."
    page = (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{code}</title>\n'
        f"<h1>{title}</h1>\n<p>HTTP {problem.status}, code <code>{code}</code>. {again}</p>\n<p>{cure}</p>\n</html>\n"
    )
    return Reply(page.encode(), kind=_HTML, headers={"Content-Security-Policy": _PAGE_POLICY})
