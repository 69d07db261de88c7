//! Histories of a few real orders, as patterns for many.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use uuid::Uuid;
use waybill_runtime::{
    Clock, Envelope, EventId, EventStore, Filter, Ids, Migrations, StoredEvent, Timestamp, Version,
};

use crate::bench::Bench;
use crate::completions::Completions;
use crate::load::{self, Target};
use crate::place::{Kind, Place};
use crate::world::World;

/// Orders to take as patterns: one for each customer.
const ORDERS: usize = 50;
/// Clients that place them.
const CLIENTS: usize = 8;
const PAGE: usize = 1_000;

/// What happened before the first order, and to each of some orders.
#[derive(Debug)]
pub(crate) struct Templates {
    pub(crate) world: World,
    pub(crate) beginning: Vec<Envelope>,
    pub(crate) orders: Vec<Vec<Step>>,
}

/// One event of an order, with its ids left open.
#[derive(Debug)]
pub(crate) struct Step {
    envelope: Envelope,
    id: usize,
    correlation: Pattern,
    causation: Pattern,
    stream: Pattern,
    data: Pattern,
    /// Whether its stream goes on over many orders.
    pub(crate) in_shared_stream: bool,
    /// Whether the order gets its number from where this event is.
    pub(crate) gives_number: bool,
}

/// A text with places for ids and for the order's number.
#[derive(Debug)]
struct Pattern(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Id(usize),
    Number,
}

/// What one order fills the places with.
#[derive(Debug)]
pub(crate) struct Filling {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) number: String,
}

/// Lets real services handle a few orders, and keeps what they said.
pub(crate) async fn record(bench: &Bench) -> anyhow::Result<Templates> {
    bench.progress.tell("recording orders to multiply");
    let place = Place::fresh(bench, Kind::Sqlite).await?;
    let server = bench.waybill.serve(&[], &place).await?;
    let world = World::make(server.address).await?;
    let target = Target { address: server.address, world: world.clone(), name: "template" };
    let mut completions = Completions::follow(&place).await?;
    let placed = load::for_count(&target, CLIENTS, ORDERS).await?;
    completions.wait_for(ORDERS).await?;
    completions.close().await?;
    server.stop()?;
    let events = everything(&place).await?;
    place.remove().await?;
    let mut orders: HashMap<String, Vec<Envelope>> = HashMap::new();
    let known: Vec<&str> = placed.orders.iter().map(|order| order.id.as_str()).collect();
    let mut beginning = Vec::new();
    for StoredEvent { envelope, .. } in events {
        let envelope = Arc::unwrap_or_clone(envelope);
        if known.contains(&envelope.correlation.as_str()) {
            orders.entry(envelope.correlation.clone()).or_default().push(envelope);
        } else {
            beginning.push(envelope);
        }
    }
    let orders = orders.into_values().map(steps).collect::<anyhow::Result<_>>()?;
    Ok(Templates { world, beginning, orders })
}

async fn everything(place: &Place) -> anyhow::Result<Vec<StoredEvent>> {
    let (location, clock, ids) = (place.location(), Clock::system(), Ids::system());
    let store = EventStore::open(&location, clock, &ids, Migrations::Check).await?;
    let mut events: Vec<StoredEvent> = Vec::new();
    let mut pages = store.pages(Filter::default(), PAGE);
    while let Some(page) = pages.next().await? {
        events.extend(page);
    }
    store.close().await;
    Ok(events)
}

fn steps(events: Vec<Envelope>) -> anyhow::Result<Vec<Step>> {
    let mut ids: Vec<String> = events.iter().map(|event| event.id.to_string()).collect();
    ids.push(events.first().context("an order has events")?.correlation.clone());
    let parcel = events.iter().find_map(|event| event.stream.strip_prefix("shipment-"));
    ids.extend(parcel.map(str::to_owned));
    let number = events.iter().find_map(|event| {
        let (_, rest) = event.data.split_once("\"number\":\"")?;
        Some(rest.split_once('"')?.0.to_owned())
    });
    let number = number.context("an order has a number")?;
    let pattern = |text: &str| Pattern::of(text, &ids, &number);
    let step = |(id, envelope): (usize, Envelope)| {
        let stream = pattern(&envelope.stream);
        Step {
            id,
            correlation: pattern(&envelope.correlation),
            causation: pattern(&envelope.causation),
            data: pattern(&envelope.data),
            in_shared_stream: !stream.0.iter().any(|piece| matches!(piece, Piece::Id(_))),
            gives_number: envelope.kind == "order.placed",
            stream,
            envelope,
        }
    };
    Ok(events.into_iter().enumerate().map(step).collect())
}

impl Step {
    /// The service that said it.
    pub(crate) fn source(&self) -> &str {
        &self.envelope.source
    }

    /// The event as it happens to one more order.
    pub(crate) fn of(
        &self,
        filling: &Filling,
        version: Option<Version>,
        time: Timestamp,
    ) -> Envelope {
        Envelope {
            id: EventId(filling.ids[self.id]),
            stream: self.stream.filled(filling),
            version: version.unwrap_or(self.envelope.version),
            time,
            correlation: self.correlation.filled(filling),
            causation: self.causation.filled(filling),
            data: self.data.filled(filling),
            ..self.envelope.clone()
        }
    }

    /// The name of its stream.
    pub(crate) fn stream(&self, filling: &Filling) -> String {
        self.stream.filled(filling)
    }
}

/// How many ids an order with these events needs.
pub(crate) fn ids(steps: &[Step]) -> usize {
    steps.len() + 2
}

impl Pattern {
    fn of(text: &str, ids: &[String], number: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        let found = |rest: &str| {
            let ids = ids
                .iter()
                .enumerate()
                .map(|(slot, id)| (rest.find(id.as_str()), id.len(), Piece::Id(slot)));
            let number = (rest.find(number), number.len(), Piece::Number);
            let all = ids.chain([number]);
            all.filter_map(|(at, length, piece)| Some((at?, length, piece)))
                .min_by_key(|(at, ..)| *at)
        };
        while let Some((at, length, piece)) = found(rest) {
            pieces.push(Piece::Text(rest[..at].to_owned()));
            pieces.push(piece);
            rest = &rest[at + length..];
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Self(pieces)
    }

    fn filled(&self, filling: &Filling) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Id(slot) => text.push_str(&filling.ids[*slot].to_string()),
                Piece::Number => text.push_str(&filling.number),
            }
        }
        text
    }
}
