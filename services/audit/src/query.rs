//! What can be asked of the event store, and how it is found.

use std::str::FromStr;

use utoipa::IntoParams;
use utoipa::openapi::Schema;
use utoipa::openapi::schema::{
    KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, SchemaType, Type,
};
use uuid::Uuid;
use waybill_contract::{OrderId, Text};
use waybill_runtime::{EventId, EventStore, Filter, Position, StoreError, Timestamp, text_enum};
use waybill_web::{ByPosition, Filters, QueryFields};

text_enum! {
    /// Which end of the event store comes first.
    pub(crate) enum Direction {
        /// The oldest.
        Ascending = "asc",
        /// The newest.
        Descending = "desc",
    }
}

/// Which events are asked for.
#[derive(Clone, Debug)]
pub(crate) struct EventQuery {
    order_id: Option<Uuid>,
    correlation_id: Option<Uuid>,
    stream: Option<Text>,
    kind: Option<Text>,
    source: Option<Text>,
    since: Option<Moment>,
    until: Option<Moment>,
    /// Only positions after this one.
    pub(crate) after: Option<Place>,
    direction: Option<Direction>,
}

impl Filters for EventQuery {
    type Place = ByPosition;

    fn take(query: &mut QueryFields) -> Self {
        let direction = query.optional("direction");
        Self { direction, ..Self::take_undirected(query) }
    }
}

impl EventQuery {
    fn take_undirected(query: &mut QueryFields) -> Self {
        Self {
            order_id: query.optional("order_id").map(|OrderId(id)| id),
            correlation_id: query.optional("correlation_id").map(|EventId(id)| id),
            stream: query.optional("stream"),
            kind: query.optional("type"),
            source: query.optional("source"),
            since: query.optional("since"),
            until: query.optional("until"),
            after: query.optional("after"),
            direction: None,
        }
    }

    /// Whether the newest come first.
    pub(crate) fn newest_first(&self) -> bool {
        self.direction == Some(Direction::Descending)
    }

    /// The filter that finds them. Times become positions, which times follow.
    pub(crate) async fn filter(&self, store: &EventStore) -> Result<Filter, StoreError> {
        let mut filter = Filter {
            correlation: self.order_id.or(self.correlation_id).map(|id| id.to_string()),
            stream: self.stream.as_ref().map(ToString::to_string),
            kind: self.kind.as_ref().map(ToString::to_string),
            source: self.source.as_ref().map(|source| source_name(source.as_str())),
            after: self.after.map_or(Position(0), |Place(position)| position),
            newest_first: self.newest_first(),
            ..Filter::default()
        };
        if let Some(Moment(since)) = self.since {
            let before = store.position_at(Timestamp(since.0.saturating_sub(1))).await?;
            filter.after = filter.after.max(before);
        }
        if let Some(Moment(until)) = self.until {
            filter.before = store.position_at(until).await?.next();
        }
        if self.order_id.is_some_and(|order| self.correlation_id.is_some_and(|c| c != order)) {
            // Nothing belongs to two things.
            filter.before = Position(0);
        }
        Ok(filter)
    }
}

/// Events name their source by its path; here the bare name of the service does as well.
fn source_name(source: &str) -> String {
    source.strip_prefix("/services/").unwrap_or(source).to_owned()
}

/// The filters of a stream, which has one direction only.
#[derive(Clone, Debug)]
pub(crate) struct StreamQuery {
    /// All but the end: events up to then may still come.
    pub(crate) events: EventQuery,
    /// Only what was recorded by this time.
    pub(crate) until: Option<Moment>,
}

impl Filters for StreamQuery {
    type Place = ByPosition;

    fn take(query: &mut QueryFields) -> Self {
        let mut events = EventQuery::take_undirected(query);
        Self { until: events.until.take(), events }
    }
}

/// A position, as a text gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) Position);

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let position = text.parse().ok().filter(|_| digits);
        position
            .map(|position| Self(Position(position)))
            .ok_or("must be a position: a whole number")
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A time, as a text gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        // A plus sign that was not escaped arrives as a space.
        let time = Timestamp::parse(&text.replace(' ', "+"));
        time.map(Self).ok_or("must be an RFC 3339 time, such as 2026-11-21T10:00:00Z")
    }
}

/// A position or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Right after this position.
    Position(Position),
    /// After the last position recorded by then.
    Time(Timestamp),
}

impl FromStr for At {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Ok(Place(position)) = text.parse() {
            return Ok(Self::Position(position));
        }
        let moment: Moment = text.parse().map_err(|_| "must be a position or an RFC 3339 time")?;
        Ok(Self::Time(moment.0))
    }
}

/// The query of an order's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateQuery(pub(crate) Option<At>);

impl Filters for StateQuery {
    type Place = ByPosition;

    fn take(query: &mut QueryFields) -> Self {
        Self(query.optional("at"))
    }
}

/// The filters of events, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only describes the query")]
pub(crate) struct EventParams {
    /// Only what follows from this order.
    #[param(required = false, format = "uuid")]
    order_id: String,
    /// Only what belongs together: to an order, or to a product's or user's first event.
    #[param(required = false, format = "uuid")]
    correlation_id: String,
    /// Only one stream, such as `order-{id}`.
    #[param(required = false, value_type = Text)]
    stream: String,
    /// Only events of one name, such as `order.placed`.
    #[param(required = false, value_type = Text)]
    r#type: String,
    /// Only what one service wrote, such as `order`.
    #[param(required = false, value_type = Text)]
    source: String,
    /// Only what was recorded at this time or later.
    #[param(required = false, format = "date-time")]
    since: String,
    /// Only what was recorded by this time.
    #[param(required = false, format = "date-time")]
    until: String,
    /// Only positions after this one.
    #[param(required = false, minimum = 0)]
    after: i64,
}

/// The direction of a list of events, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only describes the query")]
pub(crate) struct DirectionParam {
    /// Which end comes first: `asc` (the oldest, if not said) or `desc`.
    #[param(required = false, pattern = "^(asc|desc)$")]
    direction: String,
}

/// The query of an order's state, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only describes the query")]
pub(crate) struct AtParam {
    /// A position, or an RFC 3339 time: the last position recorded by then. Now, if not said.
    #[param(required = false, example = "42", schema_with = position_or_time)]
    at: String,
}

fn position_or_time() -> Schema {
    let position = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .minimum(Some(0))
        .maximum(Some(i64::MAX));
    let time = ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    Schema::OneOf(OneOfBuilder::new().item(position).item(time).build())
}
