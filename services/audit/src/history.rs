//! An order's history: its events in order, and which led to which.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use waybill_runtime::{EventId, Position, StoredEvent, Timestamp};

/// An event as the event store holds it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoredEvent)]
pub struct EventView {
    /// Its place in the event store, from 1, without gaps.
    #[schema(value_type = i64, minimum = 1)]
    pub position: Position,
    /// When the event store took it in; never decreases with the position.
    #[schema(value_type = String, format = DateTime)]
    pub recorded_at: Timestamp,
    /// The event, a `CloudEvent` 1.0; its `data` byte for byte as first written.
    #[schema(value_type = Object)]
    pub event: Box<RawValue>,
}

impl EventView {
    /// The event as it is shown.
    pub fn of(stored: &StoredEvent) -> Result<Self, serde_json::Error> {
        let StoredEvent { position, recorded_at, envelope, .. } = stored;
        let event = envelope.cloud_event()?;
        Ok(Self { position: *position, recorded_at: *recorded_at, event })
    }
}

/// Which events led to which.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CausationGraph)]
pub struct Graph {
    /// The events.
    pub nodes: Vec<Node>,
    /// From each cause to its effect, where both are among the nodes.
    pub edges: Vec<Edge>,
}

/// An event in a graph.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CausationNode)]
pub struct Node {
    /// The event's id.
    #[schema(value_type = String, format = "uuid")]
    pub id: EventId,
    /// Its name.
    #[schema(example = "order.placed")]
    pub r#type: String,
    /// The service that wrote it.
    #[schema(example = "/services/order")]
    pub source: String,
    /// Its place in the event store.
    #[schema(value_type = i64, minimum = 1)]
    pub position: Position,
}

/// One event led to another.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CausationEdge)]
pub struct Edge {
    /// The id of the cause.
    #[schema(value_type = String, format = "uuid")]
    pub from: String,
    /// The id of the effect.
    #[schema(value_type = String, format = "uuid")]
    pub to: String,
}

impl Graph {
    /// The graph of these events. What a command caused has no edge to it: it begins there.
    #[must_use]
    pub fn of(events: &[StoredEvent]) -> Self {
        let node = |stored: &StoredEvent| Node {
            id: stored.envelope.id,
            r#type: stored.envelope.kind.clone(),
            source: format!("/services/{}", stored.envelope.source),
            position: stored.position,
        };
        let ids: BTreeSet<String> = events.iter().map(|e| e.envelope.id.to_string()).collect();
        let edge = |stored: &StoredEvent| {
            let (from, to) = (stored.envelope.causation.clone(), stored.envelope.id.to_string());
            ids.contains(&from).then_some(Edge { from, to })
        };
        Self {
            nodes: events.iter().map(node).collect(),
            edges: events.iter().filter_map(edge).collect(),
        }
    }
}
