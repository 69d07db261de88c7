//! Steps that are dropped half-way, at every point where they wait: as if the process had ended
//! there, except that the connections live on.

use std::pin::pin;
use std::task::Poll;

use futures_util::FutureExt as _;
use waybill_runtime::{CommandError, Outcome};

use crate::counter::{CounterId, Follower, Leader};
use crate::house::{
    House, batch, command, counter, hear_all, letters, raise, relay_all, request, ring_all,
    ringing, seen, total,
};

on_both!(
    commands_dropped_anywhere_are_done_once_when_they_are_repeated,
    events_dropped_anywhere_are_handled_once,
    appends_dropped_anywhere_are_made_once,
    timers_dropped_anywhere_fire_once,
);

/// More than any step needs, so that the last ones end by themselves.
const WAITS: usize = 60;

/// Lets a step go on until it has waited so often, then drops it; whether it came to its end.
async fn drop_after<F: Future>(waits: usize, step: F) -> bool {
    let mut step = pin!(step);
    let mut waited = 0;
    std::future::poll_fn(move |context| {
        if waited > waits {
            return Poll::Ready(false);
        }
        waited += 1;
        let ended = step.as_mut().poll(context).is_ready();
        if ended {
            Poll::Ready(true)
        } else if waited > waits {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Some steps were dropped and some were not, or the case shows nothing.
fn assert_both(ended: &[bool]) {
    let dropped = ended.iter().filter(|ended| !**ended).count();
    assert!(dropped > 0 && dropped < ended.len(), "{dropped} of {} were dropped", ended.len());
}

async fn commands_dropped_anywhere_are_done_once_when_they_are_repeated(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    let (mut ended, mut unknown) = (Vec::new(), 0);
    for waits in 0..WAITS {
        let key = format!("key {waits}");
        let handle = leader.handle.clone();
        let mut asking = pin!(handle.submit(request(raise(a, 2), Some(&key))));
        // Asking once puts it into the queue.
        assert!(asking.as_mut().now_or_never().is_none());
        ended.push(drop_after(waits, Box::pin(leader.step_commands(1))).await);
        let outcome: Outcome<Leader> = asking.await;
        match outcome {
            Ok(_) => {}
            Err(CommandError::UnknownOutcome) => unknown += 1,
            Err(other) => panic!("after {waits} waits: {other}"),
        }
        let again: Outcome<Leader> =
            batch(&mut leader, vec![request(raise(a, 2), Some(&key))]).await.remove(0);
        assert!(again.is_ok(), "after {waits} waits: {again:?}");
        let done = i64::try_from(waits).unwrap() + 1;
        assert_eq!(total(&leader, a).await, 2 * done, "after {waits} waits");
    }
    assert!(unknown > 0);
    assert_both(&ended);
    house.follower().await;
    house.proven().await;
}

async fn events_dropped_anywhere_are_handled_once(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let counters: Vec<CounterId> = (0..2).map(|_| counter()).collect();
    let mut ended = Vec::new();
    for waits in 0..WAITS {
        command(&mut leader, counters.iter().map(|counter| raise(*counter, 2))).await;
        relay_all(&mut leader).await;
        ended.push(drop_after(waits, follower.writer.step_events(100)).await);
        hear_all::<Follower>(&mut follower).await;
        for counter in &counters {
            let done = i64::try_from(waits).unwrap() + 1;
            assert_eq!(total(&follower, *counter).await, 2 * done, "after {waits} waits");
        }
    }
    assert_both(&ended);
    assert_eq!(letters(&follower).await, [""; 0]);
    house.proven().await;
}

async fn appends_dropped_anywhere_are_made_once(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    let mut ended = Vec::new();
    for waits in 0..WAITS {
        command(&mut leader, [raise(a, 2), raise(a, 2)]).await;
        ended.push(drop_after(waits, leader.relay.step()).await);
        relay_all(&mut leader).await;
        let head = house.event_store().await.head().await.unwrap().0;
        assert_eq!(head, 2 * (i64::try_from(waits).unwrap() + 1), "after {waits} waits");
    }
    assert_both(&ended);
    house.follower().await;
    house.proven().await;
}

async fn timers_dropped_anywhere_fire_once(house: House) {
    let mut leader = house.leader().await;
    let (a, second) = (counter(), std::time::Duration::from_secs(1));
    let mut ended = Vec::new();
    for waits in 0..WAITS {
        command(&mut leader, [ringing(a, second), raise(a, 20)]).await;
        house.hand.advance(second);
        ended.push(drop_after(waits, leader.writer.step_timers(100)).await);
        ring_all(&mut leader).await;
        let rings = seen(&leader, a).await.unwrap().rings;
        assert_eq!(rings, i64::try_from(waits).unwrap() + 1, "after {waits} waits");
    }
    assert_both(&ended);
    house.follower().await;
    house.proven().await;
}
