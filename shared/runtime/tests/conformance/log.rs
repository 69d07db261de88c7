//! The log: no gaps, in order, nothing skipped, nothing twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::AnyPool;
use waybill_runtime::{
    Appended, Clock, EventStore, Filter, Migrations, OutboxEvent, Position, Service, Step, Steps,
    StoredEvent, Timestamp,
};

use crate::counter::{CounterId, Follower, Leader};
use crate::house::{
    House, batch, command, counter, hear_all, outbox_event, raise, relay_all, request, total,
};

on_both!(
    positions_have_no_gaps_under_concurrent_writers,
    a_reader_skips_nothing_while_commits_are_slow_and_some_roll_back,
    an_append_that_does_not_begin_right_after_the_last_writes_nothing,
    a_relay_that_wakes_late_changes_nothing,
    two_relays_of_a_service_pass_each_event_on_once,
    recorded_at_never_decreases_when_the_clock_goes_back,
    data_is_kept_to_the_byte,
);

async fn positions_have_no_gaps_under_concurrent_writers(house: House) {
    const REPLICAS: usize = 3;
    const BATCHES: usize = 12;
    let counters: Vec<CounterId> = (0..4).map(|_| counter()).collect();
    let mut writing = Vec::new();
    for _ in 0..REPLICAS {
        writing.push(tokio::spawn(raise_and_relay(house.leader().await, counters.clone(), BATCHES)));
    }
    let listening = [house.follower().await, house.follower().await].map(|mut follower| {
        tokio::spawn(async move {
            let all = Position(i64::try_from(REPLICAS * BATCHES * 4).unwrap());
            while follower.handle.consumer_status().await.unwrap().position < all {
                follower.writer.step_events(7).await.unwrap();
                tokio::task::yield_now().await;
            }
            follower
        })
    });
    for writer in writing {
        writer.await.unwrap();
    }
    let [mut follower, other] = listening;
    other.await.unwrap();
    drop(std::mem::replace(&mut follower, tokio::spawn(house.follower_of_all())).await.unwrap());
    let mut follower = follower.await.unwrap();
    hear_all(&mut follower).await;
    let each = i64::try_from(REPLICAS * BATCHES).unwrap();
    for counter in counters {
        assert_eq!(total(&follower, counter).await, each, "of {counter}");
    }
    relay_all(&mut follower).await;
    house.proven().await;
}
