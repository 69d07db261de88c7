//! The commands that ask a running server: orders, audit, dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use waybill_contract::OrderId;

use crate::cli::{
    AuditCommand, DeadLetterCommand, EventOptions, OrderCommand, PlaceOptions, ServerOptions,
    Writes,
};
use crate::client::{Client, ClientError, items, text};
use crate::show;

/// How long one question for a change of an order waits.
const WATCH: Duration = Duration::from_secs(30);
/// Where an order does not change any more.
pub(crate) const ENDS: [&str; 3] = ["completed", "rejected", "cancelled"];

/// Places, shows, lists, cancels and watches orders.
pub(crate) async fn order(
    server: &ServerOptions,
    command: OrderCommand,
) -> anyhow::Result<ExitCode> {
    let client = Client::new(&server.address.server)?;
    match command {
        OrderCommand::Place(options) => {
            let key = options.idempotency_key.clone();
            let placed = client.post("/v1/orders", &new_order(options), key.as_deref()).await?;
            show_order(server, &placed.value)?;
        }
        OrderCommand::Show { id } => {
            show_order(server, &client.get(&path(id), &[]).await?.value)?;
        }
        OrderCommand::List { customer, status, limit } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(customer.map(|customer| ("customer_id", customer.to_string())));
            query.extend(status.map(|status| ("status", status.to_string())));
            let list = client.get("/v1/orders", &query).await?.value;
            if server.json {
                show::json(&list)?;
            } else {
                let rows: Vec<_> = items(&list).map(order_row).collect();
                show::table(&["id", "number", "status", "total", "customer", "updated"], &rows);
            }
        }
        OrderCommand::Cancel { id, reason } => {
            let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
            let cancelled = client.post(&format!("{}/cancel", path(id)), &body, None).await?;
            show_order(server, &cancelled.value)?;
        }
        OrderCommand::Watch { id } => watch(server, &client, id).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn path(id: OrderId) -> String {
    format!("/v1/orders/{id}")
}

fn new_order(options: PlaceOptions) -> Value {
    let PlaceOptions { customer, lines, name, line1, city, postal_code, country, .. } = options;
    let line = |(sku, quantity)| json!({ "sku": sku, "quantity": quantity });
    json!({
        "customer_id": customer,
        "lines": lines.into_iter().map(line).collect::<Vec<_>>(),
        "ship_to": {
            "name": name, "line1": line1, "city": city,
            "postal_code": postal_code, "country": country,
        },
    })
}

fn order_row(order: &Value) -> Vec<String> {
    let total = format!("{} {}", text(order, "total.amount"), text(order, "total.currency"));
    vec![
        text(order, "id"),
        text(order, "number"),
        text(order, "status"),
        total,
        text(order, "customer_id"),
        text(order, "updated_at"),
    ]
}

fn show_order(server: &ServerOptions, order: &Value) -> anyhow::Result<()> {
    if server.json {
        return Ok(show::json(order)?);
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("id", text(order, "id")),
        row("number", text(order, "number")),
        row("status", text(order, "status")),
        row("customer", text(order, "customer_id")),
    ];
    for line in order.get("lines").and_then(Value::as_array).into_iter().flatten() {
        let shown =
            format!("{} x {} ({})", text(line, "quantity"), text(line, "sku"), text(line, "name"));
        rows.push(row("line", shown));
    }
    rows.push(row(
        "total",
        format!("{} {}", text(order, "total.amount"), text(order, "total.currency")),
    ));
    rows.push(row("placed", text(order, "placed_at")));
    rows.push(row("updated", text(order, "updated_at")));
    if order.get("shipment").is_some_and(|shipment| !shipment.is_null()) {
        let (carrier, number) =
            (text(order, "shipment.carrier"), text(order, "shipment.tracking_number"));
        rows.push(row("parcel", format!("{carrier} {number}")));
    }
    for reason in order.get("reasons").and_then(Value::as_array).into_iter().flatten() {
        rows.push(row("reason", format!("{}: {}", text(reason, "code"), text(reason, "detail"))));
    }
    show::table(&["order", ""], &rows);
    Ok(())
}

async fn watch(server: &ServerOptions, client: &Client, id: OrderId) -> anyhow::Result<()> {
    let mut order = client.get(&path(id), &[]).await?;
    loop {
        if server.json {
            show::line(&order.value.to_string());
        } else {
            let (at, status) = (text(&order.value, "updated_at"), text(&order.value, "status"));
            show::line(&format!("{at}  {}  {status}", text(&order.value, "number")));
        }
        if ENDS.contains(&text(&order.value, "status").as_str()) {
            return Ok(());
        }
        let seen = order.etag.clone().unwrap_or_default();
        order = loop {
            if let Some(newer) = client.get_newer(&path(id), &seen, WATCH).await? {
                break newer;
            }
        };
    }
}

/// Asks what happened.
pub(crate) async fn audit(
    server: &ServerOptions,
    command: AuditCommand,
) -> anyhow::Result<ExitCode> {
    let client = Client::new(&server.address.server)?;
    match command {
        AuditCommand::Events(options) => {
            let list = client.get("/v1/audit/events", &event_query(options)).await?.value;
            if server.json {
                show::json(&list)?;
            } else {
                let rows: Vec<_> = items(&list).map(event_row).collect();
                show::table(&["position", "recorded", "type", "stream", "id"], &rows);
            }
        }
        AuditCommand::Order { id } => {
            let history = client.get(&format!("/v1/audit/orders/{id}"), &[]).await?.value;
            if server.json {
                show::json(&history)?;
            } else {
                show_history(&history);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn event_query(options: EventOptions) -> Vec<(&'static str, String)> {
    let mut query = vec![("limit", options.limit.to_string())];
    query.extend(options.order.map(|order| ("order_id", order.to_string())));
    query.extend(options.stream.map(|stream| ("stream", stream)));
    query.extend(options.kind.map(|kind| ("type", kind)));
    query.extend(options.source.map(|source| ("source", source)));
    query.extend(options.since.map(|since| ("since", since)));
    query.extend(options.until.map(|until| ("until", until)));
    query.extend(options.after.map(|after| ("after", after.to_string())));
    query.extend(options.newest_first.then(|| ("direction", "desc".to_owned())));
    query
}

fn event_row(item: &Value) -> Vec<String> {
    vec![
        text(item, "position"),
        text(item, "recorded_at"),
        text(item, "event.type"),
        text(item, "event.subject"),
        text(item, "event.id"),
    ]
}

/// An order's events, each below what led to it.
pub(crate) fn show_history(history: &Value) {
    let timeline: Vec<&Value> =
        history.get("timeline").and_then(Value::as_array).into_iter().flatten().collect();
    let ids: BTreeSet<String> = timeline.iter().map(|item| text(item, "event.id")).collect();
    let mut effects: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    let mut roots = Vec::new();
    for item in &timeline {
        let cause = text(item, "event.causationid");
        if ids.contains(&cause) {
            effects.entry(cause).or_default().push(item);
        } else {
            roots.push(*item);
        }
    }
    let mut rows = Vec::with_capacity(timeline.len());
    // The next to be shown is at the end.
    let mut waiting: Vec<(&Value, usize)> = roots.into_iter().rev().map(|root| (root, 0)).collect();
    while let Some((item, depth)) = waiting.pop() {
        let branch =
            if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth - 1)) };
        let event = format!("{branch}{}", text(item, "event.type"));
        rows.push(vec![
            event,
            text(item, "position"),
            text(item, "event.time"),
            text(item, "event.source"),
        ]);
        let below = effects.remove(&text(item, "event.id")).unwrap_or_default();
        waiting.extend(below.into_iter().rev().map(|effect| (effect, depth + 1)));
    }
    show::table(&["event, below what led to it", "position", "time", "source"], &rows);
}

/// Lists, retries and discards what could not be handled.
pub(crate) async fn dead_letters(
    server: &ServerOptions,
    command: DeadLetterCommand,
) -> anyhow::Result<ExitCode> {
    let client = Client::new(&server.address.server)?;
    match command {
        DeadLetterCommand::List { service, status } => {
            let all = [Writes::Order, Writes::Inventory, Writes::Logistics, Writes::User];
            let services = service.map_or_else(|| all.to_vec(), |service| vec![service]);
            let query: Vec<_> =
                status.map(|status| ("status", status.to_string())).into_iter().collect();
            let mut found = Vec::new();
            for service in services {
                found.extend(dead_letters_of(&client, service, &query).await?);
            }
            if server.json {
                show::json(&found.iter().map(|(_, letter)| letter).collect::<Vec<_>>())?;
            } else {
                let rows: Vec<_> =
                    found.iter().map(|(service, letter)| letter_row(*service, letter)).collect();
                show::table(
                    &["service", "id", "status", "kind", "attempts", "lane", "cause"],
                    &rows,
                );
            }
        }
        DeadLetterCommand::Retry { service, id } => {
            settle(server, &client, service, &id, "retry").await?;
        }
        DeadLetterCommand::Discard { service, id } => {
            settle(server, &client, service, &id, "discard").await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn dead_letters_of(
    client: &Client,
    service: Writes,
    query: &[(&str, String)],
) -> Result<Vec<(Writes, Value)>, ClientError> {
    let path = format!("/v1/ops/{}/dead-letters", service.as_str());
    let mut query = query.to_vec();
    let mut found = Vec::new();
    loop {
        let page = client.get(&path, &query).await?.value;
        found.extend(items(&page).map(|letter| (service, letter.clone())));
        let next = text(&page, "next");
        if next.is_empty() {
            return Ok(found);
        }
        query.retain(|(name, _)| *name != "cursor");
        query.push(("cursor", next));
    }
}

fn letter_row(service: Writes, letter: &Value) -> Vec<String> {
    let columns = ["id", "status", "kind", "attempts", "lane", "cause"];
    let mut row = vec![service.as_str().to_owned()];
    row.extend(columns.iter().map(|column| text(letter, column)));
    row
}

async fn settle(
    server: &ServerOptions,
    client: &Client,
    service: Writes,
    id: &str,
    how: &str,
) -> anyhow::Result<()> {
    let path = format!("/v1/ops/{}/dead-letters/{id}/{how}", service.as_str());
    let settled = client.post(&path, &json!({}), None).await?.value;
    if server.json {
        show::json(&settled)?;
    } else {
        show::line(&format!("{id} is now {}", text(&settled, "status")));
    }
    Ok(())
}
