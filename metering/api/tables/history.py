"""Looking back at usage."""

from typing import Final

from metering.api import history
from metering.api.models.history import HistoryPage, HistoryQuery, UsageQuery
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import USAGE_READ
from metering.errors import Invalid, OrgNotFound

_CSV: Final = ("text/csv",)
_PROBLEMS: Final = (Invalid, OrgNotFound, *READS)

_PAGE: Final = {
    "org_id": "org-123",
    "window": "day",
    "tz": "Europe/Paris",
    "from": "2023-12-31T23:00:00Z",
    "to": "2024-01-31T23:00:00Z",
    "aligned": True,
    "data": [
        {
            "start": "2024-01-14T23:00:00Z",
            "end": "2024-01-15T23:00:00Z",
            "feature": "scans",
            "group": {},
            "value": 15,
            "overage": 5,
        }
    ],
    "next_cursor": None,
}

_ABOUT: Final = (
    "The sum of all rows of a period is the period's counter, exactly, whatever the window, zone and grouping. A page"
    " ends with a whole window; it may hold few rows, or none, and have a `next_cursor`: then there is more."
)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/usage/history", "History of the token's organisation", USAGE_READ, "usage", history.get_history,
        {200: HistoryPage}, query=HistoryQuery, problems=_PROBLEMS, shows=_PAGE, media=_CSV, about=_ABOUT,
    ),
    Route(
        "GET", "/usage/{org_id}/history", "History of an organisation", USAGE_READ, "usage", history.get_history,
        {200: HistoryPage}, query=HistoryQuery, problems=_PROBLEMS, shows=_PAGE, media=_CSV, about=_ABOUT,
    ),
    Route(
        "POST", "/v1/usage/query", "History of one organisation or several", USAGE_READ, "usage", history.query_usage,
        {200: HistoryPage}, request=UsageQuery, problems=(OrgNotFound, *READS), shows=_PAGE, media=_CSV, about=_ABOUT,
        example={"org_id": "org-123", "window": "day", "tz": "Europe/Paris"}, reads=True,
    ),
)  # fmt: skip
