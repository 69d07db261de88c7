//! Events as they come in, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use waybill_runtime::limits::{PAGE_MAX, POLL};
use waybill_runtime::{Filter, Position, StoreError, StoredEvent};
use waybill_web::{Filtered, InvalidField, ListProblems, Problem};

use crate::api::Audit;
use crate::history::EventView;
use crate::query::{EventParams, Place, StreamQuery};

/// How often a stream without events says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where a client that was cut off goes on.
pub(crate) struct LastEventId(Option<Place>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(header) = parts.headers.get("last-event-id") else { return Ok(Self(None)) };
        let place = header.to_str().ok().and_then(|text| text.parse().ok());
        let invalid = || {
            let detail = "must be the id of an event of this stream: a position";
            Problem::invalid(vec![InvalidField::new("/Last-Event-ID", detail)])
        };
        place.map(|place| Self(Some(place))).ok_or_else(invalid)
    }
}

/// Watch events come in.
///
/// Server-sent events, from the first that fits on and then as they come. The `id` of each is its
/// position, `data` an item as in `GET /v1/audit/events`; a client that comes back with
/// `Last-Event-ID` misses none.
#[utoipa::path(
    get, path = "/v1/audit/stream", tag = "audit",
    params(EventParams, ("Last-Event-ID" = Option<i64>, Header, description = "The position after which to go on.")),
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream"),
        ListProblems,
    ),
)]
pub(crate) async fn watch_events(
    State(audit): State<Audit>,
    LastEventId(last): LastEventId,
    Filtered(StreamQuery(query)): Filtered<StreamQuery>,
) -> Result<Response, Problem> {
    let mut filter = query.filter(&audit.event_store).await?;
    if let Some(Place(position)) = last {
        filter.after = filter.after.max(position);
    }
    let stopping = audit.stopping.clone();
    let stream = futures_util::StreamExt::take_until(
        events(audit, filter),
        stopping.cancelled_owned(),
    );
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(Box::pin(stream)).keep_alive(keep_alive).into_response())
}

/// A reader that stays at the end of the event store.
struct Tail {
    audit: Audit,
    filter: Filter,
    found: VecDeque<StoredEvent>,
    growth: watch::Receiver<Position>,
}

fn events(audit: Audit, filter: Filter) -> impl Stream<Item = Result<Event, Infallible>> {
    let growth = audit.event_store.growth();
    let tail = Tail { audit, filter, found: VecDeque::new(), growth };
    unfold(tail, |mut tail| async move {
        match tail.next().await {
            Ok(Some(event)) => Some((Ok(event), tail)),
            // An end, not an error: the client comes back with the id of the last event it got.
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "a stream of events ends early");
                None
            }
        }
    })
}

impl Tail {
    async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        while self.found.is_empty() {
            if self.filter.after >= Position(self.filter.before.0 - 1) {
                return Ok(None);
            }
            self.growth.mark_unchanged();
            if !self.look().await? {
                // Other processes' appends may go unheard, so look now and then anyway.
                let _ = tokio::time::timeout(POLL, self.growth.changed()).await;
            }
        }
        let Some(stored) = self.found.pop_front() else { return Ok(None) };
        let item = EventView::of(&stored)?;
        let event = Event::default().id(stored.position.to_string());
        Ok(Some(event.data(serde_json::to_string(&item)?)))
    }

    /// Reads what has come in since; whether anything has.
    async fn look(&mut self) -> Result<bool, StoreError> {
        let store = &self.audit.event_store;
        let head = store.head().await?;
        if head <= self.filter.after {
            return Ok(false);
        }
        let before = self.filter.before.min(head.next());
        let page = store.find(&Filter { before, ..self.filter.clone() }, PAGE_MAX).await?;
        // A page that is not full has seen everything before its bound.
        let full = page.len() == PAGE_MAX;
        let seen = page.last().filter(|_| full).map_or(Position(before.0 - 1), |e| e.position);
        self.filter.after = seen;
        self.found.extend(page);
        Ok(true)
    }
}
