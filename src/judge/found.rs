//! What the API shows in the end: the other side of the trial.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use serde::Deserialize;
use serde_json::Value;
use waybill_runtime::Timestamp;

/// What the API shows in the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The event store's position when the run began.
    pub(crate) start: i64,
    /// All events since, of others too.
    pub(crate) log: Vec<Event>,
    /// The same as it was read while it came into being: position and digest.
    pub(crate) first_read: Vec<(i64, u64)>,
    /// Every order of the run's customers, by its id, as its own address shows it.
    pub(crate) orders: BTreeMap<String, Value>,
    /// The ids of orders as the lists of customers show them.
    pub(crate) listed: Vec<String>,
    /// Of each order the ids of its events, as its own history shows them; nothing if that is cut.
    pub(crate) timelines: BTreeMap<String, Vec<String>>,
    /// Each order as its history makes it.
    pub(crate) states: BTreeMap<String, Value>,
    /// The run's products, by SKU.
    pub(crate) products: BTreeMap<String, Value>,
    /// The run's customers, by id.
    pub(crate) customers: BTreeMap<String, Value>,
    /// What could not be handled and is still open.
    pub(crate) parked: Vec<Parked>,
    /// Up to when orders had time to come to their ends.
    pub(crate) until: Timestamp,
}

/// An event of the event store.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) position: i64,
    pub(crate) recorded_at: Timestamp,
    pub(crate) body: EventBody,
    /// A digest of all of it.
    pub(crate) digest: u64,
}

/// An event as its service wrote it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct EventBody {
    pub(crate) id: String,
    pub(crate) r#type: String,
    pub(crate) subject: String,
    pub(crate) streamversion: i64,
    pub(crate) correlationid: String,
    pub(crate) causationid: String,
    pub(crate) actor: String,
    pub(crate) data: Value,
}

#[derive(Deserialize)]
struct Item {
    position: i64,
    recorded_at: Timestamp,
    event: EventBody,
}

impl Event {
    /// An event as the audit routes show it.
    pub(crate) fn read(item: &Value) -> Result<Self, serde_json::Error> {
        let Item { position, recorded_at, event } = Item::deserialize(item)?;
        let mut digest = DefaultHasher::new();
        item.to_string().hash(&mut digest);
        Ok(Self { position, recorded_at, body: event, digest: digest.finish() })
    }

    /// Its name.
    pub(crate) fn kind(&self) -> &str {
        &self.body.r#type
    }
}

/// A message that a service could not handle.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    pub(crate) service: &'static str,
    pub(crate) id: String,
    /// What waits with it: an order's id, or the first event of a product or a user.
    pub(crate) lane: String,
    pub(crate) cause: String,
}

impl Found {
    /// Whether an event is about one of the run's products or customers.
    pub(crate) fn owns(&self, event: &Event) -> bool {
        let stream = event.body.subject.as_str();
        let product = stream.strip_prefix("product-").or(stream.strip_prefix("catalogue-"));
        product.is_some_and(|sku| self.products.contains_key(sku))
            || stream.strip_prefix("user-").is_some_and(|id| self.customers.contains_key(id))
    }
}
