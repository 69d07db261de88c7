//! Steady speed beside a reader that keeps one old moment open, as a backup does.

use std::time::Duration;

use waybill_runtime::{Clock, Steps};

use crate::counter::{CounterId, Follower, Leader};
use crate::house::{House, Kind, command, counter, hear_all, raise, relay_all, total};

on_both!(units_are_as_fast_as_ever_beside_a_long_snapshot);

const ROUNDS: usize = 340;

async fn units_are_as_fast_as_ever_beside_a_long_snapshot(house: House) {
    // Another one without a snapshot, in turns with it, shows what else the machine is busy with.
    let other = House::new(house.kind).await;
    let (mut beside, mut alone) = (Pair::open(&house).await, Pair::open(&other).await);
    beside.round().await;
    alone.round().await;
    let mut snapshots = Vec::new();
    for owner in ["leader", "follower", "event_store"] {
        let pool = house.pool(owner).await;
        let begin = match house.kind {
            Kind::Sqlite => "begin",
            Kind::Postgres => "begin isolation level repeatable read",
        };
        let mut snapshot = pool.begin_with(begin).await.unwrap();
        sqlx::query("select owner from turn").fetch_all(&mut *snapshot).await.unwrap();
        snapshots.push(snapshot);
    }
    let (mut took_beside, mut took_alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        took_beside.push(beside.round().await);
        took_alone.push(alone.round().await);
    }
    let (slower, slower_alone) = (slowdown(&mut took_beside), slowdown(&mut took_alone));
    assert!(
        slower < 1.5 * slower_alone,
        "rounds took {slower:.2} times as long in the end, without a snapshot {slower_alone:.2}"
    );
    let told = i64::try_from(2 * (ROUNDS + 1)).unwrap();
    assert_eq!(total(&beside.follower, beside.counter).await, told);
    if house.kind == Kind::Postgres {
        // What is counted is told when a connection ends.
        beside.leader.close().await;
        beside.follower.close().await;
        house.close_event_stores().await;
        nothing_rots(&house).await;
    }
    for snapshot in snapshots {
        snapshot.rollback().await.unwrap();
    }
    house.proven().await;
}

struct Pair {
    leader: Steps<Leader>,
    follower: Steps<Follower>,
    counter: CounterId,
    clock: Clock,
}

impl Pair {
    async fn open(house: &House) -> Self {
        let (leader, follower) = (house.leader().await, house.follower().await);
        Self { leader, follower, counter: counter(), clock: Clock::system() }
    }

    /// Three units: a command, its relay, its hearing; how many microseconds they took.
    async fn round(&mut self) -> u32 {
        let began = self.clock.now();
        command(&mut self.leader, [raise(self.counter, 2)]).await;
        relay_all(&mut self.leader).await;
        hear_all(&mut self.follower).await;
        u32::try_from(self.clock.now().since(began).as_micros()).unwrap()
    }
}

/// How many times as long the later half took, by the medians.
fn slowdown(took: &mut [u32]) -> f64 {
    let median = |took: &mut [u32]| {
        took.sort_unstable();
        f64::from(took[took.len() / 2])
    };
    let (first, second) = took.split_at_mut(took.len() / 2);
    median(second) / median(first)
}

/// The rows that every unit looks at have no dead versions, which a snapshot would keep alive.
async fn nothing_rots(house: &House) {
    let told = "select coalesce(sum(n_tup_ins), 0)::bigint from pg_stat_user_tables \
                where schemaname = 'follower' and relname = 'outbox'";
    while house.count("follower", told).await < i64::try_from(ROUNDS).unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rotting = house
        .texts(
            "leader",
            "select schemaname || '.' || relname from pg_stat_user_tables \
             where (relname = 'turn' and n_dead_tup > 0) \
             or (relname in ('turn', 'checkpoints', 'outbox', 'event', 'log') and n_tup_upd > 0) \
             or (relname in ('outbox', 'event', 'log') and n_tup_del > 0)",
        )
        .await;
    assert_eq!(rotting, [""; 0]);
}
