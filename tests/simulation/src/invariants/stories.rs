//! Each order's story, as it was published: every step once, and one end.

use std::collections::BTreeMap;

use anyhow::ensure;
use waybill_contract::order::{CancelReason, ReasonCode};
use waybill_contract::{Event, OrderEvent, UserEvent};
use waybill_runtime::StoredEvent;

use crate::tally::{Branch, Tally};
use crate::world::World;

/// What was published about one order.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// How often each type of event was published; of notifications with what they tell.
    counts: BTreeMap<String, u32>,
    pub(super) lines: Vec<(String, i64)>,
    pub(super) total: i64,
    pub(super) customer: String,
    cancelled: Option<CancelReason>,
    rejected: Vec<ReasonCode>,
    customer_is_known: bool,
}

/// What may be published more than once about an order.
const REPEATABLE: &str = "shipment.in_transit";

/// The stories of all orders, by their ids.
pub(super) fn stories(events: &[(&StoredEvent, Event)]) -> BTreeMap<String, Story> {
    let mut stories = BTreeMap::<String, Story>::new();
    let mut users = Vec::new();
    for (StoredEvent { envelope, .. }, event) in events {
        if let Event::User(UserEvent::Registered(user)) = event {
            users.push(user.user_id.to_string());
        }
        let of_order = match event {
            Event::Order(OrderEvent::CatalogueUpdated(_))
            | Event::Inventory(_)
            | Event::User(_) => {
                // Of products and users, or of an order, which then is what they belong to.
                envelope.stream.starts_with("reservation-")
                    || envelope.stream.starts_with("payment-")
                    || envelope.kind == "user.notified"
            }
            Event::Order(_) | Event::Logistics(_) => true,
        };
        if !of_order {
            continue;
        }
        let story = stories.entry(envelope.correlation.clone()).or_default();
        story.take(&envelope.kind, event);
    }
    for story in stories.values_mut() {
        story.customer_is_known = users.contains(&story.customer);
    }
    stories
}

impl Story {
    fn take(&mut self, kind: &str, event: &Event) {
        let mut told = kind.to_owned();
        match event {
            Event::Order(OrderEvent::Placed(placed)) => {
                let lines = placed.lines.iter();
                self.lines = lines.map(|l| (l.sku.to_string(), l.quantity.get())).collect();
                self.total = placed.total.amount.get();
                self.customer = placed.customer_id.to_string();
            }
            Event::Order(OrderEvent::Cancelled(cancelled)) => {
                self.cancelled = Some(cancelled.reason);
            }
            Event::Order(OrderEvent::Rejected(rejected)) => {
                self.rejected = rejected.reasons.iter().map(|reason| reason.code).collect();
            }
            Event::User(UserEvent::Notified(notified)) => {
                told = format!("{kind} {}", notified.kind);
            }
            _ => {}
        }
        *self.counts.entry(told).or_default() += 1;
    }

    fn times(&self, kind: &str) -> u32 {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    fn has(&self, kind: &str) -> bool {
        self.times(kind) > 0
    }

    /// Whether what it reserved has left the house for good.
    pub(super) fn stock_left(&self) -> bool {
        self.has("stock.shipped") && !self.has("stock.returned")
    }

    /// Whether what it reserved is still set aside.
    pub(super) fn stock_waits(&self) -> bool {
        self.has("stock.reserved") && !self.has("stock.shipped") && !self.has("stock.released")
    }

    /// Whether its money is spent for good.
    pub(super) fn money_spent(&self) -> bool {
        self.has("payment.captured") && !self.has("payment.refunded")
    }

    /// Whether its money is still set aside.
    pub(super) fn money_waits(&self) -> bool {
        self.has("payment.authorized")
            && !self.has("payment.captured")
            && !self.has("payment.released")
    }
}

/// Checks every story, and that the row of its order says the same.
pub(super) async fn check(
    world: &mut World,
    stories: &BTreeMap<String, Story>,
) -> anyhow::Result<()> {
    world.tally.orders += u64::try_from(stories.len())?;
    let rows =
        world.watch.texts::<(String, String)>("select id, status from \"order\".orders".to_owned());
    let rows: BTreeMap<String, String> = rows.await?.into_iter().collect();
    for (order, story) in stories {
        story.count(&mut world.tally);
        once(order, story)?;
        if world.unsettled.contains(order) {
            continue;
        }
        one_end(order, story, rows.get(order).map(String::as_str))?;
        compensated(order, story)?;
        delivered_or_not(order, story)?;
        told(order, story)?;
    }
    let orders = stories.values().filter(|story| story.has("order.placed")).count();
    ensure!(rows.len() == orders, "{} rows of orders, {orders} placed", rows.len());
    Ok(())
}

/// Each step of an order happened once at most, whatever an operator gave up.
fn once(order: &str, story: &Story) -> anyhow::Result<()> {
    ensure!(story.times("order.placed") == 1, "{order} has no beginning: {story:?}");
    let twice = story.counts.iter().find(|(kind, count)| **count > 1 && *kind != REPEATABLE);
    ensure!(twice.is_none(), "{order}: {twice:?} in {story:?}");
    Ok(())
}

fn one_end(order: &str, story: &Story, status: Option<&str>) -> anyhow::Result<()> {
    let ends: Vec<&str> = ["completed", "rejected", "cancelled"]
        .into_iter()
        .filter(|end| story.has(&format!("order.{end}")))
        .collect();
    ensure!(ends.len() == 1, "{order} has the ends {ends:?}: {story:?}");
    ensure!(status == Some(ends[0]), "{order} is {status:?}, its end is {ends:?}");
    Ok(())
}

/// What was reserved and held was used, or came back, as the end of the order wants it.
fn compensated(order: &str, story: &Story) -> anyhow::Result<()> {
    let completed = story.has("order.completed");
    let ways = [
        ["stock.reserved", "stock.rejected", "stock.released", "stock.shipped", "stock.returned"],
        [
            "payment.authorized",
            "payment.declined",
            "payment.released",
            "payment.captured",
            "payment.refunded",
        ],
    ];
    for kinds in ways {
        let [yes, no, freed, used, back] = kinds.map(|kind| story.has(kind));
        let tombstone = freed && !yes;
        let answers = [yes, no, tombstone].into_iter().filter(|answer| *answer).count();
        ensure!(answers == 1, "{order} has {answers} of {kinds:?}: {story:?}");
        let right = if completed {
            yes && used && !freed && !back
        } else {
            used == back && (!yes || freed != back) && (yes || !used)
        };
        ensure!(right, "{order} is not settled: {story:?}");
    }
    Ok(())
}

/// An order is completed if and only if its parcel arrived.
fn delivered_or_not(order: &str, story: &Story) -> anyhow::Result<()> {
    let is = |kind: &str| story.has(kind);
    let parcel = is("shipment.created") || is("shipment.cancelled");
    ensure!(parcel == is("order.confirmed"), "{order}: confirmed without a parcel: {story:?}");
    let left = is("shipment.dispatched");
    let decided = !is("shipment.created") || left != is("shipment.cancelled");
    ensure!(decided, "{order}: a parcel that neither left nor was cancelled, or both: {story:?}");
    let ended = !left || is("shipment.delivered") != is("shipment.failed");
    ensure!(ended, "{order}: a parcel that left without one end: {story:?}");
    let completed = is("order.completed");
    ensure!(completed == is("shipment.delivered"), "{order}: completed or delivered: {story:?}");
    let failed = story.cancelled == Some(CancelReason::ShipmentFailed);
    ensure!(failed == is("shipment.failed"), "{order}: failed without cause: {story:?}");
    Ok(())
}

/// The customer was told how it ended.
fn told(order: &str, story: &Story) -> anyhow::Result<()> {
    let end = match (story.has("order.completed"), story.has("order.rejected")) {
        (true, _) => "delivered",
        (_, true) => "rejected",
        _ => "cancelled",
    };
    let told = story.has(&format!("user.notified {end}"));
    ensure!(told || !story.customer_is_known, "{order}: nobody was told it is {end}: {story:?}");
    Ok(())
}

impl Story {
    /// Notes which branches the order took.
    fn count(&self, tally: &mut Tally) {
        let is = |kind: &str| self.has(kind);
        let for_stock = self.rejected.contains(&ReasonCode::OutOfStock);
        let by_customer = self.cancelled == Some(CancelReason::Customer);
        let taken = [
            (is("order.completed"), Branch::Completed),
            (for_stock, Branch::OutOfStock),
            (is("order.rejected") && !for_stock, Branch::Declined),
            (by_customer && !is("order.confirmed"), Branch::CancelledPlaced),
            (by_customer && is("order.confirmed"), Branch::CancelledConfirmed),
            (is("order.cancel_requested") && is("order.completed"), Branch::CancelLost),
            (self.cancelled == Some(CancelReason::Expired), Branch::Expired),
            (self.cancelled == Some(CancelReason::ShipmentFailed), Branch::ShipmentFailed),
            (is("stock.reserved") && is("stock.released"), Branch::StockReleased),
            (is("stock.returned"), Branch::StockReturned),
            (is("stock.released") && !is("stock.reserved"), Branch::StockTombstone),
            (is("payment.authorized") && is("payment.released"), Branch::MoneyReleased),
            (is("payment.refunded"), Branch::MoneyRefunded),
            (is("payment.released") && !is("payment.authorized"), Branch::MoneyTombstone),
        ];
        taken.into_iter().filter(|(is, _)| *is).for_each(|(_, branch)| tally.reach(branch));
    }
}
