//! Places at which a test steps in: before a transaction takes its turn, and on either side of its
//! commit. There it can fail, wait, or end the process.
//!
//! Only with the feature `failpoints`; without it a [`Place`] holds nothing and does nothing. What
//! happens is said by a plan, which [`scope`] gives to a future (a simulation has many services in
//! one process), or else by the environment, once [`arm_from_environment`] was called.

crate::text_enum! {
    /// A transaction that takes its owner's turn, by what it is for.
    pub enum CommitPoint {
        /// Commands, with their answers.
        Commands = "commands",
        /// Events, with the checkpoint after them.
        Events = "events",
        /// The checkpoint alone, where nothing followed from what was read.
        Checkpoint = "checkpoint",
        /// Timers that came due.
        Timers = "timers",
        /// Dead letters that are tried again.
        Retries = "retries",
        /// The count of an attempt, before a message is tried by itself.
        Attempt = "attempt",
        /// An event that is parked for ending the process, or its batch, too often.
        ParkedEvent = "parked_event",
        /// A timer that is parked for the same.
        ParkedTimer = "parked_timer",
        /// What an operator wants done with a dead letter.
        Settlement = "settlement",
        /// The note that a run begins.
        RunBegun = "run_begun",
        /// The note that it ended cleanly.
        RunEnded = "run_ended",
        /// The notes of runs that did not, after the careful stretch.
        RunsForgotten = "runs_forgotten",
        /// Old answers.
        Pruning = "pruning",
        /// A page of an outbox, into the event store.
        Append = "append",
        /// The id of a new event store.
        Naming = "naming",
        /// Tables made anew.
        Rebuild = "rebuild",
        /// A consumer sent back to the beginning.
        Rewind = "rewind",
        /// The question whether a commit took place whose answer was lost; it commits nothing.
        Inquiry = "inquiry",
    }
}

crate::text_enum! {
    /// Where in a transaction.
    pub enum Moment {
        /// What it is about was read; it has no turn yet.
        Turn = "turn",
        /// Everything is decided, nothing is committed.
        Before = "before",
        /// Everything is committed, and nobody knows.
        After = "after",
    }
}

#[cfg(not(feature = "failpoints"))]
mod places {
    use super::{CommitPoint, Moment};

    /// A transaction of one owner: nothing, in this build.
    #[derive(Debug)]
    pub(crate) struct Place;

    impl Place {
        pub(crate) fn of(_: &'static str, _: CommitPoint) -> Self {
            Self
        }

        #[expect(clippy::unused_async, reason = "the same form as with the feature")]
        pub(crate) async fn reach(&self, _: Moment) -> Result<(), crate::sql::Error> {
            Ok(())
        }
    }
}

#[cfg(feature = "failpoints")]
mod places;

pub(crate) use places::Place;
#[cfg(feature = "failpoints")]
pub use places::{Action, BadFailpoint, Reached, VARIABLE, arm_from_environment, scope};
