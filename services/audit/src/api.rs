//! The routes of the audit service.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waybill_contract::OrderId;
use waybill_runtime::limits::HISTORY_EVENTS;
use waybill_runtime::{
    DecodeError, EventId, EventStore, Filter, Position, StoreError, StoredEvent,
};
use waybill_web::{
    ByPosition, Filtered, Items, ListProblems, Listing, Named, NestedListProblems, PageQuery,
    Problem, ReadProblems,
};

use crate::history::{EventView, Graph};
use crate::query::{At, AtParam, DirectionParam, EventParams, EventQuery, StateQuery};
use crate::stream;

/// Folds an order's own events to the order as it stands after them, as the order service shows it.
///
/// Handed in by whoever puts the process together: services do not know each other.
pub type OrderAsOf =
    dyn Fn(&[StoredEvent]) -> Result<Option<Box<RawValue>>, DecodeError> + Send + Sync;

/// What the routes of audit have in their hands.
#[derive(Clone)]
pub struct Audit {
    /// What happened.
    pub event_store: EventStore,
    /// How an order's events make an order.
    pub order_as_of: Arc<OrderAsOf>,
    /// Cancelled when the server stops: streams come to an end.
    pub stopping: CancellationToken,
}

/// The routes of the audit service.
pub fn routes(audit: Audit) -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(routes!(list_events))
        .routes(routes!(get_event))
        .routes(routes!(get_order_history))
        .routes(routes!(get_order_state))
        .routes(routes!(stream::watch_events))
        .with_state(audit)
}

/// Find events.
#[utoipa::path(
    get, path = "/v1/audit/events", tag = "audit",
    params(EventParams, DirectionParam, PageQuery<ByPosition>),
    responses((status = 200, description = "A page of events.", body = Items<EventView>), ListProblems),
)]
async fn list_events(
    State(audit): State<Audit>,
    Listing { filters, page }: Listing<EventQuery>,
) -> Result<Items<EventView>, Problem> {
    let mut filter = filters.filter(&audit.event_store).await?;
    if let Some(cursor) = page.after.as_ref().and_then(|after| after.parse().ok()).map(Position) {
        if filters.newest_first() {
            filter.before = filter.before.min(cursor);
        } else {
            filter.after = filter.after.max(cursor);
        }
    }
    let events = audit.event_store.find(&filter, page.rows()).await?;
    let Items { items, next } = page.show(events, |e| e.position.to_string(), EventView::of);
    let items = items.into_iter().collect::<Result<Vec<_>, _>>().map_err(StoreError::from)?;
    Ok(Items { items, next })
}

/// Show one event.
#[utoipa::path(
    get, path = "/v1/audit/events/{event_id}", tag = "audit",
    params(("event_id" = String, Path, format = "uuid", description = "The event's id.")),
    responses((status = 200, description = "The event.", body = EventView), ReadProblems),
)]
async fn get_event(
    State(audit): State<Audit>,
    Named(id): Named<EventId>,
) -> Result<Json<EventView>, Problem> {
    let event = audit.event_store.event(id).await?;
    let event = event.ok_or_else(|| Problem::of(StatusCode::NOT_FOUND))?;
    Ok(Json(EventView::of(&event).map_err(StoreError::from)?))
}

/// An order's whole history.
#[derive(Debug, Serialize, ToSchema)]
struct OrderHistory {
    /// The order.
    order_id: OrderId,
    /// Everything that followed from it, in the order of the event store.
    timeline: Vec<EventView>,
    /// What led to what.
    graph: Graph,
    /// Whether this is all; if not, `GET /v1/audit/events` pages through the rest.
    complete: bool,
}

/// Show an order's whole history.
#[utoipa::path(
    get, path = "/v1/audit/orders/{id}", tag = "audit",
    params(("id" = OrderId, Path, description = "The order's id.")),
    responses((status = 200, description = "Its history.", body = OrderHistory), ReadProblems),
)]
async fn get_order_history(
    State(audit): State<Audit>,
    Named(order_id): Named<OrderId>,
) -> Result<Json<OrderHistory>, Problem> {
    let filter = Filter { correlation: Some(order_id.to_string()), ..Filter::default() };
    let mut events = audit.event_store.find(&filter, HISTORY_EVENTS + 1).await?;
    if !events.iter().any(|event| event.envelope.stream == stream_of(order_id)) {
        return Err(Problem::of(StatusCode::NOT_FOUND));
    }
    let complete = events.len() <= HISTORY_EVENTS;
    events.truncate(HISTORY_EVENTS);
    let timeline = events.iter().map(EventView::of).collect::<Result<_, _>>();
    let timeline = timeline.map_err(StoreError::from)?;
    Ok(Json(OrderHistory { order_id, timeline, graph: Graph::of(&events), complete }))
}

/// Show an order as it stood.
#[utoipa::path(
    get, path = "/v1/audit/orders/{id}/state", tag = "audit",
    params(("id" = OrderId, Path, description = "The order's id."), AtParam),
    responses(
        (status = 200, description = "The order as it stood right after that.", body = Object),
        NestedListProblems,
    ),
)]
async fn get_order_state(
    State(audit): State<Audit>,
    Named(order_id): Named<OrderId>,
    Filtered(StateQuery(at)): Filtered<StateQuery>,
) -> Result<Json<Box<RawValue>>, Problem> {
    let last = match at {
        None => Position(i64::MAX - 1),
        Some(At::Position(position)) => position.min(Position(i64::MAX - 1)),
        Some(At::Time(time)) => audit.event_store.position_at(time).await?,
    };
    let stream = Some(stream_of(order_id));
    let filter = Filter { stream, before: last.next(), ..Filter::default() };
    let events = audit.event_store.find(&filter, HISTORY_EVENTS).await?;
    let state = (audit.order_as_of)(&events).map_err(|error| {
        tracing::error!(%order_id, %error, "an order's events cannot be folded");
        Problem::of(StatusCode::INTERNAL_SERVER_ERROR)
    })?;
    state.map(Json).ok_or_else(|| Problem::of(StatusCode::NOT_FOUND))
}

fn stream_of(order_id: OrderId) -> String {
    format!("order-{order_id}")
}
