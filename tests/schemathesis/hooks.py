"""What clients know, and the schemas of the document cannot say."""

import re
import uuid

import schemathesis

KEY = "Idempotency-Key"
CURRENCY = "EUR"
# So many deposits of so much stay below the largest balance.
LARGEST_AMOUNT = 1_000_000


@schemathesis.hook
def before_call(context, case, kwargs):
    key = (case.headers or {}).get(KEY)
    # No two requests have one key.
    if isinstance(key, str) and re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        case.headers[KEY] = str(uuid.uuid4())
    if isinstance(case.body, dict):
        settle_currency(case.body)
        settle_money(case.body.get("amount"))
        settle_money(case.body.get("price"))
        settle_lines(case.body.get("lines"))


def settle_currency(holder):
    """A wallet and a product keep their currency, and an order has one."""
    if re.fullmatch("[A-Z]{3}", str(holder.get("currency"))):
        holder["currency"] = CURRENCY


def settle_money(money):
    """A balance has a bound."""
    if not isinstance(money, dict):
        return
    settle_currency(money)
    amount = money.get("amount")
    if isinstance(amount, int) and not isinstance(amount, bool) and 0 <= amount <= 10**12:
        money["amount"] = min(amount, LARGEST_AMOUNT)


def settle_lines(lines):
    """No SKU is in an order twice."""
    if not isinstance(lines, list):
        return
    for number, line in enumerate(lines):
        if isinstance(line, dict) and re.fullmatch("[A-Za-z0-9._-]{1,64}", str(line.get("sku"))):
            line["sku"] = f"SKU-{number}"
