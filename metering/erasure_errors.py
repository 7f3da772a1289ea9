"""What erasing an organisation meets, and whoever asks for an erased one: a branch of the tree in `metering.errors`.

Problem
├── 404 ErasureNotFound
├── 409 ErasureBlocked
└── 410 OrgErased
"""

from metering.errors import Problem


class ErasureNotFound(Problem):
    status, code, title = 404, "erasure-not-found", "No organisation of this id was erased"
    cure = "Look at GET /v1/orgs/{org_id}: it may be there still. DELETE /v1/orgs/{org_id} erases it."


class OrgErased(Problem):
    status, code, title = 410, "org-erased", "The organisation was erased"
    cure = "Stop sending for it. An erased id is never used again: a customer who comes back needs another org_id."


class ErasureBlocked(Problem):
    status, code, title = 409, "erasure-blocked", "The organisation cannot be erased yet"
    cure = "Do what `blocked_by` names: end the subscription, wait until Stripe has its overage, or give that up."
