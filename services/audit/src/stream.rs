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
use utoipa::IntoParams;
use waybill_runtime::limits::{PAGE_MAX, POLL};
use waybill_runtime::{Filter, Position, StoreError, StoredEvent, Timestamp};
use waybill_web::{Filtered, InvalidField, ListProblems, Problem};

use crate::api::Audit;
use crate::history::EventView;
use crate::query::{EventParams, Moment, Place, StreamQuery};

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

/// The headers of the stream, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only describes the headers")]
struct WatchHeaders {
    /// The position after which to go on.
    #[param(rename = "Last-Event-ID", required = false, minimum = 0)]
    last_event_id: i64,
}

/// Watch events come in.
///
/// Server-sent events, from the first that fits on and then as they come. The `id` of each is its
/// position, `data` an item as in `GET /v1/audit/events`; a client that comes back with
/// `Last-Event-ID` misses none.
#[utoipa::path(
    get, path = "/v1/audit/stream", tag = "audit",
    params(EventParams, WatchHeaders),
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream"),
        ListProblems,
    ),
)]
pub(crate) async fn watch_events(
    State(audit): State<Audit>,
    LastEventId(last): LastEventId,
    Filtered(StreamQuery { events, until }): Filtered<StreamQuery>,
) -> Result<Response, Problem> {
    let mut filter = events.filter(&audit.event_store).await?;
    if let Some(Place(position)) = last {
        filter.after = filter.after.max(position);
    }
    let stopping = audit.stopping.clone();
    let until = until.map(|Moment(time)| time);
    let stream =
        futures_util::StreamExt::take_until(tail(audit, filter, until), stopping.cancelled_owned());
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(Box::pin(stream)).keep_alive(keep_alive).into_response())
}

/// A reader that stays at the end of the event store.
struct Tail {
    audit: Audit,
    filter: Filter,
    until: Option<Timestamp>,
    found: VecDeque<StoredEvent>,
    growth: watch::Receiver<Position>,
    /// Nothing that fits can come any more.
    ended: bool,
}

fn tail(
    audit: Audit,
    filter: Filter,
    until: Option<Timestamp>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let growth = audit.event_store.growth();
    let tail = Tail { audit, filter, until, found: VecDeque::new(), growth, ended: false };
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
            if self.ended {
                return Ok(None);
            }
            self.growth.mark_unchanged();
            self.look().await?;
            if self.found.is_empty() && !self.ended {
                // Other processes' appends may go unheard, so look now and then anyway.
                let _ = tokio::time::timeout(POLL, self.growth.changed()).await;
            }
        }
        let Some(stored) = self.found.pop_front() else { return Ok(None) };
        let item = EventView::of(&stored)?;
        let event = Event::default().id(stored.position.to_string());
        Ok(Some(event.data(serde_json::to_string(&item)?)))
    }

    /// Reads what has come in since.
    async fn look(&mut self) -> Result<(), StoreError> {
        let store = &self.audit.event_store;
        let head = store.head().await?;
        let in_time = match self.until {
            Some(until) => store.position_at(until).await?,
            None => head,
        };
        let last = head.min(in_time).min(Position(self.filter.before.0 - 1));
        let mut full = false;
        if self.filter.after < last {
            let filter = Filter { before: last.next(), ..self.filter.clone() };
            let page = store.find(&filter, PAGE_MAX).await?;
            // A page that is not full has seen everything before its bound.
            full = page.len() == PAGE_MAX;
            self.filter.after = page.last().filter(|_| full).map_or(last, |event| event.position);
            self.found.extend(page);
        }
        // Times do not decrease: after one event that is too late, all others are.
        self.ended = !full && last < head;
        Ok(())
    }
}
