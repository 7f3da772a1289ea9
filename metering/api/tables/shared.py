"""What several parts of the table show."""

from typing import Final

from metering.encryption_errors import EncryptionKeyUnknown
from metering.errors import ClockUnsafe, LedgerFull, OrgCorrupt, Overloaded, StorageUnavailable, VersionConflict

READS: Final = (
    StorageUnavailable, Overloaded, OrgCorrupt, EncryptionKeyUnknown, ClockUnsafe, VersionConflict, LedgerFull,
)  # fmt: skip
"""What a read may meet as well as a write: reading an organisation closes a period that has ended."""

ORG: Final = {
    "org_id": "org-123",
    "plan": "professional",
    "features": {
        "scans": {
            "current": 15,
            "limit": 1000,
            "reset_date": "2024-02-01T00:00:00Z",
            "last_updated": "2024-01-15T10:30:00Z",
            "remaining": 985,
            "overage": 0,
            "overage_billed": False,
            "unlimited": False,
            "reserved": 0,
            "percent": 1,
            "on_limit": "overage",
            "enabled": True,
        }
    },
    "stripe_customer_id": "cus_123",
    "payment_overdue": False,
    "created_at": "2024-01-01T00:00:00Z",
    "updated_at": "2024-01-15T10:30:00Z",
    "overage_flagged": False,
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
    "reset": "calendar",
    "timezone": "UTC",
    "credits": None,
    "agreed": {"price_minor": None, "price_expires_at": None, "rate_limit_expires_at": None, "overrides": {}},
}
