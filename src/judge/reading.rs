//! Reads what is there in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use waybill_runtime::Timestamp;

use super::CannotJudge;
use super::api::Api;
use super::found::{Event, Found, Parked};
use super::violation::history_of;
use super::world::World;
use crate::client::{number, text};

/// Questions that are asked at once.
const AT_ONCE: usize = 8;
/// How often it is looked whether a service has told what it knows, and the pause between.
const LOOKS: u32 = 300;
const PAUSE: Duration = Duration::from_millis(100);
/// The services that tell what happened, and may park a message.
const SERVICES: [&str; 4] = ["order", "inventory", "logistics", "user"];

/// Reads all that concerns the run, with these orders and those listed, and all events since `start`.
pub(crate) async fn read(
    api: &Api,
    world: &World,
    mut orders: BTreeSet<String>,
    start: i64,
    until: Timestamp,
) -> Result<Found, CannotJudge> {
    let mut found = Found { start, until, ..Found::default() };
    relayed(api).await?;
    found.log = log(api, start).await?;
    for sku in &world.products {
        let product = api.get(&format!("/v1/products/{sku}"), &[]).await?;
        found.products.insert(sku.clone(), product.unwrap_or_default());
    }
    for customer in &world.customers {
        let user = api.get(&format!("/v1/users/{customer}"), &[]).await?;
        found.customers.insert(customer.clone(), user.unwrap_or_default());
        let listed = api.all("/v1/orders", &[("customer_id", customer.clone())]).await?;
        found.listed.extend(listed.iter().map(|order| text(order, "id")));
    }
    orders.extend(found.listed.iter().cloned());
    read_orders(api, &orders, &mut found).await?;
    found.parked = parked(api).await?;
    Ok(found)
}

/// Waits until what is answered by now is in the event store, or should be.
async fn relayed(api: &Api) -> Result<(), CannotJudge> {
    for service in SERVICES {
        let path = format!("/v1/ops/{service}/outbox");
        let mut head = None;
        for _ in 0..LOOKS {
            let outbox = api.get(&path, &[]).await?.unwrap_or_default();
            let head = *head.get_or_insert_with(|| number(&outbox, "head"));
            if number(&outbox, "position") >= head {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Every event since a position.
async fn log(api: &Api, start: i64) -> Result<Vec<Event>, CannotJudge> {
    let path = "/v1/audit/events";
    let read = api.all(path, &[("after", start.to_string())]).await?;
    let events: Result<Vec<Event>, _> = read.iter().map(Event::read).collect();
    events.map_err(|cause| CannotJudge::Shape { path: path.to_owned(), cause })
}

/// Each order by its own address, with its history and what that makes of it.
async fn read_orders(
    api: &Api,
    ids: &BTreeSet<String>,
    found: &mut Found,
) -> Result<(), CannotJudge> {
    found.orders = each(api, ids, |id| format!("/v1/orders/{id}")).await?;
    found.states = each(api, ids, |id| format!("{}/state", history_of(id))).await?;
    let histories = each(api, ids, history_of).await?;
    let whole = histories.into_iter().filter(|(_, one)| text(one, "complete") == "true");
    found.timelines = whole.map(|(id, history)| (id, timeline(&history))).collect();
    Ok(())
}

fn timeline(history: &Value) -> Vec<String> {
    let items = history.get("timeline").and_then(Value::as_array).into_iter().flatten();
    items.map(|item| text(item, "event.id")).collect()
}

/// Reads the path of each of these, some at once; those that are there.
async fn each(
    api: &Api,
    ids: &BTreeSet<String>,
    path: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, Value>, CannotJudge> {
    let read = |id: &String| {
        let (id, path) = (id.clone(), path(id));
        async move { Ok::<_, CannotJudge>((id, api.get(&path, &[]).await?)) }
    };
    let reading = stream::iter(ids.iter().map(read)).buffer_unordered(AT_ONCE);
    let read: Vec<(String, Option<Value>)> = reading.try_collect().await?;
    Ok(read.into_iter().filter_map(|(id, value)| Some((id, value?))).collect())
}

/// What could not be handled and is still open.
async fn parked(api: &Api) -> Result<Vec<Parked>, CannotJudge> {
    let mut found = Vec::new();
    for service in SERVICES {
        let path = format!("/v1/ops/{service}/dead-letters");
        let letters = api.all(&path, &[("status", "parked".to_owned())]).await?;
        found.extend(letters.iter().map(|letter| Parked {
            service,
            id: text(letter, "id"),
            lane: text(letter, "lane"),
            cause: text(letter, "cause"),
        }));
    }
    Ok(found)
}
