//! What the runtime and the event store promise, case by case, on SQLite and on Postgres.

mod counter;
mod house;

use house::{House, Kind, batch, counter, hear_all, raise, relay_all, request};
use waybill_runtime::Position;

/// Runs a case on both databases.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::House::new(super::Kind::Sqlite).await).await; } )+
        }
        mod postgres {
            $( #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(super::House::new(super::Kind::Postgres).await).await; } )+
        }
    };
}

on_both!(what_one_service_says_reaches_the_other_and_its_rows);

async fn what_one_service_says_reaches_the_other_and_its_rows(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let (a, b) = (counter(), counter());
    let outcomes = batch(
        &mut leader,
        vec![request(raise(a, 2), None), request(raise(b, 3), None), request(raise(a, 5), None)],
    )
    .await;
    for outcome in &outcomes {
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    relay_all(&mut leader).await;
    assert_eq!(house.event_store().await.head().await.unwrap(), Position(3));
    hear_all(&mut follower).await;
    let copied = follower.handle.get::<counter::Counter>(&a).await.unwrap().unwrap();
    assert_eq!((copied.total, copied.version.0), (7, 2));
    assert_eq!(house.count("follower", "select count(*) from outbox").await, 3);
}
