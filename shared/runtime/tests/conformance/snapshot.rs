//! Steady speed beside a reader that keeps one old moment open, as a backup does.

use std::time::Duration;

use waybill_runtime::Clock;

use crate::house::{House, Kind, command, counter, hear_all, raise, relay_all, total};

on_both!(units_are_as_fast_as_ever_beside_a_long_snapshot);

async fn units_are_as_fast_as_ever_beside_a_long_snapshot(house: House) {
    // Three units each: a command, its relay, its hearing.
    const ROUNDS: usize = 700;
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let a = counter();
    command(&mut leader, [raise(a, 2)]).await;
    let owners = ["leader", "follower", "event_store"];
    let mut snapshots = Vec::new();
    for owner in owners {
        let pool = house.pool(owner).await;
        let begin = match house.kind {
            Kind::Sqlite => "begin",
            Kind::Postgres => "begin isolation level repeatable read",
        };
        let mut snapshot = pool.begin_with(begin).await.unwrap();
        sqlx::query("select owner from turn").fetch_all(&mut *snapshot).await.unwrap();
        snapshots.push(snapshot);
    }
    let clock = Clock::system();
    let mut took: Vec<Duration> = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let began = clock.now();
        command(&mut leader, [raise(a, 2)]).await;
        relay_all(&mut leader).await;
        hear_all(&mut follower).await;
        took.push(clock.now().since(began));
    }
    let (first, second) = took.split_at_mut(ROUNDS / 2);
    let (first, second) = (median(first), median(second));
    assert!(second < first * 3 / 2, "a round took {first:?} at first, {second:?} later");
    assert_eq!(total(&follower, a).await, i64::try_from(2 * ROUNDS + 2).unwrap());
    if house.kind == Kind::Postgres {
        // What is counted is told when a connection ends.
        leader.close().await;
        follower.close().await;
        house.close_event_stores().await;
        nothing_rots(&house).await;
    }
    for snapshot in snapshots {
        snapshot.rollback().await.unwrap();
    }
    house.proven().await;
}

fn median(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

/// The rows that every unit looks at have no dead versions, which a snapshot would keep alive.
async fn nothing_rots(house: &House) {
    let told = "select coalesce(sum(n_tup_ins), 0)::bigint from pg_stat_user_tables \
                where schemaname = 'follower' and relname = 'outbox'";
    while house.count("follower", told).await < 700 {
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
