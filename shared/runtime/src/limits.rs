//! Every bound of the runtime, with its unit in its name or type.

use std::time::Duration;

/// Commands that wait for a service's writer; one more is refused with "busy".
pub const COMMAND_QUEUE: usize = 1_024;
/// Commands of one unit of work.
pub const UNIT_COMMANDS: usize = 100;
/// Units of commands, each decided while the one before it is being committed, before a service looks for
/// anything else.
pub const COMMAND_UNITS: usize = 64;
/// For how long it begins further ones.
pub const COMMANDS_ALONE: Duration = Duration::from_millis(500);
/// Messages of one unit of work when nobody waits for an answer, and rows of an outbox that a relay
/// appends in one.
pub const UNIT_MESSAGES: usize = 1_000;
/// A unit of events or timers that held its turn for longer than this halves the next one that makes
/// commands wait.
pub const LONG_TURN: Duration = Duration::from_millis(25);
/// The smallest size that halving reaches.
pub const UNIT_MESSAGES_MIN: usize = 10;
/// From so many messages on, a loop that has caught up gathers more before it goes on.
pub const GATHER_FROM: usize = 10;
/// For how long, for each message that it had: the more come, the more does waiting for them save.
pub const GATHER_EACH: Duration = Duration::from_micros(200);
/// For how long at most a writer does, whose units cost more than their messages.
pub const GATHER_HEARD: Duration = Duration::from_millis(100);
/// For how long at most a relay does: a long append is felt by commands that are committed beside it.
pub const GATHER_TOLD: Duration = Duration::from_millis(5);
/// Positions that one read of the log covers, for each message it may return.
pub const LOG_WINDOW_FACTOR: usize = 4;
/// Events or rows that a fold (rebuild, verify) holds at once.
pub const FOLD_PAGE: usize = 2_000;
/// Pages that wait for whoever works on them while further ones are read.
pub const PAGES_AHEAD: usize = 2;
/// Events that one audit answer may hold for one order.
pub const HISTORY_EVENTS: usize = 2_000;
/// Events of a log that a process keeps in memory for those who come next: of the event store, and of each outbox
/// what its relay has not taken.
pub const NEWEST_EVENTS: usize = 12_288;
/// Bytes of them, about.
pub const NEWEST_BYTES: usize = 10 << 20;
/// Rows of each table that a writer keeps in memory from one unit to the next.
pub const ROWS_KEPT: usize = 4_096;
/// Streams of which a writer knows how many events they have.
pub const STREAMS_KEPT: usize = 8_192;
/// Idempotency keys that a writer knows to have answers.
pub const KEYS_KEPT: usize = 4_096;
/// Items of one page over HTTP.
pub const PAGE_MAX: usize = 200;
/// How long a wake-up may be missing before a loop looks by itself.
pub const POLL: Duration = Duration::from_secs(1);
/// How long a checkpoint may lag behind what was read without effect.
pub const CHECKPOINT_SAVE: Duration = Duration::from_secs(1);
/// Checkpoint rows kept behind the newest; older ones are pruned this many at a time.
pub const CHECKPOINTS_KEPT: i64 = 64;
/// How long it may take until a process listens to the others' notifications.
pub const LISTEN: Duration = Duration::from_secs(10);
/// Times an event may take the process or a whole batch down before it is parked.
pub const ATTEMPTS: i64 = 3;
/// Messages of one step while each goes by itself.
pub const CAREFUL_MESSAGES: usize = 20;
/// First and longest pause of a loop whose database does not answer.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// See [`BACKOFF_FIRST`].
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(1);
/// How long a commit whose answer was lost is looked for before callers hear "unknown".
pub const RESOLVE_COMMIT: Duration = Duration::from_secs(10);
/// How long it may take to be lent a connection, all waiting and opening included.
pub const ACQUIRE: Duration = Duration::from_secs(3);
/// How long a connection that comes back may take to answer, or to be closed; shorter than
/// [`ACQUIRE`], so that whoever waits for its place still gets it.
pub const RELEASE: Duration = Duration::from_secs(2);
/// A connection of a loop to a server is asked for a sign of life first if nobody used it for this long.
pub const IDLE_TRUSTED: Duration = Duration::from_secs(1);
/// How long that sign of life may take.
pub const PROBE: Duration = Duration::from_secs(1);
/// How long a connection to a server is kept that nobody uses.
pub const IDLE_KEPT: Duration = Duration::from_mins(10);
/// How long a database that is being closed waits for connections that are in use.
pub const CLOSE: Duration = Duration::from_secs(2);
/// How long a read may take, all waiting included; longer than the database lets it run.
pub const READ: Duration = Duration::from_secs(15);
/// How long a step may take, all waiting included; longer than [`RESOLVE_COMMIT`] and a turn.
pub const STEP: Duration = Duration::from_secs(20);
/// Connections that write, per owner; on SQLite always one.
pub const WRITE_CONNECTIONS: u16 = 2;
/// Connections with which loops read what is new or due, per owner. Each read is short, and no loop has two.
pub const FOLLOW_CONNECTIONS: u16 = 2;
/// Connections that read for requests, counts and folds, per owner; of the event store also for what loops look at
/// now and then.
pub const READ_CONNECTIONS: u16 = 4;
/// Statements that a connection keeps prepared.
pub const STATEMENTS_PREPARED: usize = 128;
/// Stored answers are forgotten after this long.
pub const ANSWERS_KEPT: Duration = Duration::from_hours(7 * 24);
/// Stored answers that one pruning removes.
pub const ANSWERS_PRUNED: i64 = 1_000;
/// How often stored answers are pruned.
pub const PRUNE_EVERY: Duration = Duration::from_mins(1);
/// A loop that has not finished a step for this long is not ready.
pub const LOOP_SILENCE: Duration = Duration::from_secs(4);
/// Keys of changed rows that a slow waiter may lag behind before it reads again anyway.
pub const CHANGES_KEPT: usize = 1_024;
/// How long counts of rows are good for, before whoever asks has them counted again.
pub const COUNTS_KEPT: Duration = Duration::from_secs(30);
/// They are good for this many times as long as the counting took, if that is longer.
pub const COUNTING_PAUSE: u32 = 20;
/// Characters of a dead letter's cause.
pub const CAUSE_CHARS: usize = 2_000;
/// How often a migration is tried that finds its tables locked, and the pause between.
pub const MIGRATION_ATTEMPTS: u32 = 10;
/// See [`MIGRATION_ATTEMPTS`].
pub const MIGRATION_PAUSE: Duration = Duration::from_secs(1);
