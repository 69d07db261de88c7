//! The runtime.

mod clock;
mod command;
mod error;
mod event;
mod handle;
mod health;
pub mod limits;
mod migrate;
mod row;
mod service;
mod tables;

pub use clock::{Clock, Ids, ManualClock, Timestamp};
pub use command::{CommandError, Outcome, Request, RequestKey};
pub use error::{Divergence, StoreError};
pub use event::{DecodeError, Envelope, Event, EventId, Position, Recorded, Version};
pub use handle::{ConsumerStatus, DeadLetter, Handle, OutboxStatus, Settled};
pub use health::{Health, LoopHealth};
pub use migrate::Migration;
pub use row::{BadCell, Cell, Column, Direction, Evolve, Json, Kind, List, Listed, Row, cell};
pub use service::{Answer, Context, Message, Service, TimerChange};
pub use tables::{Table, Tables, Visitor};
