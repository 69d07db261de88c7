//! Why the runtime could not do what it was asked.

use crate::event::Position;
use crate::row::BadCell;
use crate::sql::Error;

/// Why a read or a unit of work did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, or not in time. Nothing is wrong with what it was asked.
    #[error("the database does not answer: {0}")]
    Unavailable(#[source] Error),
    /// The database refuses what it was given.
    #[error("the database refuses the data: {0}")]
    Data(#[source] Error),
    /// A commit was sent and its outcome could not be learned in time.
    #[error("it is not known whether the commit took place")]
    UnknownOutcome,
    /// What was decided ahead of its turn was not committed, and is to be decided anew: another process
    /// was faster, or the connection was cut.
    #[error("what was decided ahead of its turn does not hold in it")]
    Overtaken,
    /// A stored row is not one of its table's type.
    #[error(transparent)]
    BadRow(#[from] BadCell),
    /// A value has no JSON form.
    #[error("a value has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
    /// Events of this service's own outbox cannot be read.
    #[error("the outbox cannot be read at position {position}: {cause}")]
    Undecodable {
        /// Where.
        position: Position,
        /// Why.
        cause: crate::event::DecodeError,
    },
    /// The event store is not the one that this service knows, or a service is not the one that
    /// the event store knows. Only an operator can say which is right.
    #[error("{0}")]
    Diverged(Divergence),
    /// The rows cannot be listed by these columns.
    #[error("{table} cannot be listed by {filters}")]
    NoSuchList {
        /// The table.
        table: &'static str,
        /// The columns asked for.
        filters: String,
    },
}

/// Two histories that should agree and do not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// The consumer's checkpoint was made in another event store.
    #[error(
        "{service} was reading event store {known}, this one is {found}; \
         if that is right, stop and run `waybill rewind {service}`"
    )]
    OtherLog {
        /// Whose checkpoint it is.
        service: &'static str,
        /// The event store it was made in.
        known: String,
        /// The one that answers now.
        found: String,
    },
    /// The event store ends before where the checkpoint points, or holds another history up to it.
    #[error(
        "{service} has read the event store up to position {position}, which does not hold the same \
         events up to there any more; if it was restored from a backup, stop and run \
         `waybill rewind {service}`"
    )]
    OtherPosition {
        /// Whose checkpoint it is.
        service: &'static str,
        /// Where it points.
        position: Position,
    },
    /// A service's outbox has a gap, which only tampering or a damaged disk can make.
    #[error(
        "the outbox of {service} holds no event at position {position}, but later ones; \
         restore it from a backup"
    )]
    OutboxGap {
        /// Whose outbox it is.
        service: String,
        /// The position without an event.
        position: Position,
    },
    /// The event store holds events of a service that the service itself does not.
    #[error(
        "the event store holds {service}'s events up to {known}, its own outbox does not: \
         it ends at {head} or holds another event there; restore {service} from a newer backup"
    )]
    OlderService {
        /// Whose outbox it is.
        service: String,
        /// The outbox position that the event store has seen.
        known: Position,
        /// Where the outbox ends.
        head: Position,
    },
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::Overtaken => Self::Overtaken,
            data if data.is_about_data() => Self::Data(data),
            other => Self::Unavailable(other),
        }
    }
}

impl StoreError {
    /// Whether the values at hand are to blame: others of the same batch may do well without them.
    #[must_use]
    pub fn is_about_data(&self) -> bool {
        matches!(self, Self::Data(_) | Self::BadRow(_) | Self::Json(_))
    }

    /// Whether it may go away by itself.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::UnknownOutcome)
    }
}
