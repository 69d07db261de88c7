//! What Waybill's services run on: `decide` and `evolve`, and everything that carries them out.
//!
//! A service is pure functions over messages and rows ([`Service`]). The runtime takes a batch of
//! messages, loads the rows they concern, decides in memory, in order, and commits rows, outbox,
//! checkpoint, answers and timers together. Writers take turns, so logs have no gaps and become
//! visible in order, on SQLite and on Postgres alike.
//!
//! # Layout, in reading order
//! - [`Service`], [`Message`], [`Context`]: what a service is.
//! - [`Row`], [`Table`], [`Tables`]: its tables, each the fold of its outbox.
//! - [`Event`], [`Envelope`]: what it says happened.
//! - `unit`: one unit of work; the heart.
//! - [`Writer`], [`Relay`]: the loops, as steps that a test can call. `newest`: what they hand on.
//! - [`EventStore`]: the log that all read.
//! - `answers`, `checkpoint`, `timers`, `dead_letters`, `outbox`: a table each, with its SQL.
//! - [`Runtime`], [`Handle`]: a process that runs services, and what its routes hold of them.
//! - [`fold`]: rebuild, rewind and verify.
//! - `measure`, `counts`: what the metrics tell. [`trace`]: what traces tell.
//! - `database`: the one home of what differs between the two databases. `connections`: lends them.
//!   `sql`: statements and their answers.
//! - `failpoints`: where tests step in; nothing in a build for use.
//! - `migrate`, [`Role`]: their tables, and who may do what with them.
//! - [`limits`]: every bound.

mod answers;
mod checkpoint;
mod clock;
mod command;
mod connections;
mod core;
mod counts;
mod database;
mod dead_letters;
mod envelope_columns;
mod error;
mod event;
mod event_store;
pub mod failpoints;
pub mod fold;
mod gauges;
mod growth;
mod handle;
mod health;
mod kept;
mod lately;
pub mod limits;
mod measure;
mod migrate;
mod newest;
mod notify;
mod outbox;
mod relay;
mod roles;
mod row;
mod rows;
mod runs;
mod runtime;
mod sealed;
mod service;
mod sql;
mod steps;
mod streams;
mod tables;
mod timers;
pub mod trace;
mod unit;
mod writer;
mod writes;

pub use clock::{Clock, Ids, ManualClock, Timestamp};
pub use command::{CommandError, Outcome, Request, RequestKey};
pub use counts::RowCounts;
pub use database::{Database, Dialect, FolderLock, LEAST_SQLITE, Location, OpenError};
pub use dead_letters::{DeadLetter, DeadLetterStatus, Settled};
pub use error::{Divergence, StoreError};
pub use event::{DecodeError, Envelope, Event, EventId, Position, Recorded, Version};
pub use event_store::{Anchor, Appended, Cursor, EventStore, Filter, Pages, StoredEvent};
pub use handle::{Handle, Progress, Readings};
pub use health::{Health, LoopHealth};
pub use measure::describe_metrics;
pub use migrate::{Migration, Migrations, SchemaError};
pub use outbox::OutboxEvent;
pub use relay::Relay;
pub use roles::Role;
pub use row::{
    BadCell, Cell, Column, Counted, Direction, Evolve, Json, Kind, List, Listed, Row, cell,
};
pub use runtime::Runtime;
pub use service::{Answer, Context, Message, Service, TimerChange};
pub use sql::Error as DatabaseError;
pub use steps::Steps;
pub use tables::{Table, Tables, Visitor};
pub use writer::{Step, Writer};
