"""Takes events to their endpoints: signed on the very bytes that go out, tried again until somebody takes them."""

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp
import orjson

from metering.billing.sandbox import mail
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.expand import rendered
from metering.billing.sandbox.mail import Target
from metering.billing.sandbox.switches import FORGED, OTHER_VERSION, SKEW_S, Switches
from webhooks.signature import sign

TIMEOUT_S: Final = 10.0
"""An endpoint that needs longer has not answered: https://docs.stripe.com/webhooks says to answer quickly."""

_ANSWERS_KEPT: Final = 20


class Postman:
    """Delivers what waits in `db`. `now_s` tells the sandbox's time; one round at a time."""

    def __init__(self, db: Db, now_s: Callable[[], int], *, timeout_s: float = TIMEOUT_S) -> None:
        self.switches = Switches()
        self._db, self._now_s = db, now_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._round = asyncio.Lock()

    async def deliver(self) -> int:
        """Make every attempt that is due by now; how many there were. Endpoints do not wait for each other."""
        async with self._round:
            by_endpoint: dict[str, list[Obj]] = {}
            for delivery in mail.waiting(self._db, self._now_s()):
                by_endpoint.setdefault(delivery["endpoint"], []).append(delivery)
            return sum(await asyncio.gather(*map(self._deliver_in_order, by_endpoint.values())))

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _deliver_in_order(self, deliveries: list[Obj]) -> int:
        done, held = 0, [one for one in deliveries if one.get("held")]
        for delivery in deliveries:
            if not delivery.get("held") and await self._deliver(delivery):
                done += 1
                while held and delivery["attempts"]:
                    done += await self._deliver({**held.pop(), "held": False})
        return done

    async def _deliver(self, delivery: Obj) -> bool:
        """One attempt; whether there was one."""
        target = next((one for one in mail.targets(self._db) if one.id == delivery["endpoint"]), None)
        event = self._db.get(mail.THIN if delivery["thin"] else mail.SNAPSHOT, delivery["event"])
        if target is None or event is None:
            self._keep(delivery, state="given_up")
            return True
        if self.switches.quiet_until_s > self._now_s():
            self._keep(delivery, due=self.switches.quiet_until_s)
            return True
        if not delivery["met"]:
            self._meet(delivery, event, target)
            if delivery["state"] != mail.WAITING or delivery["due"] > self._now_s() or delivery.get("held"):
                return True
        await self._attempt(delivery, event, target)
        if delivery["state"] == "delivered" and "duplicate" in delivery["spoilt"]:
            await self._attempt(delivery, event, target)
        return True

    def _meet(self, delivery: Obj, event: Obj, target: Target) -> None:
        """The switches that this delivery meets, before its first attempt."""
        delivery["met"] = True
        for switch in self.switches.take(delivery["type"]):
            delivery["spoilt"].append(switch.kind)
            if switch.kind == "drop":
                delivery["state"] = "dropped"
            elif switch.kind == "delay":
                delivery["due"] = self._now_s() + switch.seconds
            elif switch.kind == "reorder":
                delivery["held"] = True
            elif switch.kind == "two_ids":
                mail.hand_in(self._db, mail.twin(self._db, event), target, self._now_s(), met=True)
        mail.keep(self._db, delivery)

    async def _attempt(self, delivery: Obj, event: Obj, target: Target) -> None:
        """Send it once, and note what the endpoint said."""
        first = delivery["attempts"] == 0
        spoilt = set(delivery["spoilt"]) if first else set()
        told = rendered(self._db, mail.body_of(event), ())
        if "api_version" in delivery["spoilt"] and "api_version" in told:
            told["api_version"] = OTHER_VERSION
        body = orjson.dumps(told, option=orjson.OPT_INDENT_2)
        at_s = self._now_s() + SKEW_S * (("future" in spoilt) - ("old" in spoilt))
        secrets = (FORGED,) if "forge" in spoilt else target.secrets
        answer = await self._send(target.url, body, sign(body, secrets, at_s))
        delivery["answers"] = [*delivery["answers"], answer][-_ANSWERS_KEPT:]
        delivery["attempts"] += 1
        if answer["status"] // 100 == 2:  # noqa: PLR2004 - the successes
            self._keep(delivery, state="delivered")
        elif delivery["attempts"] > len(mail.RETRIES_S):
            self._keep(delivery, state="given_up")
        else:
            self._keep(delivery, due=self._now_s() + mail.RETRIES_S[delivery["attempts"] - 1])

    async def _send(self, url: str, body: bytes, signature: str) -> Obj:
        """POST it; status 0 where no answer came."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature,
            "User-Agent": "Stripe/1.0 (SANDBOX: not Stripe)",
        }
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                await answer.read()
                return {"at": self._now_s(), "status": answer.status}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return {"at": self._now_s(), "status": 0, "error": type(error).__name__}

    def _keep(self, delivery: Obj, *, state: str | None = None, due: int | None = None) -> None:
        delivery["state"] = state or delivery["state"]
        delivery["due"] = due or delivery["due"]
        mail.keep(self._db, delivery)
