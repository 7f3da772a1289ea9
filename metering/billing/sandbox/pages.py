"""Answers what browsers ask for: /, /c/pay/{id}, /p/session/{id}, /pay/{id} and /i/{id}."""

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from metering.billing.sandbox import checkouts, hosted, invoices, payments, portals
from metering.billing.sandbox.answers import Answer
from metering.billing.sandbox.audit_page import audit_page
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.markup import headers, page, tag
from metering.billing.sandbox.paper import invoice_page, invoice_pdf

if TYPE_CHECKING:
    from metering.billing.sandbox.app import Sandbox

_HTML = "text/html; charset=utf-8"


def answer(sandbox: "Sandbox", method: str, path: str, body: bytes) -> Answer | None:
    """The page at `path`, or where a button leads; None where there is no page."""
    pressed = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    if path == "/" and method == "GET":
        return _page(audit_page(sandbox.db, sandbox.now_s()))
    for prefix, kind, show in (
        (hosted.CHECKOUT, checkouts.KIND, _checkout),
        (hosted.PORTAL, portals.KIND, _portal),
        (hosted.PAY, payments.KIND, _payment),
    ):
        if path.startswith(prefix) and method in {"GET", "POST"}:
            session = sandbox.db.get(kind, path.removeprefix(prefix))
            return show(sandbox, session, pressed if method == "POST" else None) if session else _nothing()
    if path.startswith(invoices.PAGE) and method == "GET":
        return _invoice(sandbox, path.removeprefix(invoices.PAGE))
    return None


def _invoice(sandbox: "Sandbox", named: str) -> Answer:
    invoice_id, pdf, rest = named.partition("/pdf")
    invoice = sandbox.db.get("invoice", invoice_id)
    if invoice is None or rest or invoice["status"] == "draft":
        return _nothing()
    if pdf:
        return Answer(HTTPStatus.OK, invoice_pdf(invoice), headers(), "application/pdf")
    return _page(invoice_page(invoice))


def _checkout(sandbox: "Sandbox", session: Obj, pressed: dict[str, str] | None) -> Answer:
    leads_to = (session["success_url"], session["cancel_url"])
    if pressed is None:
        return _page(hosted.checkout_page(session), *leads_to)
    try:
        with sandbox.db.transaction():
            next_page = hosted.decide(sandbox.context(), dict(session), pressed.get("choice", ""))
    except ApiError as error:
        told = str(error.error["message"])
        status = HTTPStatus.BAD_REQUEST if told == hosted.NO_BUTTON else HTTPStatus.PAYMENT_REQUIRED
        return _page(hosted.checkout_page(session, told), *leads_to, status=status)
    return _redirect(next_page or hosted.CHECKOUT + session["id"])


def _payment(sandbox: "Sandbox", intent: Obj, pressed: dict[str, str] | None) -> Answer:
    if pressed is None:
        return _page(hosted.pay_page(intent))
    try:
        with sandbox.db.transaction():
            hosted.pay_once(sandbox.context(), dict(intent), pressed.get("choice", ""))
    except ApiError as error:
        with sandbox.db.transaction():
            payments.keep_failure(sandbox.context(), {}, error)
        told, now = str(error.error["message"]), sandbox.db.get(payments.KIND, intent["id"]) or intent
        return _page(hosted.pay_page(now, told), status=HTTPStatus.PAYMENT_REQUIRED)
    return _redirect(hosted.PAY + intent["id"])


def _portal(sandbox: "Sandbox", session: Obj, pressed: dict[str, str] | None) -> Answer:
    if pressed is None:
        return _page(hosted.portal_page(sandbox.context(), session))
    try:
        with sandbox.db.transaction():
            hosted.act(sandbox.context(), session, pressed.get("verb", ""), pressed.get("value", ""))
    except (ApiError, ValueError) as error:
        return _page(hosted.portal_page(sandbox.context(), session, str(error)), status=HTTPStatus.BAD_REQUEST)
    return _redirect(hosted.PORTAL + session["id"])


def _page(body: bytes, *leads_to: str | None, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, body, headers(*leads_to), _HTML)


def _nothing() -> Answer:
    return _page(
        page("Nothing here", tag("p", "This page is of no session that there is.")), status=HTTPStatus.NOT_FOUND
    )


def _redirect(address: str) -> Answer:
    return Answer(HTTPStatus.SEE_OTHER, b"", {"Location": address, **headers()}, _HTML)
