//! What was reached: a run proves nothing about a branch that it never took.

use std::collections::BTreeMap;
use std::fmt;

use waybill_runtime::failpoints::{CommitPoint, Moment};
use waybill_runtime::text_enum;

text_enum! {
    /// A rare branch of the system or of its surroundings.
    pub enum Branch {
        /// A replica ended between two of its steps.
        Crashed = "a replica crashed between steps",
        /// Every replica ended at once.
        AllCrashed = "everything crashed at once",
        /// A replica was asked to stop.
        Stopped = "a replica stopped cleanly",
        /// A second replica of a service began.
        SecondReplica = "a second replica started",
        /// A replica went on after another of its service had changed something.
        WokeLate = "a paused replica woke after another had gone on",
        /// A relay paused, and another one had appended when it woke.
        RelayWokeLate = "a paused relay woke after another had appended",
        /// A clock was set back.
        ClockBack = "a clock went back",
        /// A clock was set ahead.
        ClockAhead = "a clock jumped ahead",
        /// The event store was lost, and refilled from the outboxes.
        StoreLost = "the event store was lost",
        /// The event store was restored from an older copy.
        StoreRestored = "the event store was restored older",
        /// A consumer refused an event store that is not the one it knows.
        Refused = "a consumer refused another history",
        /// A consumer was sent back to the beginning.
        Rewound = "a consumer was rewound",
        /// An event of another service could not be read.
        Unreadable = "an unreadable event was met",
        /// An event made the service panic.
        Panicked = "an event made a service panic",
        /// A timer made the service panic.
        TimerPanicked = "a timer made a service panic",
        /// A command made the service panic.
        CommandPanicked = "a command made a service panic",
        /// A message took the process down.
        Deadly = "a message took its process down",
        /// Such a message was parked in the end.
        ParkedDeadly = "a message was parked after ending the process",
        /// A message waited behind a parked one of its lane.
        Waited = "a message waited behind a parked one",
        /// A dead letter was handled after all.
        Revived = "a dead letter was handled on retry",
        /// A retried dead letter failed again.
        FailedAgain = "a dead letter failed again on retry",
        /// A dead letter was given up.
        Discarded = "a dead letter was discarded",
        /// A client repeated a request and got the stored answer.
        AnsweredAgain = "a repeated request got its stored answer",
        /// A client was told that the outcome is unknown.
        UnknownOutcome = "a client heard of an unknown outcome",
        /// A client was told that the database does not answer.
        Unavailable = "a client heard that nothing was done",
        /// A client went away before the answer.
        HungUp = "a client hung up",
        /// A key was used for another request.
        KeyReused = "a key was refused for another request",
        /// A command was made for an older version.
        Stale = "a command was stale",
        /// A command was refused.
        Refusal = "a command was refused",
        /// A cancel came too late.
        TooLate = "a cancel came too late",
        /// The carrier reported on a parcel that had ended or not left.
        OutOfOrder = "a carrier reported out of order",
        /// The carrier reported the same again.
        ReportedTwice = "a carrier reported twice",
        /// An order was completed.
        Completed = "an order was completed",
        /// An order was rejected for its stock.
        OutOfStock = "an order was rejected: out of stock",
        /// An order was rejected for its payment.
        Declined = "an order was rejected: payment declined",
        /// An order was cancelled while placed.
        CancelledPlaced = "an order was cancelled while placed",
        /// An order was cancelled once confirmed.
        CancelledConfirmed = "an order was cancelled once confirmed",
        /// An order was completed although its customer had asked to cancel it.
        CancelLost = "a requested cancel lost against the parcel",
        /// An order came to its deadline.
        Expired = "an order expired",
        /// An order's parcel failed.
        ShipmentFailed = "an order's parcel failed",
        /// Reserved stock was set free.
        StockReleased = "reserved stock was released",
        /// Shipped stock came back.
        StockReturned = "shipped stock was returned",
        /// An order's end came to inventory before its beginning.
        StockTombstone = "inventory heard an end first",
        /// Held money was set free.
        MoneyReleased = "held money was released",
        /// Spent money came back.
        MoneyRefunded = "spent money was refunded",
        /// An order's end came to user before its beginning.
        MoneyTombstone = "user heard an end first",
    }
}

text_enum! {
    /// What happens inside a step.
    pub enum Fault {
        /// The database goes away before the step's turn.
        NoTurn = "no turn",
        /// The commit fails.
        NoCommit = "no commit",
        /// The commit takes place and its answer is lost.
        LostAnswer = "answer lost",
        /// The process ends before the turn is taken.
        EndBeforeTurn = "end before turn",
        /// The process ends right before the commit.
        EndBeforeCommit = "end before commit",
        /// The process ends right after the commit.
        EndAfterCommit = "end after commit",
        /// The replica pauses between its read and its turn.
        PauseBeforeTurn = "pause before turn",
        /// The replica pauses between its commit and what it does next.
        PauseAfterCommit = "pause after commit",
    }
}

impl Fault {
    /// Where in a transaction it happens.
    pub(crate) fn moment(self) -> Moment {
        match self {
            Self::NoTurn | Self::EndBeforeTurn | Self::PauseBeforeTurn => Moment::Turn,
            Self::NoCommit | Self::EndBeforeCommit => Moment::Before,
            Self::LostAnswer | Self::EndAfterCommit | Self::PauseAfterCommit => Moment::After,
        }
    }
}

/// What one run, or many, came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Runs.
    pub seeds: u64,
    /// Steps taken.
    pub steps: u64,
    /// Orders placed.
    pub orders: u64,
    /// Events in the event store.
    pub events: u64,
    /// Time that passed in the simulated world, in microseconds.
    pub micros: i64,
    branches: BTreeMap<Branch, u64>,
    faults: BTreeMap<(CommitPoint, Fault), u64>,
}

/// The transactions whose faults must all be reached. The others are made by hand (rebuild, rewind),
/// once for each event store (naming), without the plan of a step (settlement), write nothing
/// (inquiry), or have nothing to write in the time of a run (pruning).
const FAULTY: &[CommitPoint] = &[
    CommitPoint::Commands,
    CommitPoint::Events,
    CommitPoint::Checkpoint,
    CommitPoint::Timers,
    CommitPoint::Retries,
    CommitPoint::Attempt,
    CommitPoint::ParkedEvent,
    CommitPoint::RunBegun,
    CommitPoint::RunEnded,
    CommitPoint::RunsForgotten,
    CommitPoint::Append,
];

/// One of the faults that must be reached.
pub(crate) fn nth_fault(number: u64) -> (CommitPoint, Fault) {
    let faults = Fault::ALL.len();
    let number = usize::try_from(number % 1_000_000).unwrap_or(0) % (FAULTY.len() * faults);
    (FAULTY[number / faults], Fault::ALL[number % faults])
}

impl Tally {
    /// Of one run, that has just begun.
    pub(crate) fn of_one() -> Self {
        Self { seeds: 1, ..Self::default() }
    }

    pub(crate) fn reach(&mut self, branch: Branch) {
        *self.branches.entry(branch).or_default() += 1;
    }

    pub(crate) fn fault(&mut self, point: CommitPoint, fault: Fault) {
        *self.faults.entry((point, fault)).or_default() += 1;
    }

    /// Adds what other runs came to.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.orders += other.orders;
        self.events += other.events;
        self.micros += other.micros;
        for (branch, count) in &other.branches {
            *self.branches.entry(*branch).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }

    /// The branches, and the faults of each transaction, that were never reached.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let branches = Branch::ALL.iter().filter(|branch| !self.branches.contains_key(branch));
        let faults =
            FAULTY.iter().flat_map(|point| Fault::ALL.iter().map(|fault| (*point, *fault)));
        let faults = faults.filter(|fault| !self.faults.contains_key(fault));
        let faults = faults.map(|(point, fault)| format!("{point}: {fault}"));
        branches.map(ToString::to_string).chain(faults).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.micros / 3_600_000_000;
        writeln!(f, "{:>12} seeds", self.seeds)?;
        writeln!(f, "{:>12} steps", self.steps)?;
        writeln!(f, "{:>12} orders", self.orders)?;
        writeln!(f, "{:>12} events", self.events)?;
        writeln!(f, "{hours:>12} simulated hours")?;
        for branch in Branch::ALL {
            writeln!(f, "{:>12} {branch}", self.branches.get(branch).unwrap_or(&0))?;
        }
        for fault in Fault::ALL {
            let of = |point: &CommitPoint| self.faults.get(&(*point, *fault)).unwrap_or(&0);
            let each: Vec<String> = CommitPoint::ALL
                .iter()
                .filter(|point| *of(point) > 0)
                .map(|p| format!("{p} {}", of(p)))
                .collect();
            let total: u64 = CommitPoint::ALL.iter().map(of).sum();
            writeln!(f, "{total:>12} {fault}: {}", each.join(", "))?;
        }
        Ok(())
    }
}
