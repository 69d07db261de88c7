//! The audit service: what happened, what led to what, and how an order stood at any moment.
//!
//! It owns no table and writes no event; it reads the event store, which all services feed.
//!
//! **Serves** `GET /v1/audit/events`, `GET /v1/audit/events/{event_id}`,
//! `GET /v1/audit/orders/{id}`, `GET /v1/audit/orders/{id}/state` and `GET /v1/audit/stream`.

mod api;
mod history;
mod query;
mod stream;

pub use api::{Audit, OrderAsOf, routes};
pub use history::{Edge, EventView, Graph, Node};

/// The name of the service.
pub const NAME: &str = "audit";
