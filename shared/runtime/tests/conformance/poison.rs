//! Poison: an event that cannot be handled is parked with its cause and holds back its own lane.

use std::sync::Arc;

use waybill_runtime::{DeadLetterStatus, Settled, Step, Steps};

use crate::counter::{CounterId, Follower, Leader, Settings};
use crate::house::{
    House, command, counter, hear_all, letters, noted, parked, raise, relay_all, retry_all, total,
};
use crate::processes;

on_both!(
    poison_is_parked_and_holds_back_only_its_own_lane,
    a_retry_after_mending_handles_the_parked_and_the_waiting_in_order,
    what_arrives_while_a_lane_is_tried_again_keeps_its_place,
    a_discard_is_recorded_and_lets_the_lane_go_on,
    a_retry_that_fails_parks_again_and_the_rest_waits,
    a_retry_that_the_database_refuses_parks_again_and_the_others_go_on,
    an_event_of_an_unknown_version_or_form_is_parked,
    of_a_batch_that_the_database_refuses_only_the_culprit_is_parked,
    an_event_that_ends_the_process_is_parked_after_three_times,
    a_clean_stop_does_not_count_as_an_attempt,
    trouble_of_the_database_does_not_count_as_an_attempt,
    after_an_unclean_end_a_backlog_is_still_handled_as_one_unit,
    careful_replicas_of_one_service_park_nothing_that_is_well,
    an_attempt_left_behind_by_a_crash_is_settled_by_another_replica,
    a_retry_that_ends_the_process_parks_again_after_three_times,
    a_replica_that_starts_while_a_retry_is_under_way_lets_it_come_to_its_end,
);

/// A leader and a follower that fails on these notes until they are taken off its list.
async fn pair(house: &House, failing: &[&str]) -> (Steps<Leader>, Steps<Follower>, Settings) {
    let (follower, settings) = house.follower_failing_on(failing).await;
    (house.leader().await, follower, settings)
}

async fn tell(leader: &mut Steps<Leader>, said: &[(CounterId, &str)]) {
    command(leader, said.iter().map(|(counter, note)| noted(*counter, note))).await;
    relay_all(leader).await;
}

/// The notes that the follower wrote of this counter, in order.
async fn copied(house: &House, counter: CounterId) -> Vec<String> {
    let all = house.texts("follower", "select data from outbox order by position").await;
    let mut notes = Vec::new();
    for data in all {
        let event: serde_json::Value = serde_json::from_str(&data).unwrap();
        if event["counter"] == counter.to_string() {
            notes.push(event["note"].as_str().unwrap().to_owned());
        }
    }
    notes
}

async fn poison_is_parked_and_holds_back_only_its_own_lane(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &["poison"]).await;
    let (a, b) = (counter(), counter());
    tell(&mut leader, &[(a, "1"), (b, "1"), (a, "poison"), (b, "2"), (a, "3"), (b, "3")]).await;
    hear_all(&mut follower).await;
    assert_eq!(copied(&house, a).await, ["1"]);
    assert_eq!(copied(&house, b).await, ["1", "2", "3"]);
    let found = letters(&follower).await;
    assert_eq!(found, ["parked counter.raised 1", "waiting counter.raised 0"]);
    let parked = parked(&follower).await;
    assert!(parked.cause.contains("hearing \"poison\" was told to panic"), "{}", parked.cause);
    assert_eq!((parked.lane, parked.position.0), (a.to_string(), 3));
    // Also in another unit, and after a restart.
    tell(&mut leader, &[(a, "4"), (b, "4")]).await;
    follower.close().await;
    follower = house.follower().await;
    hear_all(&mut follower).await;
    assert_eq!(copied(&house, a).await, ["1"]);
    assert_eq!(copied(&house, b).await, ["1", "2", "3", "4"]);
    assert_eq!(letters(&follower).await.len(), 3);
    house.proven().await;
}

async fn a_retry_after_mending_handles_the_parked_and_the_waiting_in_order(house: House) {
    let (mut leader, mut follower, settings) = pair(&house, &["poison"]).await;
    let (a, b) = (counter(), counter());
    tell(&mut leader, &[(a, "1"), (a, "poison"), (a, "3"), (b, "1"), (a, "4")]).await;
    hear_all(&mut follower).await;
    tell(&mut leader, &[(a, "5")]).await;
    hear_all(&mut follower).await;
    let id = parked(&follower).await.id;
    settings.fails_on.lock().unwrap().clear();
    assert_eq!(follower.writer.step_retries(100).await.unwrap(), Step::Idle, "nobody asked yet");
    assert_eq!(follower.handle.retry(&id).await.unwrap(), Settled::Done);
    assert_eq!(follower.handle.retry(&id).await.unwrap(), Settled::NotParked);
    assert_eq!(follower.handle.retry("no such id").await.unwrap(), Settled::Unknown);
    // In small units, as a busy writer takes them.
    while follower.writer.step_retries(1).await.unwrap() != Step::Idle {}
    assert_eq!(copied(&house, a).await, ["1", "poison", "3", "4", "5"]);
    assert!(letters(&follower).await.iter().all(|letter| letter.starts_with("handled")));
    tell(&mut leader, &[(a, "6")]).await;
    hear_all(&mut follower).await;
    assert_eq!(copied(&house, a).await.len(), 6, "the lane is free");
    house.proven().await;
}

async fn what_arrives_while_a_lane_is_tried_again_keeps_its_place(house: House) {
    let (mut leader, mut follower, settings) = pair(&house, &["poison"]).await;
    let a = counter();
    tell(&mut leader, &[(a, "poison"), (a, "2")]).await;
    hear_all(&mut follower).await;
    settings.fails_on.lock().unwrap().clear();
    follower.handle.retry(&parked(&follower).await.id).await.unwrap();
    // Asked for, not done yet, and the next one comes in.
    tell(&mut leader, &[(a, "3")]).await;
    hear_all(&mut follower).await;
    assert_eq!(copied(&house, a).await, [""; 0]);
    retry_all(&mut follower).await;
    assert_eq!(copied(&house, a).await, ["poison", "2", "3"]);
    house.proven().await;
}

async fn a_discard_is_recorded_and_lets_the_lane_go_on(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &["poison"]).await;
    let a = counter();
    tell(&mut leader, &[(a, "1"), (a, "poison"), (a, "3")]).await;
    hear_all(&mut follower).await;
    let id = parked(&follower).await.id;
    assert_eq!(follower.handle.discard(&id).await.unwrap(), Settled::Done);
    retry_all(&mut follower).await;
    assert_eq!(copied(&house, a).await, ["1", "3"]);
    let discarded = Some(DeadLetterStatus::Discarded);
    let discarded = follower.handle.dead_letters(discarded, None, 10).await.unwrap();
    assert_eq!((discarded.len(), &discarded[0].id), (1, &id), "it is on record");
    house.proven().await;
}

async fn a_retry_that_fails_parks_again_and_the_rest_waits(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &["poison", "worse"]).await;
    let a = counter();
    tell(&mut leader, &[(a, "poison"), (a, "2"), (a, "worse"), (a, "4")]).await;
    hear_all(&mut follower).await;
    let id = parked(&follower).await.id;
    follower.handle.retry(&id).await.unwrap();
    retry_all(&mut follower).await;
    let waiting = "waiting counter.raised 0";
    let expected = ["parked counter.raised 2", waiting, waiting, waiting];
    assert_eq!(letters(&follower).await, expected);
    // With the first out of the way, the next that fails is parked in its place.
    follower.handle.discard(&id).await.unwrap();
    retry_all(&mut follower).await;
    assert_eq!(copied(&house, a).await, ["2"]);
    let discarded = "discarded counter.raised 2";
    let handled = "handled counter.raised 0";
    let expected = [discarded, handled, "parked counter.raised 1", waiting];
    assert_eq!(letters(&follower).await, expected);
}

async fn a_retry_that_the_database_refuses_parks_again_and_the_others_go_on(house: House) {
    let (mut leader, mut follower, settings) = pair(&house, &["poison", "thirteen"]).await;
    let (a, b) = (counter(), counter());
    tell(&mut leader, &[(a, "thirteen"), (b, "poison"), (a, "nothing follows")]).await;
    hear_all(&mut follower).await;
    settings.fails_on.lock().unwrap().clear();
    let status = Some(DeadLetterStatus::Parked);
    for letter in follower.handle.dead_letters(status, None, 9).await.unwrap() {
        follower.handle.retry(&letter.id).await.unwrap();
    }
    retry_all(&mut follower).await;
    assert_eq!(copied(&house, b).await, ["poison"], "the other lane goes on");
    let again = parked(&follower).await;
    assert_eq!((again.lane, again.attempts), (a.to_string(), 2));
    assert!(again.cause.contains("refuses the data"), "{}", again.cause);
    // Mended: with one more, thirteen more are not thirteen.
    command(&mut follower, [raise(a, 1)]).await;
    follower.handle.retry(&again.id).await.unwrap();
    retry_all(&mut follower).await;
    assert_eq!(total(&follower, a).await, 14);
    house.proven().await;
}

async fn an_event_of_an_unknown_version_or_form_is_parked(house: House) {
    let (mut follower, _) = house.follower_failing_on(&[]).await;
    let store = house.event_store().await;
    let (newer, garbage) = (counter(), counter());
    let said = |position, lane: CounterId, data: &str| {
        let mut event = crate::house::outbox_event("leader", position, data);
        Arc::make_mut(&mut event.envelope).correlation = lane.to_string();
        event
    };
    let good = counter();
    let raised = |by| format!(r#"{{"counter":"{good}","by":{by},"rings_at":null,"note":""}}"#);
    let mut events = vec![
        said(1, newer, &raised(1)),
        said(2, garbage, "not JSON \u{1}"),
        said(3, good, &raised(2)),
        said(4, newer, &raised(4)),
    ];
    Arc::make_mut(&mut events[0].envelope).schema = 2;
    store.append(&events).await.unwrap();
    hear_all(&mut follower).await;
    assert_eq!(total(&follower, good).await, 2);
    let letters = follower.handle.dead_letters(None, None, 9).await.unwrap();
    let cause_of = |position| &letters.iter().find(|l| l.position.0 == position).unwrap().cause;
    assert!(cause_of(1).contains("form 2 is not known"), "{letters:?}");
    assert!(cause_of(2).contains("does not fit its form"), "{letters:?}");
    assert_eq!(cause_of(4), "", "it waits behind the first of its lane");
}

async fn of_a_batch_that_the_database_refuses_only_the_culprit_is_parked(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &[]).await;
    let (a, b) = (counter(), counter());
    tell(&mut leader, &[(b, "1"), (a, "thirteen"), (b, "2"), (a, "nothing follows"), (b, "3")])
        .await;
    hear_all(&mut follower).await;
    assert_eq!(copied(&house, b).await, ["1", "2", "3"]);
    let culprit = parked(&follower).await;
    assert_eq!((culprit.lane, culprit.attempts), (a.to_string(), 3));
    assert!(culprit.cause.contains("refuses the data"), "{}", culprit.cause);
    assert_eq!(letters(&follower).await.len(), 2, "and one waits behind it");
    assert_eq!(attempts(&house).await, 0, "what is settled is not counted any more");
    house.proven().await;
}

async fn attempts(house: &House) -> i64 {
    house.count("follower", "select count(*) from attempts").await
}

async fn an_event_that_ends_the_process_is_parked_after_three_times(house: House) {
    let mut leader = house.leader().await;
    let (a, b) = (counter(), counter());
    tell(&mut leader, &[(b, "1"), (a, "end the process"), (b, "2"), (a, "3")]).await;
    // The first time nobody expects it; then three times with care.
    for time in 0..4 {
        let ended = processes::run("processes::follows", &house.location).await;
        assert!(processes::was_ended(&ended), "time {time}: {ended:?}");
    }
    let survives = processes::run("processes::follows", &house.location).await;
    assert!(survives.status.success(), "{survives:?}");
    let follower = house.follower().await;
    assert_eq!(copied(&house, b).await, ["1", "2"]);
    let culprit = parked(&follower).await;
    assert_eq!((culprit.lane, culprit.attempts), (a.to_string(), 3));
    assert!(culprit.cause.contains("ended the process 3 times"), "{}", culprit.cause);
    assert_eq!(letters(&follower).await.len(), 2);
    assert_eq!(attempts(&house).await, 0);
    house.proven().await;
}

async fn a_clean_stop_does_not_count_as_an_attempt(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &[]).await;
    let a = counter();
    follower.writer.start("crashed").await.unwrap();
    for run in ["first", "second", "third", "fourth", "fifth"] {
        tell(&mut leader, &[(a, run), (a, run)]).await;
        follower.close().await;
        follower = house.follower().await;
        follower.writer.start(run).await.unwrap();
        follower.writer.step_events(1).await.unwrap();
        follower.writer.stop(run).await.unwrap();
        assert_eq!(attempts(&house).await, 0, "after {run}");
    }
    hear_all(&mut follower).await;
    assert_eq!(copied(&house, a).await.len(), 10);
    assert_eq!(letters(&follower).await.len(), 0);
}

async fn trouble_of_the_database_does_not_count_as_an_attempt(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &[]).await;
    let a = counter();
    tell(&mut leader, &[(a, "1"), (a, "2")]).await;
    follower.writer.start("crashed").await.unwrap();
    follower.close().await;
    follower = house.follower().await;
    follower.writer.start("careful").await.unwrap();
    house.execute("follower", "alter table counters rename to out_of_reach").await;
    for _ in 0..6 {
        let trouble = follower.writer.step_events(100).await.unwrap_err();
        assert!(trouble.is_passing(), "{trouble}");
    }
    house.execute("follower", "alter table out_of_reach rename to counters").await;
    hear_all(&mut follower).await;
    assert_eq!(copied(&house, a).await, ["1", "2"]);
    assert_eq!((letters(&follower).await.len(), attempts(&house).await), (0, 0));
}

async fn after_an_unclean_end_a_backlog_is_still_handled_as_one_unit(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &[]).await;
    let counters: Vec<CounterId> = (0..100).map(|_| counter()).collect();
    tell(&mut leader, &counters.iter().map(|counter| (*counter, "1")).collect::<Vec<_>>()).await;
    follower.writer.start("crashed").await.unwrap();
    follower.close().await;
    follower = house.follower().await;
    follower.writer.start("careful").await.unwrap();
    assert_eq!(follower.writer.step_events(100).await.unwrap(), Step::Did(100));
    assert_eq!(house.count("follower", "select max(sequence) from checkpoints").await, 1);
    assert_eq!(attempts(&house).await, 0);
}

async fn careful_replicas_of_one_service_park_nothing_that_is_well(house: House) {
    const REPLICAS: usize = 6;
    let mut leader = house.leader().await;
    let counters: Vec<CounterId> = (0..40).map(|_| counter()).collect();
    tell(&mut leader, &counters.iter().map(|counter| (*counter, "1")).collect::<Vec<_>>()).await;
    let mut replicas = Vec::new();
    for replica in 0..REPLICAS {
        let mut follower = house.follower().await;
        follower.writer.start(&format!("replica {replica}")).await.unwrap();
        replicas.push(follower);
    }
    let running = replicas.into_iter().map(|mut follower| {
        tokio::spawn(async move {
            hear_all(&mut follower).await;
            follower
        })
    });
    let mut follower = None;
    for replica in running.collect::<Vec<_>>() {
        follower = Some(replica.await.unwrap());
    }
    assert_eq!(letters(&follower.unwrap()).await, [""; 0]);
    assert_eq!(attempts(&house).await, 0);
    assert_eq!(house.count("follower", "select count(*) from outbox").await, 40);
    house.proven().await;
}

async fn an_attempt_left_behind_by_a_crash_is_settled_by_another_replica(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &["end the process"]).await;
    let a = counter();
    tell(&mut leader, &[(a, "end the process")]).await;
    for _ in 0..2 {
        let ended = processes::run("processes::follows", &house.location).await;
        assert!(processes::was_ended(&ended), "{ended:?}");
    }
    assert_eq!(attempts(&house).await, 1);
    // A replica that runs on without care, and fails on it in a better way.
    hear_all(&mut follower).await;
    assert_eq!(letters(&follower).await, ["parked counter.raised 1"]);
    assert_eq!(attempts(&house).await, 0);
}

async fn a_retry_that_ends_the_process_parks_again_after_three_times(house: House) {
    let (mut leader, mut follower, _) = pair(&house, &["end the process"]).await;
    let a = counter();
    tell(&mut leader, &[(a, "end the process"), (a, "2")]).await;
    follower.writer.start("a run").await.unwrap();
    hear_all(&mut follower).await;
    let id = parked(&follower).await.id;
    follower.handle.retry(&id).await.unwrap();
    // It ends without stopping; the next ones try again with care.
    follower.close().await;
    for time in 0..3 {
        let ended = processes::run("processes::follows", &house.location).await;
        assert!(processes::was_ended(&ended), "time {time}: {ended:?}");
    }
    let survives = processes::run("processes::follows", &house.location).await;
    assert!(survives.status.success(), "{survives:?}");
    let follower = house.follower().await;
    let again = parked(&follower).await;
    assert_eq!((again.id, again.attempts), (id, 2));
    assert!(again.cause.contains("ended the process 3 times"), "{}", again.cause);
    assert_eq!(letters(&follower).await[1], "waiting counter.raised 0");
    assert_eq!(attempts(&house).await, 0);
}

async fn a_replica_that_starts_while_a_retry_is_under_way_lets_it_come_to_its_end(house: House) {
    let (mut leader, mut follower, settings) = pair(&house, &["broken"]).await;
    let a = counter();
    tell(&mut leader, &[(a, "broken"), (a, "2"), (a, "3")]).await;
    follower.writer.start("a run that goes on").await.unwrap();
    hear_all(&mut follower).await;
    let id = parked(&follower).await.id;
    settings.fails_on.lock().unwrap().clear();
    follower.handle.retry(&id).await.unwrap();
    let mut beside = house.follower().await;
    beside.writer.start("a replica").await.unwrap();
    assert!(letters(&follower).await.iter().all(|letter| letter.starts_with("retrying")));
    assert_eq!(follower.writer.step_retries(100).await.unwrap(), Step::Did(3));
    assert_eq!(beside.writer.step_retries(100).await.unwrap(), Step::Idle);
    assert_eq!(copied(&house, a).await, ["broken", "2", "3"]);
    house.proven().await;
}
