//! Reads the event store while it grows: what is read is compared with what is there in the end,
//! shows which orders are settled, and, where nobody else moves parcels, which wait for a carrier.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use waybill_runtime::{Clock, Timestamp};

use super::CannotJudge;
use super::desk::Desk;
use super::dice::Dice;
use super::found::Event;
use super::history::Wish;
use super::story::{Story, Waits};
use crate::client::{number, text};

/// The pause before the event store is looked at again.
const PAUSE: Duration = Duration::from_millis(100);
/// Of a hundred parcels that the judge carries, how many do not arrive.
const FAILING: u64 = 15;

/// What was read of the event store so far.
#[derive(Debug)]
pub(crate) struct Watch {
    desk: Desk,
    tag: String,
    dice: Dice,
    /// Position and digest of each event.
    pub(crate) read: Vec<(i64, u64)>,
    after: i64,
    /// The run's orders that are not settled.
    open: BTreeMap<String, Story>,
    /// Parcels that the judge carries; ended with the watch.
    carried: JoinSet<()>,
}

impl Watch {
    /// Begins after this position.
    pub(crate) fn new(desk: Desk, tag: String, after: i64, dice: Dice) -> Self {
        let (read, open, carried) = (Vec::new(), BTreeMap::new(), JoinSet::new());
        Self { desk, tag, dice, read, after, open, carried }
    }

    /// Goes on for ever. Dropping it between pages loses nothing.
    pub(crate) async fn follow(&mut self) {
        loop {
            self.step().await;
        }
    }

    /// One page; a pause if there is none.
    async fn step(&mut self) {
        let page = self.desk.api.events_after(self.after).await.unwrap_or_default();
        let events: Result<Vec<Event>, _> = page.iter().map(Event::read).collect();
        let events = events.unwrap_or_default();
        for event in &events {
            self.take(event);
        }
        if events.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn take(&mut self, event: &Event) {
        self.after = event.position;
        self.read.push((event.position, event.digest));
        if !Story::tell(&mut self.open, event, &self.tag) {
            return;
        }
        let order = &event.body.correlationid;
        if self.open.get(order).is_some_and(|story| story.open().is_none()) {
            self.open.remove(order);
        }
        let data = &event.body.data;
        if event.kind() == "shipment.dispatched" && text(data, "mode") == "manual" {
            self.carry(order.clone(), text(data, "shipment_id"));
        }
    }

    /// Reports what became of a parcel that nobody else moves.
    fn carry(&mut self, order: String, shipment: String) {
        let end = if self.dice.percent(FAILING) { "failed" } else { "delivered" };
        let seen = self.dice.percent(50).then_some("in_transit");
        let (desk, tag) = (self.desk.clone(), self.tag.clone());
        self.carried.spawn(async move {
            for status in seen.into_iter().chain([end]) {
                let key = format!("{tag}-track-{status}-{shipment}");
                let body = json!({ "status": status, "note": "by the judge" });
                let path = format!("/v1/shipments/{shipment}/tracking");
                let wish = Wish::Track { order: order.clone(), status };
                let filed = desk.file(key, path, body, wish);
                desk.insist(filed).await;
            }
        });
    }

    /// Follows until every order of the run is settled, or those that are not had their time: what
    /// was due before `began` has until `end`.
    pub(crate) async fn settle(&mut self, began: Timestamp, end: Timestamp, clock: &Clock) {
        while clock.now() < end {
            self.step().await;
            let waits = self.open.values().any(|story| match story.waits(began) {
                Waits::Until(time) => time < end,
                Waits::Carrier | Waits::Services => true,
            });
            while self.carried.try_join_next().is_some() {}
            if !waits && self.carried.is_empty() {
                return;
            }
        }
    }
}

/// The newest position of the event store.
pub(crate) async fn newest(desk: &Desk) -> Result<i64, CannotJudge> {
    let query = [("direction", "desc".to_owned()), ("limit", "1".to_owned())];
    let page = desk.api.get("/v1/audit/events", &query).await?;
    let item = page.as_ref().and_then(|page| page.get("items")?.get(0));
    Ok(item.map_or(0, |item| number(item, "position")))
}
