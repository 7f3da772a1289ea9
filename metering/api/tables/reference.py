"""The reference: the document, its page, and one page for every problem."""

from typing import Final

from metering.api import pages
from metering.api.route import OPEN, Route
from metering.errors import NotFound

_HTML: Final = "text/html"

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/openapi.json", "This document", OPEN, "reference", pages.get_document, {200: "application/json"},
    ),
    Route("GET", "/docs", "The API reference as a page", OPEN, "reference", pages.get_docs, {200: _HTML}),
    Route(
        "GET", "/docs/{file}", "A file of the reference", OPEN, "reference", pages.get_docs_file,
        {200: "*/*"}, problems=(NotFound,),
    ),
    Route(
        "GET", "/problems/{code}", "What a problem means and its cure", OPEN, "reference", pages.get_problem,
        {200: _HTML}, problems=(NotFound,),
    ),
)  # fmt: skip
