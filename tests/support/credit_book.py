"""The grants of credits in memory: what selling relies on, so that a test can look at every call."""

from dataclasses import dataclass, field

from metering.billing.credits import Author, Bought, Standing
from metering.erasure_errors import OrgErased
from metering.errors import TooManyGrants
from metering.store.grants import Gone


@dataclass(slots=True)
class Row:
    """One grant: `asked` back by the newest ticket, of which as much is taken as was not burned."""

    amount: int
    asked: int = 0
    burned: int = 0
    ticket: int = 0
    frozen: bool = False
    held: bool = False
    gone: Gone | None = None

    @property
    def taken(self) -> int:
        """Credits that were taken back."""
        return min(self.asked, self.amount - self.burned)

    @property
    def debt(self) -> int:
        """Credits that are owed."""
        spans = self.gone.owable if self.gone else ()
        return sum(max(0, min(end, self.asked) - max(start, self.taken)) for start, end in spans)

    @property
    def left(self) -> int:
        """Credits that may still be used, once it is thawed."""
        return self.amount - self.burned - self.taken


@dataclass(slots=True)
class CreditBook:
    """The grants of some organisations, by organisation and id."""

    orgs: set[str] = field(default_factory=lambda: {"acme", "other"})
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    tickets: int = 0
    authors: list[Author] = field(default_factory=list)
    full: bool = False

    async def ticket(self, org_id: str) -> int:
        """The next number."""
        self.tickets += org_id in self.orgs
        return self.tickets if org_id in self.orgs else 0

    async def buy(self, org_id: str, bought: Bought, author: Author) -> bool:
        """Make a grant, once."""
        self.authors.append(author)
        new = (org_id, bought.grant_id) not in self.rows
        self.rows.setdefault((org_id, bought.grant_id), Row(bought.credits, frozen=bought.held, held=bought.held))
        return new

    async def stand(self, org_id: str, grant_id: str, gone: Gone, author: Author, *, ticket: int) -> Standing:
        """Take an answer over, unless a newer one was."""
        self.authors.append(author)
        row = self.rows[org_id, grant_id]
        if ticket >= row.ticket:
            row.asked, row.frozen, row.gone, row.ticket = gone.asked, gone.frozen, gone, ticket
        return Standing(row.taken, await self.balance(org_id))

    async def check_room(self, org_id: str) -> None:
        """As the test wants it. Raises TooManyGrants."""
        if self.full:
            raise TooManyGrants

    async def balance(self, org_id: str) -> int:
        """What may be used, less what is owed. Raises OrgErased for whoever is not there."""
        if org_id not in self.orgs:
            raise OrgErased
        mine = [row for (name, _), row in self.rows.items() if name == org_id]
        return sum(row.left for row in mine if not row.frozen) - sum(row.debt for row in mine)
