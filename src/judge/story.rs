//! One order's events, of all services, in the order of the event store.

use std::collections::BTreeMap;

use waybill_runtime::Timestamp;

use super::found::Event;
use crate::client::text;

/// Events of an order's own stream, and the status that each leaves it in, if it changes that.
const STATUSES: [(&str, &str); 10] = [
    ("order.placed", "placed"),
    ("order.stock_secured", "placed"),
    ("order.payment_secured", "placed"),
    ("order.confirmed", "confirmed"),
    ("order.cancel_requested", "cancelling"),
    ("order.dispatched", "dispatched"),
    ("order.delivered", "delivered"),
    ("order.completed", "completed"),
    ("order.rejected", "rejected"),
    ("order.cancelled", "cancelled"),
];
/// How stock and payment of an order that was not completed are settled.
const UNUSED_STOCK: [&str; 3] = ["stock.rejected", "stock.released", "stock.returned"];
const UNSPENT_PAYMENT: [&str; 3] = ["payment.declined", "payment.released", "payment.refunded"];
/// What events of parcels may name as the time at which the next thing happens.
const DUE: [&str; 3] = ["dispatch_at", "in_transit_at", "deliver_at"];

/// One order's events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    events: Vec<Event>,
}

/// What an order that has not ended waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// For a time that its history names.
    Until(Timestamp),
    /// For its carrier, who is not a part of the deployment.
    Carrier,
    /// For the services.
    Services,
}

impl Story {
    /// Sorts events by the order they belong to: those that were placed in this run.
    pub(crate) fn all(log: &[Event], tag: &str) -> BTreeMap<String, Self> {
        let mut stories = BTreeMap::new();
        for event in log {
            Self::tell(&mut stories, event, tag);
        }
        stories
    }

    /// Adds an event to the story it belongs to, if that is of this run; whether it is.
    pub(crate) fn tell(stories: &mut BTreeMap<String, Self>, event: &Event, tag: &str) -> bool {
        let order = &event.body.correlationid;
        if event.kind() == "order.placed"
            && text(&event.body.data, "ship_to.line2").starts_with(tag)
        {
            stories.entry(order.clone()).or_default();
        }
        let story = stories.get_mut(order);
        let of_run = story.is_some();
        if let Some(story) = story {
            story.events.push(event.clone());
        }
        of_run
    }

    /// Its events.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Those of one name.
    pub(crate) fn named<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.kind() == kind)
    }

    /// Whether there is one of this name.
    pub(crate) fn has(&self, kind: &str) -> bool {
        self.named(kind).next().is_some()
    }

    /// The key under which it was placed.
    pub(crate) fn key(&self) -> String {
        self.named("order.placed")
            .next()
            .map_or_else(String::new, |placed| text(&placed.body.data, "ship_to.line2"))
    }

    /// The statuses it went through, with the names of the events that led there.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let status = |event: &Event| STATUSES.iter().find(|(kind, _)| *kind == event.kind());
        self.events.iter().filter_map(status).copied()
    }

    /// Where it is now.
    pub(crate) fn status(&self) -> &'static str {
        self.statuses().last().map_or("", |(_, status)| status)
    }

    /// What is still open: nothing once it has ended, what was set aside for it is used up or free
    /// again, and its customer was told.
    pub(crate) fn open(&self) -> Option<&'static str> {
        let end = self.status();
        let (stock, payment, word): (&[&str], &[&str], &str) = match end {
            "completed" => (&["stock.shipped"], &["payment.captured"], "delivered"),
            "rejected" | "cancelled" => (&UNUSED_STOCK, &UNSPENT_PAYMENT, end),
            _ => return Some("it has not ended"),
        };
        let any = |kinds: &[&str]| kinds.iter().any(|kind| self.has(kind));
        let told = |event: &Event| text(&event.body.data, "kind") == word;
        if !any(stock) {
            return Some("its stock is not settled");
        }
        if !any(payment) {
            return Some("its payment is not settled");
        }
        let told = self.named("user.notified").any(told);
        (!told).then_some("its customer was not told of its end")
    }

    /// What it waits for, as its history says, where it has not ended by `now`.
    pub(crate) fn waits(&self, now: Timestamp) -> Waits {
        let arrived = self.has("shipment.delivered") || self.has("shipment.failed");
        let manual = |left: &Event| text(&left.body.data, "mode") == "manual";
        if !arrived && self.named("shipment.dispatched").any(manual) {
            return Waits::Carrier;
        }
        let due = |event: &Event| {
            let time = |name: &&str| Timestamp::parse(&text(&event.body.data, name));
            DUE.iter().filter_map(time).max()
        };
        match self.events.iter().filter_map(due).max() {
            Some(time) if time > now => Waits::Until(time),
            _ => Waits::Services,
        }
    }
}
