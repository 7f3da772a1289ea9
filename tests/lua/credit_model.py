"""One organisation's credits as the reference models hold them: plain grants and `plans/credits.py`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from plans.credits import Cover, Grant, Standing, balance, burnt, cover, normalised, reserved


@dataclass(slots=True)
class ModelPool:
    """Open grants as written last, and what became of the others."""

    grants: dict[str, Grant] = field(default_factory=dict)
    debt: int = 0
    low: int | None = None
    there: bool = False
    burned: Counter[tuple[str, str]] = field(default_factory=Counter)  # (feature, grant) -> credits
    expired: Counter[str] = field(default_factory=Counter)
    lows: int = 0

    def copy(self) -> "ModelPool":
        """Another one that may be tried out."""
        return replace(self, grants=dict(self.grants), burned=Counter(self.burned), expired=Counter(self.expired))

    def give(self, *grants: Grant, low: int | None = None, debt: int = 0) -> None:
        """Open grants."""
        self.grants |= {one.grant_id: one for one in grants}
        self.there, self.debt, self.low = True, debt, self.low if low is None else low

    def cover(
        self,
        feature: str,
        weight: int | None,
        at_ms: int,
        standings: Mapping[str, Standing] | None = None,
        name: str = "",
    ) -> Cover:
        """What pays for a feature; `name` is its counter among `standings`, of which the others' holds keep some."""
        kept = {}
        for other, standing in (standings or {}).items():
            own = cover(self.grants.values(), other, None, at_ms).own
            kept[other] = replace(standing, own=own)
        return cover(self.grants.values(), feature, weight, at_ms, debt=self.debt, reserved=reserved(kept, name))

    def usable(self, feature: str, paid: Cover, at_ms: int) -> int | None:
        """What a refusal tells of credits: those for the feature; None where they do not pay for it."""
        left = (normalised(one, at_ms).grant for one in self.grants.values())
        if paid.weight is None and not any(one.scope == feature and one.left for one in left):
            return None
        return paid.own + (0 if paid.weight is None else paid.credits)

    def burn(self, feature: str, paid: Cover, units: int, at_ms: int) -> int:
        """Pay units; returns the credits."""
        if not units:
            return 0
        taken = burnt(self.grants.values(), feature, paid, units, at_ms)
        self.settle(at_ms, taken)
        self.burned.update({(feature, name): credits_ for name, credits_ in taken.items()})
        return sum(taken.values())

    def settle(self, at_ms: int, taken: Mapping[str, int]) -> None:
        """Write down what expired, and what was taken out of grants."""
        before = self._as_written(at_ms)
        for name, found in list(self.grants.items()):
            now = normalised(found, at_ms)
            self.expired[name] += now.expired
            self.grants[name] = replace(now.grant, left=now.grant.left - taken.get(name, 0))
            if not self.grants[name].left:
                del self.grants[name]
        if self.low is not None and balance(self.grants.values(), at_ms, self.debt) < self.low <= before:
            self.lows += 1

    def _as_written(self, at_ms: int) -> int:
        usable = (one for one in self.grants.values() if not one.frozen and one.effective_ms <= at_ms)
        return sum(one.left for one in usable) - self.debt
