"""Signatures of Standard Webhooks (https://www.standardwebhooks.com), version `v1`."""

import base64
import hashlib
import hmac

from jobs.store.webhooks import SECRET_PREFIX


def headers(secret: str, delivery_id: str, moment: int, body: bytes) -> dict[str, str]:
    """The three headers that a receiver verifies: HMAC-SHA256 over `id.timestamp.body`, the key behind `whsec_`."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = b".".join((delivery_id.encode(), str(moment).encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {"webhook-id": delivery_id, "webhook-timestamp": str(moment), "webhook-signature": f"v1,{signature}"}
