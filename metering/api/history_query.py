"""What is asked of history: a query or a body, checked against the catalogue, the clock and what is kept."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from metering.api.bodies import Faults, fault, invalid
from metering.api.models.history import METADATA_PREFIX, HistoryQuery, UsageQuery
from metering.errors import Invalid
from metering.moments import parse_ms, rfc3339
from metering.store.lookback import Lookback, Place
from metering.store.org import Org
from plans.catalogue import Catalogue, nearest
from plans.periods import INSTANT_MAX_MS, Period, Reset, period_at
from plans.windows import Window, Windows

ACTOR: Final = "actor"
ORG: Final = "org"
_FEATURE: Final = "feature"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the page before ended, in the span it was about; `org` where organisations are walked one by one."""

    place: Place
    span: Period
    org: str | None

    def text(self) -> str:
        """The cursor as it goes out: `scans.1704067200000.1701388800000.1704067200000~org-123`."""
        numbers = (self.place.at_ms, self.span.start_ms, self.span.end_ms)
        return ".".join((self.place.feature, *map(str, numbers))) + (f"~{self.org}" if self.org else "")

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read a text that fits the pattern of cursors."""
        head, _, org = text.partition("~")
        feature, at_ms, start_ms, end_ms = head.split(".")
        return cls(Place(feature, int(at_ms)), Period(int(start_ms), int(end_ms)), org or None)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it came, from either form. `groups` and `filters` are tokens: `actor`, `metadata.chain`, `org`.

    `listed` says that features and groups stand in lists of a body, for the places of faults.
    """

    features: tuple[str, ...]
    from_ms: int | None
    to_ms: int | None
    window: Window
    timezone: str | None
    groups: tuple[str, ...]
    filters: Mapping[str, str]
    fill: bool
    format: Literal["json", "csv"]
    limit: int
    cursor: Cursor | None
    listed: bool

    @property
    def by_org(self) -> bool:
        """Whether each organisation has rows of its own."""
        return ORG in self.groups

    @property
    def token(self) -> str | None:
        """The dimension that is grouped or filtered by, as the caller names it."""
        return next(iter(self._tokens()), None)

    @property
    def dim(self) -> str | None:
        """The same as history names it."""
        return None if self.token is None else self.token.removeprefix(METADATA_PREFIX)

    @property
    def value(self) -> str | None:
        """The value that is filtered by."""
        return next(iter(self.filters.values()), None)

    def _tokens(self) -> list[str]:
        grouped = [token for token in self.groups if token not in {ORG, _FEATURE}]
        return list(dict.fromkeys((*grouped, *self.filters)))

    def faults(self, catalogue: Catalogue, features: Iterable[str]) -> Faults:
        """What the catalogue has against it; `features` are all that may be asked for."""
        found = [_unknown_feature(self._place(_FEATURE, at), name, features) for at, name in self._strangers(features)]
        tokens = self._tokens()
        found += [
            fault(self._place_of(token), "dimension-unknown", _undeclared(token, catalogue))
            for token in tokens
            if token == METADATA_PREFIX + ACTOR or token.removeprefix(METADATA_PREFIX) not in catalogue.dimensions
        ]
        if len(tokens) > 1:
            found.append(fault("/group_by", "dimensions", "history is kept by one dimension at a time: ask for one"))
        if tokens and self.window is Window.MINUTE:
            found.append(fault("/window", "dimension-minutes", "dimensions are kept by the hour: ask for hours"))
        return found

    def _strangers(self, features: Iterable[str]) -> list[tuple[int, str]]:
        known = set(features)
        return [(at, name) for at, name in enumerate(self.features) if name not in known]

    def _place(self, name: str, at: int) -> str:
        return f"/{name}s/{at}" if self.listed else f"/{name}"

    def _place_of(self, token: str) -> str:
        if token in self.groups:
            return f"/group_by/{self.groups.index(token)}" if self.listed else "/group_by"
        return f"/filter/{token}" if self.listed else f"/{token}"


def of_query(query: HistoryQuery) -> Asked:
    """The question of a query."""
    filters = {METADATA_PREFIX + key: value for key, value in query.metadata.items()}
    if query.actor is not None:
        filters[ACTOR] = query.actor
    names, groups = _parts(query.feature), _parts(query.group_by)
    return _asked(query, names, groups, filters, listed=False)


def of_body(body: UsageQuery) -> Asked:
    """The question of a body."""
    return _asked(body, tuple(body.features), tuple(body.group_by), body.filter, listed=True)


def _asked(
    sent: HistoryQuery | UsageQuery,
    features: tuple[str, ...],
    groups: tuple[str, ...],
    filters: Mapping[str, str],
    *,
    listed: bool,
) -> Asked:
    return Asked(
        features,
        None if sent.from_ is None else parse_ms(sent.from_),
        None if sent.to is None else parse_ms(sent.to),
        Window(sent.window),
        sent.tz or None,
        groups,
        filters,
        sent.fill,
        sent.format,
        sent.limit,
        None if sent.cursor is None else Cursor.parse(sent.cursor),
        listed,
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _unknown_feature(place: str, name: str, features: Iterable[str]) -> dict[str, str]:
    near = nearest(name, features)
    hint = f"did you mean '{near}'?" if near else f"known: {', '.join(sorted(features))}"
    return fault(place, "feature-unknown", f"no feature '{name}'; {hint}")


def _undeclared(token: str, catalogue: Catalogue) -> str:
    tokens = [name if name == ACTOR else METADATA_PREFIX + name for name in catalogue.dimensions]
    near = nearest(token, tokens)
    known = f"did you mean '{near}'?" if near else f"declared: {', '.join(sorted(tokens)) or 'none'}"
    return f"history is not kept by '{token}'; {known} More are declared under [dimensions] of the catalogue"


def zone_of(asked: Asked, orgs: list[Org]) -> str:
    """The time zone that windows are cut in."""
    return asked.timezone or (orgs[0].profile.timezone if len(orgs) == 1 else "UTC")


def span_of(asked: Asked, orgs: list[Org], lookback: Lookback) -> Period:
    """The span asked about. Raises Invalid where it is none, or history of this kind does not reach back so far."""
    oldest_ms = lookback.oldest_ms(asked.window)
    if oldest_ms is None:
        detail = "minutes are not kept: set MINUTE_HISTORY_HOURS, or ask for hours"
        raise invalid([fault("/window", "not-kept", detail)])
    place = "/to" if asked.cursor is None else "/cursor"
    span = _asked_span(asked, _default(asked, orgs, lookback.now_ms()), oldest_ms)
    if not span.start_ms < span.end_ms <= INSTANT_MAX_MS:
        raise invalid([fault(place, "out-of-range", "the span ends before it begins, or too far ahead")])
    if span.start_ms < oldest_ms:
        raise _too_old(asked.window, oldest_ms, "/from" if asked.cursor is None else "/cursor")
    return span


def _asked_span(asked: Asked, running: Period, oldest_ms: int) -> Period:
    if asked.cursor is not None:
        return asked.cursor.span
    start_ms = running.start_ms if asked.window is not Window.MINUTE else max(running.start_ms, oldest_ms)
    return Period(
        start_ms if asked.from_ms is None else asked.from_ms,
        running.end_ms if asked.to_ms is None else asked.to_ms,
    )


def _default(asked: Asked, orgs: list[Org], now_ms: int) -> Period:
    """The running period of one organisation; of several, which need not have the same, the month."""
    if len(orgs) == 1:
        return orgs[0].period
    return period_at(now_ms, reset=Reset.CALENDAR, anchor_ms=0, timezone=zone_of(asked, orgs))


def _too_old(window: Window, oldest_ms: int, place: str) -> Invalid:
    oldest = rfc3339(oldest_ms)
    told = [fault(place, "beyond-retention", f"history by {window} is kept from {oldest} on")]
    return Invalid(f"{place}: {told[0]['detail']}", errors=told, oldest=oldest)


def windows_of(asked: Asked, orgs: list[Org]) -> Windows:
    """The windows asked for."""
    return Windows(asked.window, zone_of(asked, orgs))
