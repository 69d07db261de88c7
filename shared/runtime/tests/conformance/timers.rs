//! Timers: each fires once, when it is due, and ends in an event.

use std::time::Duration;

use waybill_runtime::{Settled, Step, Steps};

use crate::counter::{CounterId, Leader, Settings};
use crate::house::{
    House, command, counter, letters, noted, parked, raise, retry_all, ring_all, ringing, seen,
};
use crate::processes;

const MINUTE: Duration = Duration::from_mins(1);

on_both!(
    a_timer_fires_once_when_due_and_not_before,
    a_timer_that_was_cleared_does_not_fire,
    attempts_at_a_timer_that_was_cleared_are_forgotten,
    a_timer_set_anew_fires_at_the_later_time_only,
    two_replicas_fire_a_timer_once,
    a_timer_that_leads_to_no_event_is_parked,
    timers_of_a_held_lane_wait_and_fire_when_it_is_free,
    a_timer_that_was_given_up_does_not_fire_again,
    a_parked_timer_that_a_command_cleared_meanwhile_needs_no_retry,
    of_timers_that_the_database_refuses_only_the_culprit_is_parked,
    a_timer_that_ends_the_process_is_parked_after_three_times,
);

async fn rings(leader: &Steps<Leader>, counter: CounterId) -> i64 {
    seen(leader, counter).await.map_or(0, |counter| counter.rings)
}

async fn failing(house: &House, how: &str) -> (Steps<Leader>, Settings) {
    let settings = Settings::default();
    settings.fails_on.lock().unwrap().push(format!("ring: {how}"));
    (house.steps(&settings).await, settings)
}

/// As it is left by a process that ended after it counted an attempt at the timer.
async fn attempts_at_a_timer_that_was_cleared_are_forgotten(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    command(&mut leader, [ringing(a, MINUTE)]).await;
    let count = "insert into attempts (message_id, number) \
                 select event_id || '.' || timer_key, 1 from timers";
    house.execute("leader", count).await;
    command(&mut leader, [ringing(a, 2 * MINUTE)]).await;
    assert_eq!(house.count("leader", "select count(*) from attempts").await, 0);
}

async fn a_timer_fires_once_when_due_and_not_before(house: House) {
    let mut leader = house.leader().await;
    let (a, b) = (counter(), counter());
    let (soon, later) = (ringing(a, MINUTE), ringing(b, 2 * MINUTE));
    command(&mut leader, [later, soon]).await;
    house.hand.advance(Duration::from_micros(59_999_999));
    ring_all(&mut leader).await;
    assert_eq!(rings(&leader, a).await, 0, "a microsecond too early");
    let due = house.clock.now().plus(Duration::from_micros(1));
    assert_eq!(leader.writer.next_due(), Some(due));
    house.hand.advance(Duration::from_micros(1));
    for _ in 0..3 {
        ring_all(&mut leader).await;
        assert_eq!((rings(&leader, a).await, rings(&leader, b).await), (1, 0));
    }
    let mut restarted = house.leader().await;
    house.hand.advance(10 * MINUTE);
    ring_all(&mut restarted).await;
    ring_all(&mut leader).await;
    assert_eq!((rings(&leader, a).await, rings(&leader, b).await), (1, 1));
    assert_eq!(restarted.writer.next_due(), None);
    // The event that set it is its cause.
    let chain = "select count(*) from outbox as rang join outbox as raised \
                 on rang.causation_id = raised.id and rang.correlation_id = raised.correlation_id \
                 where rang.type = 'counter.rang'";
    assert_eq!(house.count("leader", chain).await, 2);
    house.follower().await;
    house.proven().await;
}

async fn a_timer_that_was_cleared_does_not_fire(house: House) {
    let mut leader = house.leader().await;
    let (a, b) = (counter(), counter());
    command(&mut leader, [ringing(a, MINUTE), ringing(b, MINUTE), noted(b, "hush")]).await;
    command(&mut leader, [noted(a, "hush")]).await;
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    assert_eq!((rings(&leader, a).await, rings(&leader, b).await), (0, 0));
    assert_eq!(letters(&leader).await, [""; 0]);
    house.follower().await;
    house.proven().await;
}

async fn a_timer_set_anew_fires_at_the_later_time_only(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    command(&mut leader, [ringing(a, MINUTE)]).await;
    command(&mut leader, [ringing(a, 2 * MINUTE)]).await;
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    assert_eq!(rings(&leader, a).await, 0);
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    assert_eq!(rings(&leader, a).await, 1);
}

async fn two_replicas_fire_a_timer_once(house: House) {
    let mut leader = house.leader().await;
    let counters: Vec<CounterId> = (0..60).map(|_| counter()).collect();
    command(&mut leader, counters.iter().map(|counter| ringing(*counter, MINUTE))).await;
    house.hand.advance(MINUTE);
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let mut replica = house.leader().await;
        replicas.push(tokio::spawn(async move {
            while replica.writer.step_timers(7).await.unwrap() != Step::Idle {}
        }));
    }
    for replica in replicas {
        replica.await.unwrap();
    }
    for counter in counters {
        assert_eq!(rings(&leader, counter).await, 1);
    }
    assert_eq!(letters(&leader).await, [""; 0]);
}

async fn a_timer_that_leads_to_no_event_is_parked(house: House) {
    let a = counter();
    for (how, cause) in [("nothing", "led to no event"), ("refused", "only go up"), ("2", "clears")]
    {
        let (mut leader, _) = failing(&house, how).await;
        let b = counter();
        command(&mut leader, [ringing(b, MINUTE)]).await;
        house.hand.advance(MINUTE);
        ring_all(&mut leader).await;
        let letter = parked(&leader).await;
        assert!(letter.cause.contains(cause), "{how}: {}", letter.cause);
        assert_eq!((letter.kind.as_str(), letter.lane), ("timer", b.to_string()));
        assert_eq!(seen(&leader, b).await.unwrap().total, 1, "nothing of it stays");
        leader.handle.discard(&letter.id).await.unwrap();
    }
    let mut leader = house.leader().await;
    command(&mut leader, [raise(a, 1)]).await;
    house.follower().await;
    house.proven().await;
}

async fn timers_of_a_held_lane_wait_and_fire_when_it_is_free(house: House) {
    let (mut leader, settings) = failing(&house, "nothing").await;
    let (a, b) = (counter(), counter());
    // One event sets two timers, which are due in the same unit; the first of them fails.
    let twice = crate::counter::Raise { note: "twice".to_owned(), ..ringing(a, MINUTE) };
    command(&mut leader, [twice]).await;
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    assert_eq!(letters(&leader).await, ["parked timer 1"], "the other one waits where it is");
    assert_eq!(leader.writer.step_timers(100).await.unwrap(), Step::Idle);
    assert_eq!(leader.writer.next_due(), None, "nothing to wake up for");
    settings.fails_on.lock().unwrap().clear();
    command(&mut leader, [ringing(b, MINUTE)]).await;
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    assert_eq!((rings(&leader, a).await, rings(&leader, b).await), (0, 1), "others go on");
    let id = parked(&leader).await.id;
    assert_eq!(leader.handle.discard(&id).await.unwrap(), Settled::Done);
    ring_all(&mut leader).await;
    assert_eq!(rings(&leader, a).await, 1, "the one that waited, and only that");
    assert_eq!(leader.writer.step_timers(100).await.unwrap(), Step::Idle);
    house.follower().await;
    house.proven().await;
}

async fn a_timer_that_was_given_up_does_not_fire_again(house: House) {
    let (mut leader, settings) = failing(&house, "nothing").await;
    let a = counter();
    command(&mut leader, [ringing(a, MINUTE)]).await;
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    leader.handle.discard(&parked(&leader).await.id).await.unwrap();
    settings.fails_on.lock().unwrap().clear();
    ring_all(&mut leader).await;
    retry_all(&mut leader).await;
    assert_eq!(rings(&leader, a).await, 0);
    assert_eq!(letters(&leader).await, ["discarded timer 1"]);
    // What sets it anew is another matter.
    command(&mut leader, [ringing(a, MINUTE)]).await;
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    assert_eq!(rings(&leader, a).await, 1);
    house.follower().await;
    house.proven().await;
}

async fn a_parked_timer_that_a_command_cleared_meanwhile_needs_no_retry(house: House) {
    let (mut leader, settings) = failing(&house, "nothing").await;
    let a = counter();
    command(&mut leader, [ringing(a, MINUTE)]).await;
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    settings.fails_on.lock().unwrap().clear();
    command(&mut leader, [noted(a, "hush")]).await;
    leader.handle.retry(&parked(&leader).await.id).await.unwrap();
    retry_all(&mut leader).await;
    assert_eq!(rings(&leader, a).await, 0, "it is not set any more");
    assert_eq!(letters(&leader).await, ["handled timer 1"]);
}

async fn of_timers_that_the_database_refuses_only_the_culprit_is_parked(house: House) {
    let (mut leader, _) = failing(&house, "12 and rings").await;
    let (a, b, c) = (counter(), counter(), counter());
    command(&mut leader, [a, b, c].map(|counter| ringing(counter, MINUTE))).await;
    // Twelve more make 13 of the one, and not of the others.
    command(&mut leader, [raise(a, 1), raise(c, 1)]).await;
    house.hand.advance(MINUTE);
    ring_all(&mut leader).await;
    let culprit = parked(&leader).await;
    assert_eq!((culprit.lane, culprit.attempts), (b.to_string(), 3));
    assert!(culprit.cause.contains("refuses the data"), "{}", culprit.cause);
    assert_eq!(
        [rings(&leader, a).await, rings(&leader, b).await, rings(&leader, c).await],
        [1, 0, 1]
    );
    assert_eq!(house.count("leader", "select count(*) from attempts").await, 0);
    house.follower().await;
    house.proven().await;
}

async fn a_timer_that_ends_the_process_is_parked_after_three_times(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    command(&mut leader, [ringing(a, Duration::ZERO)]).await;
    let moment_in_the_past = "update timers set due_at = 1";
    house.execute("leader", moment_in_the_past).await;
    for time in 0..4 {
        let ended = processes::run("processes::rings", &house.location).await;
        assert!(processes::was_ended(&ended), "time {time}: {ended:?}");
    }
    let survives = processes::run("processes::rings", &house.location).await;
    assert!(survives.status.success(), "{survives:?}");
    let culprit = parked(&leader).await;
    assert_eq!((culprit.kind.as_str(), culprit.attempts), ("timer", 3));
    assert!(culprit.cause.contains("ended the process 3 times"), "{}", culprit.cause);
    assert_eq!(house.count("leader", "select count(*) from attempts").await, 0);
}
