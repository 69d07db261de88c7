//! An event: what a service says happened, and the envelope it travels in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::Timestamp;

/// The identity of one event, wherever it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EventId {
    type Err = &'static str;

    /// Only the hyphenated form, so that one id has one text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
        id.map(Self).ok_or("must be a UUID with hyphens")
    }
}

crate::text_columns!(EventId);

/// A place in a log, counted from 1; 0 is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub i64);

impl Position {
    /// The place right after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place `count` after this one.
    #[must_use]
    pub fn plus(self, count: usize) -> Self {
        Self(self.0.saturating_add(i64::try_from(count).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often something changed: of a stream its events, of a row the events that touched it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub i64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a service says happened: a past-tense fact with a published name and form.
pub trait Event: Sized + Clone + Send + Sync + 'static {
    /// The published name, such as `order.placed`.
    fn kind(&self) -> &'static str;
    /// The version of the form of `data`, raised when it changes its meaning.
    fn schema(&self) -> i64;
    /// The stream it belongs to, such as `order-{id}`.
    fn stream(&self) -> String;
    /// The order it follows from, if it follows from one.
    fn order(&self) -> Option<Uuid>;
    /// Its data as JSON.
    fn encode(&self) -> Result<String, serde_json::Error>;
    /// Reads an event of the given name and form.
    fn decode(kind: &str, schema: i64, data: &str) -> Result<Self, DecodeError>;
}

/// Why stored bytes are not an event that this build knows.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No event of that name and form is known here.
    #[error("event {kind} with form {schema} is not known to this version")]
    Unknown {
        /// The event's name.
        kind: String,
        /// The version of its form.
        schema: i64,
    },
    /// The name is known, the data does not fit it.
    #[error("the data of event {kind} does not fit its form: {cause}")]
    Malformed {
        /// The event's name.
        kind: String,
        /// What does not fit.
        cause: serde_json::Error,
    },
}

/// An event of a service's own outbox as `evolve` sees it.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a, E> {
    /// The event's identity.
    pub id: EventId,
    /// When it was decided.
    pub time: Timestamp,
    /// What happened.
    pub event: &'a E,
}

/// An event with all that travels with it: a `CloudEvent` 1.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The event's identity.
    pub id: EventId,
    /// The service that wrote it.
    pub source: String,
    /// Its name, such as `order.placed`.
    pub kind: String,
    /// The version of the form of `data`.
    pub schema: i64,
    /// The stream it belongs to.
    pub stream: String,
    /// Its place in that stream, from 1.
    pub version: Version,
    /// When it was decided.
    pub time: Timestamp,
    /// What it belongs to: an order's id, or the first event of a product or a user.
    pub correlation: String,
    /// What caused it: the id of an event, or of the HTTP command.
    pub causation: String,
    /// Who asked for it.
    pub actor: String,
    /// W3C trace context, or empty.
    pub traceparent: String,
    /// Its data, the exact bytes that were first written.
    pub data: String,
}

impl Envelope {
    /// About how many bytes it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.data.len() + 200
    }
}

/// The JSON form of an [`Envelope`] that `CloudEvents` 1.0.2 defines.
#[derive(Debug, Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: EventId,
    source: String,
    r#type: &'a str,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    dataschema: String,
    streamversion: Version,
    correlationid: &'a str,
    causationid: &'a str,
    actor: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    traceparent: &'a str,
    data: &'a RawValue,
}

impl Envelope {
    /// The event as a `CloudEvent` in JSON, `data` byte for byte as stored.
    pub fn cloud_event(&self) -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(&CloudEvent {
            specversion: "1.0",
            id: self.id,
            source: format!("/services/{}", self.source),
            r#type: &self.kind,
            subject: &self.stream,
            time: self.time.rfc3339(),
            datacontenttype: "application/json",
            dataschema: format!("urn:waybill:event:{}:{}", self.kind, self.schema),
            streamversion: self.version,
            correlationid: &self.correlation,
            causationid: &self.causation,
            actor: &self.actor,
            traceparent: &self.traceparent,
            data: serde_json::from_str(&self.data)?,
        })
    }
}
