//! Rows that units of work leave to the next ones of the same process, which need not load them again.
//!
//! No unit changes a row without an event, and what else changes rows (`rebuild`) adds a checkpoint. So
//! where outbox and checkpoints still end as they did, the rows are as they were left.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::database::{Database, Turn};
use crate::envelope_columns;
use crate::error::StoreError;
use crate::event::{EventId, Position};
use crate::failpoints::CommitPoint;
use crate::service::Service;
use crate::sql::{self, Answered, Statement};
use crate::tables::Tables as _;

/// What the last unit left.
pub(crate) struct KeptRows<S: Service>(Mutex<Option<Left<S>>>);

/// Rows, and the state of the database that they are of.
pub(crate) struct Left<S: Service> {
    pub(crate) tables: S::Tables,
    pub(crate) state: State,
}

/// What every unit asks first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Where the outbox ends.
    pub(crate) head: Position,
    /// The event there, if there is one.
    pub(crate) newest: Option<EventId>,
    /// The sequence of the newest checkpoint.
    pub(crate) checkpoint: i64,
    /// Whether any lane is held back.
    pub(crate) lanes_held: bool,
    /// Whether attempts are counted of any message, by this run or by one that ended meanwhile.
    pub(crate) attempts_left: bool,
}

macro_rules! newest_event {
    () => {
        "coalesce((select id from outbox order by position desc limit 1), '')"
    };
}
macro_rules! newest_checkpoint {
    () => {
        "coalesce((select sequence from checkpoints order by sequence desc limit 1), 0)"
    };
}
macro_rules! a_held_lane {
    () => {
        "select 1 from dead_letters where status in ('parked', 'waiting', 'retrying')"
    };
}
macro_rules! an_attempt {
    () => {
        "select 1 from attempts"
    };
}

impl State {
    /// Asks for it.
    pub(crate) fn query() -> Statement {
        sql::query(concat!(
            "select coalesce((select position from outbox order by position desc limit 1), 0), ",
            newest_event!(),
            ", ",
            newest_checkpoint!(),
            ", (select count(*) from (",
            a_held_lane!(),
            " limit 1) as held), (select count(*) from (",
            an_attempt!(),
            " limit 1) as counted)"
        ))
    }

    /// The answer to that.
    pub(crate) fn read(answered: Answered) -> Result<Self, StoreError> {
        let (head, newest, checkpoint, lanes, attempts): (i64, String, i64, i64, i64) =
            answered.row()?;
        Ok(Self {
            head: Position(head),
            newest: envelope_columns::parse_id_if_any(&newest)?,
            checkpoint,
            lanes_held: lanes > 0,
            attempts_left: attempts > 0,
        })
    }

    /// Whether a unit may be decided before it has its turn, if the state is still this one then.
    pub(crate) fn is_calm(&self) -> bool {
        !self.lanes_held && !self.attempts_left
    }

    /// Refuses everything behind it unless this calm state is still the present one.
    pub(crate) fn expect(&self) -> Statement {
        sql::expect(concat!(
            "/* if this divides by zero, another process was faster: the unit is decided anew */ ",
            "select 1 / (case when ",
            newest_event!(),
            " = $1 and ",
            newest_checkpoint!(),
            " = $2 ",
            "and not exists (",
            a_held_lane!(),
            ") and not exists (",
            an_attempt!(),
            ") ",
            "then 1 else 0 end)"
        ))
        .bind(self.newest.as_ref().map(ToString::to_string).unwrap_or_default())
        .bind(self.checkpoint)
    }

    /// Takes the turn if this is still the present state.
    pub(crate) async fn take_turn(
        &self,
        database: &Database,
        point: CommitPoint,
    ) -> Result<Turn, StoreError> {
        let (turn, mut answers) = database.take_turn_and(point, vec![Self::query()]).await?;
        let found = Self::read(answers.pop().unwrap_or_default())?;
        if found == *self {
            return Ok(turn);
        }
        turn.rollback().await?;
        Err(StoreError::Overtaken)
    }

    /// Whether rows are the same in both: every change of rows changes one of these.
    pub(crate) fn has_rows_of(&self, other: &Self) -> bool {
        (self.newest, self.checkpoint) == (other.newest, other.checkpoint)
    }
}

impl<S: Service> fmt::Debug for KeptRows<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRows").finish_non_exhaustive()
    }
}

impl<S: Service> Default for KeptRows<S> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<S: Service> KeptRows<S> {
    /// Takes what was left, if anything was.
    pub(crate) fn take(&self) -> Option<Left<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Forgets what was left.
    pub(crate) fn forget(&self) {
        drop(self.take());
    }

    /// Leaves the rows of a unit, of the state that it left behind, or leaves once it is committed.
    pub(crate) fn leave(&self, mut tables: S::Tables, state: State) {
        tables.settle();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Left { tables, state });
    }
}
