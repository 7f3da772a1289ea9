"""What a look at the sums found: every law that does not hold, and where."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken law: where, which, and the figures."""

    key: str
    law: str
    found: str

    def __str__(self) -> str:
        return f"{self.key}: {self.law}: {self.found}"


@dataclass(slots=True)
class Report:
    """What a walk found. `units` is the sum of all units ever counted."""

    keys: int = 0
    orgs: int = 0
    units: int = 0
    violations: list[Violation] = field(default_factory=list)

    def claim(self, holds: bool, key: str, law: str, found: object) -> None:
        """Note a violation unless the law holds."""
        if not holds:
            self.violations.append(Violation(key, law, str(found)))
