//! What only containers can show: several of each service, and the stack as a whole. Nothing of
//! this runs unless `scripts/test compose` asks for it.

mod random_faults;
mod replicas;
mod whole;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::load::{Answered, each_exists_once};
use crate::support::{Client, Stack, World};

/// Where an order may end, by the event that says so.
const ENDS: [&str; 3] = ["order.completed", "order.rejected", "order.cancelled"];

/// Every answered order is there once, has come to one end, and is what its key is answered with;
/// there is no other order; the books balance; and the data agrees with itself.
async fn nothing_was_lost_or_doubled(
    stack: Stack,
    world: &World,
    answered: &[Answered],
) -> BTreeMap<String, Value> {
    let orders = world.balances(&stack).await;
    assert_eq!(orders.len(), answered.len(), "one order for each key");
    each_exists_once(&stack, answered, &orders).await;
    each_has_one_end(&stack, &orders).await;
    stack.ends_well().await;
    orders
}

async fn each_has_one_end(client: &Client, orders: &BTreeMap<String, Value>) {
    let mut ends: BTreeMap<String, &str> = BTreeMap::new();
    for end in ENDS {
        for item in client.all(&format!("/v1/audit/events?type={end}")).await {
            let order = item["event"]["correlationid"].as_str().expect("an order").to_owned();
            let before = ends.insert(order.clone(), end);
            assert_eq!(before, None, "{order} ended twice, the second time by {end}");
        }
    }
    for (id, order) in orders {
        let status = ends.get(id).and_then(|end| end.strip_prefix("order."));
        assert_eq!(order["status"].as_str(), status, "the end of {id}");
    }
    assert_eq!(ends.len(), orders.len());
}
