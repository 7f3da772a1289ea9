"""The ledger of credits as selling asks for it: each reading of a payment brings one grant to where the payment is."""

from typing import Protocol

from metering.billing.credits import Author, Bought, Standing
from metering.store.credits import Credits
from metering.store.grants import By, GrantOrder, Refunds
from plans.credits import Kind


class Tickets(Protocol):
    """Who tells which of two readings began later (`metering.store.effects.Effects`)."""

    async def ticket(self, org_id: str) -> int:
        """A number before a reading; 0 where there is no such organisation."""
        ...


class CreditLedger:
    """Grants that were bought. Raises OrgNotFound, TooManyGrants and the 503 problems."""

    def __init__(self, book: Credits, tickets: Tickets) -> None:
        self._book, self._tickets = book, tickets

    async def ticket(self, org_id: str) -> int:
        """See `Ledger`."""
        return await self._tickets.ticket(org_id)

    async def buy(self, org_id: str, bought: Bought, author: Author) -> bool:
        """See `Ledger`."""
        order = GrantOrder(bought.grant_id, bought.credits, Kind.PAID, source=bought.source)
        return (await self._book.grant(org_id, order, _by(author))).made

    async def stand(
        self, org_id: str, grant_id: str, asked: int, author: Author, *, ticket: int, frozen: bool,
        allow_negative: bool, refunds: Refunds,
    ) -> Standing:  # fmt: skip
        """See `Ledger`. It is frozen first and thawed last, so that what is to go is not burned in between."""
        by = _by(author)
        if frozen:
            await self._book.freeze(org_id, grant_id, by, ticket=ticket)
        taken = await self._book.take_back(
            org_id, grant_id, asked, by, ticket=ticket, allow_negative=allow_negative, refunds=refunds
        )
        if frozen:
            return Standing(taken.taken, taken.balance)
        return Standing(taken.taken, await self._book.thaw(org_id, grant_id, by, ticket=ticket))

    async def balance(self, org_id: str) -> int:
        """See `Ledger`."""
        return (await self._book.balance(org_id)).balance


def _by(author: Author) -> By:
    return By(author.actor, author.reason, author.request_id)
