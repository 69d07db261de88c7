//! Backups: what is restored goes on where it was, or is refused with a reason. Never silently.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use waybill_runtime::{Divergence, Position, Steps, StoreError, fold};

use crate::counter::{CounterId, Follower, Leader};
use crate::house::{
    House, Kind, command, counter, hear_all, outbox_event, raise, relay_all, total,
};

on_both!(
    a_dump_restored_elsewhere_goes_on_where_it_was,
    a_lost_event_store_refills_and_after_a_rewind_nothing_is_doubled,
    an_event_store_restored_older_refills_in_the_same_order_and_readers_go_on,
    an_event_store_that_is_still_behind_its_reader_is_refused_until_it_has_caught_up,
    a_reader_refuses_a_history_in_another_order_even_if_its_own_event_is_in_its_old_place,
    a_service_restored_older_is_refused_by_its_relay,
    an_outbox_with_a_gap_is_refused_by_its_relay,
);

struct Pair {
    leader: Steps<Leader>,
    follower: Steps<Follower>,
}

impl Pair {
    async fn open(house: &House) -> Self {
        Self { leader: house.leader().await, follower: house.follower().await }
    }

    /// Ends both, as the end of their process does.
    async fn close(mut self, house: &House) {
        let stopped = self.follower.writer.stop("no run of that name").await;
        // A reader that refuses the event store has nothing to save.
        assert!(stopped.is_ok() || matches!(stopped, Err(StoreError::Diverged(_))), "{stopped:?}");
        self.leader.close().await;
        self.follower.close().await;
        house.close_event_stores().await;
    }

    /// The leader raises the counter this often, by two; both relay, and the follower hears.
    async fn raise(&mut self, counter: CounterId, times: i64) {
        command(&mut self.leader, (0..times).map(|_| raise(counter, 2))).await;
        self.settle().await;
    }

    async fn settle(&mut self) {
        relay_all(&mut self.leader).await;
        hear_all(&mut self.follower).await;
        relay_all(&mut self.follower).await;
        hear_all(&mut self.follower).await;
    }

    async fn refuses(&mut self) -> Divergence {
        match self.follower.writer.step_events(100).await {
            Err(StoreError::Diverged(divergence)) => divergence,
            other => panic!("it is not refused: {other:?}"),
        }
    }
}

/// A copy of what an owner has, made while nobody is connected.
struct Backup {
    owner: &'static str,
    file: PathBuf,
}

impl Backup {
    fn of(house: &House, owner: &'static str) -> Self {
        let file = house.folder().join(format!("{owner}.backup"));
        match house.kind {
            Kind::Sqlite => {
                let database = house.folder().join(format!("{owner}.db"));
                // The last connection took the journal away, so this file is all there is.
                assert!(!house.folder().join(format!("{owner}.db-wal")).exists());
                std::fs::copy(database, &file).unwrap();
            }
            Kind::Postgres => {
                let only = format!("--schema={owner}");
                std::fs::write(&file, postgres("pg_dump", &[&only, house.url()], None)).unwrap();
            }
        }
        Self { owner, file }
    }

    async fn restore(&self, house: &House) {
        lose(house, self.owner).await;
        match house.kind {
            Kind::Sqlite => {
                let database = house.folder().join(format!("{}.db", self.owner));
                std::fs::copy(&self.file, database).unwrap();
            }
            Kind::Postgres => load(&self.file, house),
        }
    }
}

/// Loads a dump, all or nothing.
fn load(file: &Path, house: &House) {
    let strict = ["--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", house.url()];
    postgres("psql", &strict, Some(file));
}

/// Takes away everything that an owner has.
async fn lose(house: &House, owner: &str) {
    match house.kind {
        Kind::Sqlite => std::fs::remove_file(house.folder().join(format!("{owner}.db"))).unwrap(),
        Kind::Postgres => {
            house.execute(owner, &format!("drop schema \"{owner}\" cascade")).await;
        }
    }
}

/// Runs one of the programs that come with Postgres; what it printed. They are those of the newest
/// version that is installed, or those that `WAYBILL_TEST_POSTGRES_PROGRAMS` runs.
fn postgres(program: &str, arguments: &[&str], input: Option<&Path>) -> Vec<u8> {
    let mut command = match std::env::var("WAYBILL_TEST_POSTGRES_PROGRAMS") {
        Ok(prefix) => {
            let mut words = prefix.split_whitespace();
            let mut command = Command::new(words.next().expect("a command to run programs with"));
            command.args(words).arg(program);
            command
        }
        Err(_) => Command::new(newest_installed(program)),
    };
    let input = input.map_or_else(Stdio::null, |file| File::open(file).unwrap().into());
    let done = command.args(arguments).stdin(input).output().unwrap_or_else(|error| {
        panic!("{program} comes with Postgres and is needed here: {error}")
    });
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

fn newest_installed(program: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin").join(program))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| program.into())
}

async fn a_dump_restored_elsewhere_goes_on_where_it_was(house: House) {
    let mut pair = Pair::open(&house).await;
    let a = counter();
    pair.raise(a, 5).await;
    // In the middle: something is not relayed yet, something not heard yet.
    command(&mut pair.leader, [raise(a, 2), raise(a, 2)]).await;
    relay_all(&mut pair.leader).await;
    command(&mut pair.leader, [raise(a, 2)]).await;
    pair.close(&house).await;
    let elsewhere = House::new(house.kind).await;
    match house.kind {
        Kind::Sqlite => {
            for owner in ["leader", "follower", "event_store"] {
                let file = format!("{owner}.db");
                std::fs::copy(house.folder().join(&file), elsewhere.folder().join(&file)).unwrap();
            }
        }
        Kind::Postgres => {
            let file = house.folder().join("everything.sql");
            std::fs::write(&file, postgres("pg_dump", &[house.url()], None)).unwrap();
            load(&file, &elsewhere);
        }
    }
    let mut pair = Pair::open(&elsewhere).await;
    pair.settle().await;
    assert_eq!(total(&pair.follower, a).await, 16);
    pair.raise(a, 2).await;
    assert_eq!(total(&pair.follower, a).await, 20);
    assert_eq!(elsewhere.count("follower", "select count(*) from outbox").await, 10);
    elsewhere.proven().await;
}

async fn a_lost_event_store_refills_and_after_a_rewind_nothing_is_doubled(house: House) {
    let mut pair = Pair::open(&house).await;
    let (a, b) = (counter(), counter());
    pair.raise(a, 5).await;
    // Written before the loss, and relayed only after it.
    command(&mut pair.leader, [raise(b, 2)]).await;
    pair.close(&house).await;
    lose(&house, "event_store").await;
    let mut pair = Pair::open(&house).await;
    relay_all(&mut pair.leader).await;
    relay_all(&mut pair.follower).await;
    assert_eq!(house.event_store().await.head().await.unwrap(), Position(11));
    assert!(matches!(pair.refuses().await, Divergence::OtherLog { service: "follower", .. }));
    command(&mut pair.follower, [raise(counter(), 1)]).await;
    pair.close(&house).await;
    fold::rewind::<Follower>(&house.location, &house.clock).await.unwrap();
    let mut pair = Pair::open(&house).await;
    pair.settle().await;
    assert_eq!((total(&pair.follower, a).await, total(&pair.follower, b).await), (10, 2));
    pair.raise(a, 2).await;
    assert_eq!(total(&pair.follower, a).await, 14);
    house.proven().await;
}

async fn an_event_store_restored_older_refills_in_the_same_order_and_readers_go_on(house: House) {
    let mut pair = Pair::open(&house).await;
    let a = counter();
    pair.raise(a, 3).await;
    pair.close(&house).await;
    let backup = Backup::of(&house, "event_store");
    let mut pair = Pair::open(&house).await;
    pair.raise(a, 4).await;
    let before = house.texts("event_store", "select id from event order by position").await;
    pair.close(&house).await;
    backup.restore(&house).await;
    let mut pair = Pair::open(&house).await;
    // One after the other, as it was.
    relay_all(&mut pair.leader).await;
    relay_all(&mut pair.follower).await;
    let after = house.texts("event_store", "select id from event order by position").await;
    assert_eq!(after, before);
    pair.raise(a, 1).await;
    assert_eq!(total(&pair.follower, a).await, 16);
    assert_eq!(house.count("follower", "select count(*) from outbox").await, 8);
    house.proven().await;
}

async fn an_event_store_that_is_still_behind_its_reader_is_refused_until_it_has_caught_up(
    house: House,
) {
    let mut pair = Pair::open(&house).await;
    let a = counter();
    pair.raise(a, 3).await;
    pair.close(&house).await;
    let backup = Backup::of(&house, "event_store");
    let mut pair = Pair::open(&house).await;
    pair.raise(a, 4).await;
    pair.close(&house).await;
    backup.restore(&house).await;
    let mut pair = Pair::open(&house).await;
    let position = Position(14);
    let behind = Divergence::OtherPosition { service: "follower", position };
    assert_eq!(pair.refuses().await, behind);
    relay_all(&mut pair.leader).await;
    assert_eq!(pair.refuses().await, behind);
    relay_all(&mut pair.follower).await;
    pair.raise(a, 1).await;
    assert_eq!(total(&pair.follower, a).await, 16);
    house.proven().await;
}

async fn a_reader_refuses_a_history_in_another_order_even_if_its_own_event_is_in_its_old_place(
    house: House,
) {
    let mut pair = Pair::open(&house).await;
    let a = counter();
    pair.close(&house).await;
    let backup = Backup::of(&house, "event_store");
    let [x, y] = ["x", "y"].map(|source| [outbox_event(source, 1, "{}")]);
    let unheard = |mut event: [waybill_runtime::OutboxEvent; 1]| {
        "something.else".clone_into(&mut Arc::make_mut(&mut event[0].envelope).kind);
        event
    };
    let (x, y) = (unheard(x), unheard(y));
    pair = Pair::open(&house).await;
    let store = house.event_store().await;
    store.append(&x).await.unwrap();
    command(&mut pair.leader, [raise(a, 2)]).await;
    relay_all(&mut pair.leader).await;
    store.append(&y).await.unwrap();
    hear_all(&mut pair.follower).await;
    assert_eq!(total(&pair.follower, a).await, 2);
    let checkpoint = "select position || ' ' || event_id from checkpoints order by sequence desc";
    let at_y = format!("3 {}", y[0].envelope.id);
    pair.close(&house).await;
    assert_eq!(house.texts("follower", checkpoint).await[0], at_y);
    backup.restore(&house).await;
    let mut pair = Pair::open(&house).await;
    let store = house.event_store().await;
    // Now a second one of the leader, that nobody has heard, comes before y; and y is where it was.
    command(&mut pair.leader, [raise(a, 2)]).await;
    relay_all(&mut pair.leader).await;
    store.append(&y).await.unwrap();
    store.append(&x).await.unwrap();
    let at_3 = house.texts("event_store", "select id from event where position = 3").await;
    assert_eq!(format!("3 {}", at_3[0]), at_y);
    let position = Position(3);
    let refused = Divergence::OtherPosition { service: "follower", position };
    assert_eq!(pair.refuses().await, refused);
    pair.close(&house).await;
    fold::rewind::<Follower>(&house.location, &house.clock).await.unwrap();
    let mut pair = Pair::open(&house).await;
    pair.settle().await;
    assert_eq!(total(&pair.follower, a).await, 4, "the unheard one is heard, the other not again");
}

async fn a_service_restored_older_is_refused_by_its_relay(house: House) {
    let mut pair = Pair::open(&house).await;
    let a = counter();
    pair.raise(a, 3).await;
    pair.close(&house).await;
    let backup = Backup::of(&house, "leader");
    let mut pair = Pair::open(&house).await;
    pair.raise(a, 2).await;
    pair.close(&house).await;
    backup.restore(&house).await;
    let mut pair = Pair::open(&house).await;
    let before = house.event_store().await.head().await.unwrap();
    for head in [3, 4, 5, 6] {
        let refused = pair.leader.relay.step().await;
        let Err(StoreError::Diverged(divergence)) = refused else {
            panic!("at {head}: {refused:?}")
        };
        let (service, known) = ("leader".to_owned(), Position(5));
        let expected = Divergence::OlderService { service, known, head: Position(head) };
        assert_eq!(divergence, expected);
        // Even with new events in the places of those that were lost.
        command(&mut pair.leader, [raise(a, 2)]).await;
    }
    assert_eq!(house.event_store().await.head().await.unwrap(), before);
}

async fn an_outbox_with_a_gap_is_refused_by_its_relay(house: House) {
    let mut pair = Pair::open(&house).await;
    let a = counter();
    pair.raise(a, 2).await;
    command(&mut pair.leader, (0..3).map(|_| raise(a, 2))).await;
    house.execute("leader", "delete from outbox where position = 4").await;
    // One that does not have it in memory.
    pair.close(&house).await;
    let mut pair = Pair::open(&house).await;
    let refused = pair.leader.relay.step().await;
    let (service, position) = ("leader".to_owned(), Position(4));
    let gap = Divergence::OutboxGap { service, position };
    assert!(matches!(&refused, Err(StoreError::Diverged(found)) if *found == gap), "{refused:?}");
    assert_eq!(house.event_store().await.head().await.unwrap(), Position(4));
}
