"""A final invoice to read: the page and the PDF that its `hosted_invoice_url` and `invoice_pdf` lead to.

https://docs.stripe.com/invoicing/hosted-invoice-page. One page of plain text is all that a PDF needs to be here, which
ISO 32000-1 (section 7.5: header, objects, cross-reference table, trailer) takes in a few lines.
"""

from collections.abc import Sequence
from typing import Final

from metering.billing.sandbox.amounts import written
from metering.billing.sandbox.audit_page import moment
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.markup import BANNER, page, table, tag

_ROWS_MAX: Final = 50
"""Lines of text on the one page of the PDF; the last of more says how many are left out."""

_A4: Final = (595, 842)
_LEFT, _TOP, _LEADING, _SIZE = 50, 790, 14, 10  # points


def invoice_page(invoice: Obj) -> bytes:
    """The invoice as a page."""
    rows = [
        (line["description"], line["quantity"], written(line["amount"], line["currency"]))
        for line in invoice["lines"]["data"]
    ]
    told = [tag("p", line) for line in _told(invoice)]
    return page(f"Invoice {invoice['number']}", table("Lines", ("what", "quantity", "amount"), rows), *told)


def invoice_pdf(invoice: Obj) -> bytes:
    """The invoice as a PDF of one page."""
    lines = [
        f"{line['description']}  x {line['quantity']}  {written(line['amount'], line['currency'])}"
        for line in invoice["lines"]["data"]
    ]
    return _pdf([BANNER, "", f"Invoice {invoice['number']}", "", *lines, "", *_told(invoice)])


def _told(invoice: Obj) -> list[str]:
    currency = invoice["currency"]
    return [
        f"Total: {written(invoice['total'], currency)}",
        f"Paid: {written(invoice['amount_paid'], currency)}. To pay: {written(invoice['amount_remaining'], currency)}.",
        f"{invoice['status']}, of {moment(invoice['created'])}",
    ]


def _pdf(rows: Sequence[str]) -> bytes:
    if len(rows) > _ROWS_MAX:
        rows = [*rows[: _ROWS_MAX - 1], f"... and {len(rows) - _ROWS_MAX + 1} lines more"]
    width, height = _A4
    shown = "".join(f"({_escaped(row)}) Tj T* " for row in rows)
    text = f"BT /F1 {_SIZE} Tf {_LEADING} TL {_LEFT} {_TOP} Td {shown}ET".encode("latin-1", "replace")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}] /Contents 5 0 R"
        " /Resources << /Font << /F1 4 0 R >> >> >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(text), text),
    ]
    return _assembled(objects)


def _assembled(objects: Sequence[bytes]) -> bytes:
    """Objects, numbered from 1, with the table of where each begins."""
    file = b"%PDF-1.4\n"
    starts = []
    for number, body in enumerate(objects, 1):
        starts.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    count = len(objects) + 1
    places = b"0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % start for start in starts)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, len(file))
    return file + b"xref\n0 %d\n" % count + places + trailer


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
