"""The statement of credits: its lines add up to what an organisation has, and every line names its cause."""

from metering.store.correction import By, Change, adjustment
from metering.store.credit_lines import Line
from metering.store.credits import Credits
from plans.credits import Kind
from tests.lua.crediting import ANN, credits_of, history_of, joined, order
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, calm, event, lawful, move_to
from tests.support.servers import StoreServer


async def statement(book: Credits, page: int = 3) -> list[Line]:
    """All lines, the newest first, page by page."""
    lines: list[Line] = []
    cursor: str | None = ""
    while cursor is not None:
        more, cursor = await book.transactions("acme", page, cursor or None)
        lines += more
    return lines


async def adds_up(book: Credits) -> None:
    """The sum of the lines is what all grants have left, less what is owed; and the balance, where all may be used."""
    lines, told = await statement(book), await book.balance("acme")
    has = sum(one.left for one in await book.grants("acme")) - told.owed
    assert sum(line.credits for line in lines) == has, [(one.kind, one.credits) for one in lines]
    if not told.later:
        assert has == told.balance


async def used(ledger: Ledger, units: int, name: str) -> None:
    await ledger.callers[0].counters.track(event("acme", units, name))


async def taken_out(ledger: Ledger, units: int, name: str = "a1") -> None:
    change = Change("scans", -units, place="/delta")
    by = By("ann", "counted twice", "req-7")
    made = adjustment("acme", change, name, by, minted=False, period_ms=None, at_ms=None)
    await ledger.callers[1].corrections.make(made)


async def test_lines_add_up_to_what_the_organisation_has_after_whatever_happened(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        book, now_ms = credits_of(ledger, low=150), await ledger.now_ms()
        await book.grant("acme", order("cg_1", 100, kind=Kind.PAID), ANN)
        later = order("cg_2", 40, effective_ms=now_ms + DAY_MS, expires_ms=now_ms + 2 * DAY_MS, rollover=15)
        await book.grant("acme", later, ANN)
        await book.grant("acme", order("cg_3", 60), ANN)
        await adds_up(book)
        await used(ledger, 25, "e1")  # 15 above the limit, two credits each: of cg_1
        await adds_up(book)
        await book.freeze("acme", "cg_1", ANN, ticket=1)
        await adds_up(book)
        await book.take_back("acme", "cg_1", 50, ANN, ticket=2)  # while it is frozen
        await adds_up(book)
        await book.take_back("acme", "cg_1", 20, ANN, ticket=3)
        await book.thaw("acme", "cg_1", ANN, ticket=3)
        await adds_up(book)
        await book.freeze("acme", "cg_1", ANN, ticket=4)  # lost: all of it goes, and what is spent is owed
        await book.take_back("acme", "cg_1", 100, ANN, ticket=5, owable=[(0, 100)])
        await book.thaw("acme", "cg_1", ANN, ticket=5)
        await adds_up(book)
        await taken_out(ledger, 5)
        await adds_up(book)
        await move_to(ledger, now_ms + 2 * DAY_MS)  # 15 of cg_2 go on, 25 have expired, and no job has looked
        await adds_up(book)
        await book.revoke("acme", "cg_3", ANN)
        await adds_up(book)
        await move_to(ledger, now_ms + 3 * DAY_MS)
        await adds_up(book)
        await lawful(ledger)


async def test_lines_that_move_nothing_say_how_many_credits_they_are_about(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book, ends = credits_of(ledger, low=20), await ledger.now_ms() + DAY_MS
        await book.grant("acme", order(amount=90, expires_ms=ends, effective_ms=ends - DAY_MS, rollover=10), ANN)
        await book.freeze("acme", "cg_1", ANN, ticket=1)
        await book.thaw("acme", "cg_1", ANN, ticket=2)
        await move_to(ledger, ends)
        told = [(line.kind, line.credits, line.amount, line.balance) for line in reversed(await statement(book))]
        assert sorted(told[-3:]) == [("expired", -80, 80, 10), ("low", 0, 20, 10), ("rolled_over", 0, 10, 10)]
        assert told[:-3] == [("granted", 90, 90, 90), ("frozen", 0, 90, 0), ("thawed", 0, 90, 90)]


async def test_credits_that_a_correction_gave_back_stand_in_statement_and_history(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        await book.grant("acme", order(), ANN)
        await used(ledger, 13, "e1")
        await taken_out(ledger, 2)
        [returned] = [line for line in await statement(book) if line.kind == "returned"]
        assert (returned.credits, returned.ref) == (4, None)
        await book.revoke("acme", returned.grant_id or "", ANN)
        newest = (await history_of(ledger))[0]
        assert (newest.entry.kind, newest.intent) == ("credits_revoked", None)
