//! What a service is: pure functions over messages and rows.

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{DecodeError, Envelope, Event, Position, Version};
use crate::migrate::Migration;
use crate::tables::Tables;

/// A service: what it owns, hears and decides. Everything here is pure; the runtime carries it out.
pub trait Service: Sized + Send + Sync + 'static {
    /// Its name: of its folder, its schema or file, and its event source.
    const NAME: &'static str;
    /// The names of the events it hears from others.
    const HEARS: &'static [&'static str];
    /// Its own tables, as SQL for both databases; versions from 2001.
    const MIGRATIONS: &'static [Migration];
    /// What people who query Postgres by hand get beside them; versions from 3001.
    const POSTGRES_MIGRATIONS: &'static [Migration] = &[];

    /// Its tables, each the fold of its outbox.
    type Tables: Tables<Event = Self::Event>;
    /// The events it writes.
    type Event: Event;
    /// What it understands of what others write.
    type Heard: Debug + Send + Sync;
    /// What it is asked to do.
    type Command: Debug + Send + Sync;
    /// What it asks to be reminded of.
    type Timer: Debug + Serialize + DeserializeOwned + Send + Sync;
    /// Why it may say no.
    type Refusal: std::error::Error + Send + Sync + 'static;
    /// What an operator may set.
    type Settings: Debug + Send + Sync;

    /// Reads an event of another service.
    fn hear(envelope: &Envelope) -> Result<Self::Heard, DecodeError>;

    /// Asks for the rows that the message concerns.
    ///
    /// Called again after each load until it asks for nothing new, so a row may lead to further ones.
    fn concerns(message: &Message<Self>, tables: &mut Self::Tables);

    /// What follows from the message: events, none if nothing does, or a refusal.
    fn decide(
        message: &Message<Self>,
        tables: &Self::Tables,
        context: &Context<'_, Self>,
    ) -> Result<Vec<Self::Event>, Self::Refusal>;

    /// The timers that an event of this service sets or clears.
    fn timers(event: &Self::Event) -> Vec<TimerChange<Self::Timer>>;

    /// The version of the resource that the command is about, if there is one yet.
    fn version(command: &Self::Command, tables: &Self::Tables) -> Option<Version>;

    /// The answer to a command that was not refused, from the rows as they are then.
    fn answer(
        command: &Self::Command,
        tables: &Self::Tables,
        context: &Context<'_, Self>,
    ) -> Answer;
}

/// What reaches a service.
#[derive(Debug)]
pub enum Message<S: Service> {
    /// Somebody asks for something.
    Command(S::Command),
    /// Another service says what happened.
    Heard(S::Heard),
    /// A timer of this service came due.
    Due(S::Timer),
}

/// What a decision may use that is not in the rows.
#[derive(Debug)]
pub struct Context<'a, S: Service> {
    /// The time of the decision.
    pub now: Timestamp,
    /// An id that nobody else was given, for what the message brings into being.
    pub fresh_id: Uuid,
    /// The place in the outbox of the first event that follows; unique, without gaps.
    pub position: Position,
    /// What the operator set.
    pub settings: &'a S::Settings,
}

/// A change to a service's timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerChange<T> {
    /// Remind me at this time; replaces a timer of the same key.
    Set {
        /// Names the timer.
        key: String,
        /// When it comes due.
        due_at: Timestamp,
        /// What comes back then.
        timer: T,
    },
    /// It is not needed any more, or it fired.
    Clear {
        /// Names the timer.
        key: String,
    },
}

/// A positive answer, stored under the request's idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The HTTP status, 200 or 201.
    pub status: u16,
    /// Where the new resource is found; empty if nothing new.
    pub location: String,
    /// The version of the resource in `body`.
    pub version: Version,
    /// The resource, as JSON.
    pub body: String,
}

impl Answer {
    /// An answer that shows a resource.
    pub fn ok(version: Version, resource: &impl Serialize) -> Self {
        Self { status: 200, location: String::new(), version, body: json(resource) }
    }

    /// An answer that shows a new resource and where it is.
    pub fn created(location: String, version: Version, resource: &impl Serialize) -> Self {
        Self { status: 201, location, version, body: json(resource) }
    }
}

fn json(resource: &impl Serialize) -> String {
    // Resources are plain structures, which always have a JSON form.
    serde_json::to_string(resource).unwrap_or_default()
}
