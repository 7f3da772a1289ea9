"""What reading encrypted values meets, a branch of the tree in `metering.errors`.

Problem
└── 503 EncryptionKeyUnknown
"""

from metering.errors import Problem


class EncryptionKeyUnknown(Problem):
    status, code, title = 503, "encryption-key-unknown", "A value is encrypted under a key that this service lacks"
    cure = "Operators: put the key that the log names back into ENCRYPTION_KEYS. Callers: retry with the same event_id."
    retry_after_s = 30
