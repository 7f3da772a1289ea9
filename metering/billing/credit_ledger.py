"""The ledger of credits as selling asks for it: each reading of a payment brings one grant to where the payment is."""

from typing import Protocol

from metering.billing.credits import Author, Bought, Standing
from metering.errors import TooManyGrants
from metering.store.credits import Credits
from metering.store.grants import By, Gone, GrantOrder
from plans.credits import GRANTS_MAX, Kind


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
        order = GrantOrder(bought.grant_id, bought.credits, Kind.PAID, source=bought.source, held=bought.held)
        return (await self._book.grant(org_id, order, _by(author))).made

    async def stand(self, org_id: str, grant_id: str, gone: Gone, author: Author, *, ticket: int) -> Standing:
        """See `Ledger`. It is frozen first and thawed last, so that what is to go is not burned in between."""
        by, causes = _by(author), gone.causes
        if gone.frozen:
            await self._book.freeze(org_id, grant_id, by, ticket=ticket, ref=causes.held)
        taken = await self._book.take_back(
            org_id, grant_id, gone.asked, by, ticket=ticket, owable=gone.owable, refunds=gone.refunds, causes=causes
        )
        if gone.frozen:
            return Standing(taken.taken, taken.balance)
        return Standing(taken.taken, await self._book.thaw(org_id, grant_id, by, ticket=ticket, ref=causes.held))

    async def check_room(self, org_id: str) -> None:
        """See `Ledger`."""
        told = await self._book.balance(org_id)
        if len(told.grants) + len(told.later) >= GRANTS_MAX:
            raise TooManyGrants

    async def balance(self, org_id: str) -> int:
        """See `Ledger`."""
        return (await self._book.balance(org_id)).balance


def _by(author: Author) -> By:
    return By(author.actor, author.reason, author.request_id)
