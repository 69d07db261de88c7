//! The consumer: every event once, whoever delivers it and however often.

use std::time::Duration;

use waybill_runtime::{Position, Step, fold};

use crate::counter::Follower;
use crate::house::{
    House, command, counter, hear_all, letters, noted, raise, relay_all, ring_all, ringing,
    take_turn, total,
};

on_both!(
    repeated_deliveries_do_nothing,
    two_replicas_in_turn_handle_each_event_once,
    a_page_without_interest_takes_no_turn_and_is_saved_after_a_second,
    events_without_effect_are_saved_after_a_second_however_busy,
    the_checkpoint_survives_a_restart,
    a_clean_stop_saves_what_was_read_without_effect,
    checkpoints_are_pruned,
);

async fn repeated_deliveries_do_nothing(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let (a, b) = (counter(), counter());
    let asked = [noted(b, "poison"), raise(a, 2), raise(b, 2), raise(a, 2)];
    command(&mut leader, asked).await;
    relay_all(&mut leader).await;
    follower.close().await;
    (follower, _) = house.follower_failing_on(&["poison"]).await;
    hear_all(&mut follower).await;
    let before = (house.counts_of_follower().await, letters(&follower).await);
    for _ in 0..3 {
        follower.close().await;
        fold::rewind::<Follower>(&house.location, &house.clock).await.unwrap();
        follower = house.follower().await;
        assert_eq!(follower.handle.consumer_status().await.unwrap().position, Position(0));
        hear_all(&mut follower).await;
        assert_eq!((house.counts_of_follower().await, letters(&follower).await), before);
    }
    assert_eq!((total(&follower, a).await, total(&follower, b).await), (4, 0));
    command(&mut leader, [raise(a, 2)]).await;
    relay_all(&mut leader).await;
    hear_all(&mut follower).await;
    assert_eq!(total(&follower, a).await, 6, "what is new is handled");
    house.proven().await;
}

async fn two_replicas_in_turn_handle_each_event_once(house: House) {
    let mut leader = house.leader().await;
    let mut replicas = [house.follower().await, house.follower().await];
    let a = counter();
    for round in 0..10 {
        command(&mut leader, (0..10).map(|_| raise(a, 2))).await;
        relay_all(&mut leader).await;
        // The first is behind whenever the second was faster, and the other way round.
        for (replica, limit) in [(0, 3), (1, 2), (1, 1), (0, 1), (1, 4)] {
            replicas[replica].writer.step_events(limit).await.unwrap();
        }
        hear_all(&mut replicas[round % 2]).await;
    }
    assert_eq!(total(&replicas[0], a).await, 200);
    assert_eq!(house.count("follower", "select count(*) from outbox").await, 100);
    house.proven().await;
}

async fn a_page_without_interest_takes_no_turn_and_is_saved_after_a_second(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let a = counter();
    command(&mut leader, [ringing(a, Duration::from_secs(1))]).await;
    relay_all(&mut leader).await;
    hear_all(&mut follower).await;
    house.hand.advance(Duration::from_secs(1));
    // The follower does not hear of ringing.
    ring_all(&mut leader).await;
    relay_all(&mut leader).await;
    let pool = house.pool("follower").await;
    let saved = "select position from checkpoints order by sequence desc limit 1";
    assert_eq!(house.count("follower", saved).await, 1);
    let turn = take_turn(house.kind, &pool).await;
    house.hand.advance(Duration::from_millis(1));
    follower = reopened(&house, follower).await;
    assert_eq!(follower.writer.step_events(100).await.unwrap(), Step::Did(0));
    assert_eq!(follower.writer.step_events(100).await.unwrap(), Step::Idle);
    turn.rollback().await.unwrap();
    assert_eq!(house.count("follower", saved).await, 1, "not saved at once");
    house.hand.advance(Duration::from_millis(999));
    assert_eq!(follower.writer.step_events(100).await.unwrap(), Step::Idle);
    assert_eq!(house.count("follower", saved).await, 1, "nor before a second");
    house.hand.advance(Duration::from_millis(1));
    assert_eq!(follower.writer.step_events(100).await.unwrap(), Step::Idle);
    assert_eq!(house.count("follower", saved).await, 2, "but then");
}

async fn reopened(
    house: &House,
    follower: waybill_runtime::Steps<Follower>,
) -> waybill_runtime::Steps<Follower> {
    follower.close().await;
    house.follower().await
}

async fn events_without_effect_are_saved_after_a_second_however_busy(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    command(&mut leader, (0..30).map(|_| noted(counter(), "nothing follows"))).await;
    relay_all(&mut leader).await;
    let saved = "select coalesce(max(position), 0) from checkpoints";
    for position in 1..=3 {
        assert!(matches!(follower.writer.step_events(1).await.unwrap(), Step::Did(1..)));
        let expected = i64::from(position == 3);
        let found = house.count("follower", saved).await;
        assert_eq!(found.min(1), expected, "after page {position} at {found}");
        house.hand.advance(Duration::from_millis(500));
    }
    assert_eq!(house.count("follower", "select count(*) from outbox").await, 0);
}

async fn the_checkpoint_survives_a_restart(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let a = counter();
    for restart in 1..=5 {
        command(&mut leader, (0..4).map(|_| raise(a, 2))).await;
        relay_all(&mut leader).await;
        follower.writer.step_events(2).await.unwrap();
        let before = follower.handle.consumer_status().await.unwrap().position;
        follower = reopened(&house, follower).await;
        assert_eq!(follower.handle.consumer_status().await.unwrap().position, before);
        hear_all(&mut follower).await;
        assert_eq!(total(&follower, a).await, restart * 8);
    }
    house.proven().await;
}

async fn a_clean_stop_saves_what_was_read_without_effect(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    follower.writer.start("a run").await.unwrap();
    command(&mut leader, (0..5).map(|_| noted(counter(), "nothing follows"))).await;
    relay_all(&mut leader).await;
    hear_all(&mut follower).await;
    follower.writer.stop("a run").await.unwrap();
    let saved = "select coalesce(max(position), 0) from checkpoints";
    assert_eq!(house.count("follower", saved).await, 5);
    assert_eq!(house.count("follower", "select count(*) from runs").await, 0);
}

async fn checkpoints_are_pruned(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    command(&mut leader, (0..300).map(|_| raise(counter(), 1))).await;
    relay_all(&mut leader).await;
    while follower.writer.step_events(1).await.unwrap() != Step::Idle {}
    let kept = house.count("follower", "select count(*) from checkpoints").await;
    assert!((64..128).contains(&kept), "{kept} are kept");
    let follower = reopened(&house, follower).await;
    assert_eq!(follower.handle.consumer_status().await.unwrap().position, Position(300));
}
