//! Bodies of requests.

use serde_json::{Value, json};

/// Money in minor units of EUR.
pub(crate) fn euros(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "EUR" })
}

/// A product to list.
pub(crate) fn product(sku: &str, price: i64, quantity: i64) -> Value {
    json!({ "sku": sku, "name": format!("Product {sku}"), "price": euros(price), "quantity": quantity })
}

/// A user to register.
pub(crate) fn user(name: &str) -> Value {
    json!({ "name": name, "email": format!("{}@example.com", name.to_lowercase()) })
}

/// An order to place.
pub(crate) fn order(customer_id: &str, lines: &[(&str, i64)]) -> Value {
    let line = |(sku, quantity): &(&str, i64)| json!({ "sku": sku, "quantity": quantity });
    json!({
        "customer_id": customer_id,
        "lines": lines.iter().map(line).collect::<Vec<_>>(),
        "ship_to": {
            "name": "Ada Lovelace", "line1": "12 St James's Square", "city": "London",
            "postal_code": "SW1Y 4LB", "country": "GB",
        },
    })
}
