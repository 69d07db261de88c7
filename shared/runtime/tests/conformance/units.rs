//! Units of work: commands carried out together, each answered for itself.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use waybill_runtime::{CommandError, Outcome, Request, Service, Step, Version};

use crate::counter::{CounterId, Follower, Leader, OnlyUp, Raise};
use crate::house::{
    House, batch, command, counter, hear_all, noted, raise, relay_all, request, seen, total,
};
use crate::processes;

on_both!(
    a_refusal_and_panics_leave_the_others_of_a_full_batch_untouched,
    an_event_without_a_json_form_fails_only_its_own_command,
    data_that_the_database_refuses_fails_only_its_own_command,
    the_number_of_statements_does_not_depend_on_the_size_of_a_batch,
    a_repeated_key_gets_the_first_answer_again_and_another_request_under_it_is_refused,
    a_key_repeated_within_one_batch_is_carried_out_once,
    the_answer_to_a_refused_command_is_not_stored,
    a_repeated_command_gets_its_stored_answer_though_it_would_be_refused_by_now,
    a_repeat_right_behind_its_original_gets_the_same_answer,
    a_command_for_an_older_version_is_stale,
    rows_in_memory_are_loaded_anew_after_another_process_changed_them,
    what_a_failed_command_did_to_a_row_in_memory_is_gone,
    old_answers_are_pruned_a_bounded_number_at_a_time,
    a_caller_that_goes_away_interrupts_nothing,
);
// Only SQLite keeps a text where a number belongs.
on!(Sqlite, sqlite_alone: a_row_that_cannot_be_read_fails_only_the_commands_that_need_it);

async fn a_refusal_and_panics_leave_the_others_of_a_full_batch_untouched(house: House) {
    let mut leader = house.leader().await;
    let counters: Vec<_> = (0..100).map(|_| counter()).collect();
    command(&mut leader, counters[..50].iter().map(|counter| raise(*counter, 1))).await;
    let requests = counters.iter().enumerate().map(|(index, counter)| {
        let asked = match index {
            10 => raise(*counter, -1),
            20 => noted(*counter, "panic"),
            30 | 60 => noted(*counter, "panic in evolve"),
            _ => raise(*counter, 2),
        };
        request(asked, Some(&format!("key {index}")))
    });
    let outcomes: Vec<Outcome<Leader>> = batch(&mut leader, requests.collect()).await;
    for (index, (outcome, counter)) in outcomes.iter().zip(&counters).enumerate() {
        let before = i64::from(index < 50);
        let expected = match index {
            10 => matches!(outcome, Err(CommandError::Refused(OnlyUp))),
            20 => matches!(outcome, Err(CommandError::Failed(why)) if why.contains("deciding")),
            30 | 60 => matches!(outcome, Err(CommandError::Failed(why)) if why.contains("evolve")),
            _ => matches!(outcome, Ok(answer) if answer.body == (before + 2).to_string()),
        };
        assert!(expected, "command {index}: {outcome:?}");
        let failed = [10, 20, 30, 60].contains(&index);
        let after = if failed { before } else { before + 2 };
        assert_eq!(total(&leader, *counter).await, after, "counter {index}");
    }
    assert_eq!(house.count("leader", "select count(*) from outbox").await, 50 + 96);
    assert_eq!(house.count("leader", "select count(*) from answers").await, 96);
    house.follower().await;
    house.proven().await;
}

async fn an_event_without_a_json_form_fails_only_its_own_command(house: House) {
    let mut leader = house.leader().await;
    let (a, b, c) = (counter(), counter(), counter());
    let outcomes =
        outcomes(&mut leader, [raise(a, 1), noted(b, "no JSON form"), raise(c, 1)]).await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    assert!(matches!(&outcomes[1], Err(CommandError::Failed(why)) if why.contains("JSON form")));
    assert_eq!((total(&leader, a).await, total(&leader, b).await), (1, 0));
}

async fn data_that_the_database_refuses_fails_only_its_own_command(house: House) {
    let mut leader = house.leader().await;
    let counters: Vec<_> = (0..10).map(|_| counter()).collect();
    let asked =
        (1..).zip(&counters).map(|(n, counter)| raise(*counter, if n == 7 { 13 } else { n }));
    let outcomes = outcomes(&mut leader, asked).await;
    for (n, (outcome, counter)) in (1..).zip(outcomes.iter().zip(&counters)) {
        assert_eq!(outcome.is_ok(), n != 7, "command {n}: {outcome:?}");
        assert_eq!(total(&leader, *counter).await, if n == 7 { 0 } else { n });
    }
    assert!(matches!(&outcomes[6], Err(CommandError::Failed(why)) if why.contains("refuses")));
    house.follower().await;
    house.proven().await;
}

async fn a_row_that_cannot_be_read_fails_only_the_commands_that_need_it(house: House) {
    let mut leader = house.leader().await;
    let (bad, good) = (counter(), counter());
    command(&mut leader, [raise(bad, 1)]).await;
    house.execute("leader", "update counters set rings = 'many'").await;
    // Another process: the first has the row in memory.
    let mut leader = house.leader().await;
    let outcomes = outcomes(&mut leader, [raise(bad, 1), raise(good, 1)]).await;
    let expected = "counters.rings holds 'many', which is not i64";
    assert!(
        matches!(&outcomes[0], Err(CommandError::Failed(why)) if why.contains(expected)),
        "{outcomes:?}"
    );
    assert!(outcomes[1].is_ok(), "{outcomes:?}");
}

async fn rows_in_memory_are_loaded_anew_after_another_process_changed_them(house: House) {
    let mut replicas = [house.leader().await, house.leader().await];
    let (shared, own) = (counter(), counter());
    for (round, replica) in [0, 0, 1, 0, 1, 1, 1, 0].into_iter().enumerate() {
        command(&mut replicas[replica], [raise(shared, 1), raise(own, 1)]).await;
        let so_far = i64::try_from(round + 1).expect("it fits");
        assert_eq!(total(&replicas[replica], shared).await, so_far, "after round {round}");
    }
    house.follower().await;
    house.proven().await;
}

async fn what_a_failed_command_did_to_a_row_in_memory_is_gone(house: House) {
    let mut leader = house.leader().await;
    let counter = counter();
    command(&mut leader, [raise(counter, 1)]).await;
    let failed = outcomes(&mut leader, [noted(counter, "panic in evolve")]).await;
    assert!(matches!(&failed[0], Err(CommandError::Failed(_))), "{failed:?}");
    let refused = outcomes(&mut leader, [raise(counter, -1)]).await;
    assert!(matches!(&refused[0], Err(CommandError::Refused(OnlyUp))), "{refused:?}");
    command(&mut leader, [raise(counter, 2)]).await;
    assert_eq!(total(&leader, counter).await, 3);
    house.follower().await;
    house.proven().await;
}

async fn outcomes<S: Service<Command = Raise>>(
    steps: &mut waybill_runtime::Steps<S>,
    asked: impl IntoIterator<Item = Raise>,
) -> Vec<Outcome<S>> {
    batch(steps, asked.into_iter().map(|raise| request(raise, None)).collect()).await
}

async fn the_number_of_statements_does_not_depend_on_the_size_of_a_batch(house: House) {
    // In a process of its own, where nothing else runs statements.
    let said = processes::run("processes::counts_statements", &house.location).await;
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

async fn a_repeated_key_gets_the_first_answer_again_and_another_request_under_it_is_refused(
    house: House,
) {
    let mut leader = house.leader().await;
    let a = counter();
    let ask = |by| request::<Leader>(raise(a, by), Some("the key"));
    let first = batch(&mut leader, vec![ask(1)]).await.remove(0).unwrap();
    command(&mut leader, [raise(a, 5)]).await;
    let mut other_replica = house.leader().await;
    for replica in [&mut leader, &mut other_replica] {
        let again = batch(replica, vec![ask(1)]).await.remove(0).unwrap();
        assert_eq!(again, first, "to the byte, though the counter was raised since");
        let other = batch(replica, vec![ask(2)]).await.remove(0);
        assert!(matches!(other, Err(CommandError::KeyReused)), "{other:?}");
    }
    assert_eq!(total(&leader, a).await, 6);
}

async fn a_key_repeated_within_one_batch_is_carried_out_once(house: House) {
    let mut leader = house.leader().await;
    let (a, b) = (counter(), counter());
    let asked = [raise(a, 1), raise(b, 1), raise(a, 1), raise(a, 2)];
    let requests = asked.into_iter().map(|raise| request(raise, Some("the key"))).collect();
    let outcomes: Vec<Outcome<Leader>> = batch(&mut leader, requests).await;
    assert!(matches!(outcomes[1], Err(CommandError::KeyReused)), "{outcomes:?}");
    assert!(matches!(outcomes[3], Err(CommandError::KeyReused)), "{outcomes:?}");
    assert_eq!(outcomes[0].as_ref().unwrap(), outcomes[2].as_ref().unwrap());
    assert_eq!((total(&leader, a).await, total(&leader, b).await), (1, 0));
}

async fn the_answer_to_a_refused_command_is_not_stored(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    let ask = |by| request::<Leader>(raise(a, by), Some("the key"));
    for _ in 0..2 {
        let refused = batch(&mut leader, vec![ask(-1)]).await.remove(0);
        assert!(matches!(refused, Err(CommandError::Refused(OnlyUp))), "{refused:?}");
    }
    assert!(batch(&mut leader, vec![ask(3)]).await.remove(0).is_ok(), "the key is still free");
}

/// Raises it by 2 if nobody raised it since it was first raised.
fn only_at_first(counter: CounterId) -> Request<Leader> {
    Request { if_match: Some(vec![Version(1)]), ..request(raise(counter, 2), Some("the key")) }
}

async fn a_repeated_command_gets_its_stored_answer_though_it_would_be_refused_by_now(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    command(&mut leader, [raise(a, 1)]).await;
    for _ in 0..3 {
        let answer = batch(&mut leader, vec![only_at_first(a)]).await.remove(0);
        assert_eq!(answer.expect("its version was the present one then").body, "3");
        let other =
            batch(&mut leader, vec![request(raise(a, -1), Some("the key"))]).await.remove(0);
        assert!(matches!(other, Err(CommandError::KeyReused)), "{other:?}");
        // Rows are in memory again, and the next unit is decided ahead.
        command(&mut leader, [raise(counter(), 1)]).await;
    }
    // Another replica has the row in memory, too, but never heard of the key.
    let mut other = house.leader().await;
    command(&mut other, [raise(a, 1)]).await;
    let answer = batch(&mut other, vec![only_at_first(a)]).await.remove(0);
    assert_eq!(answer.expect("its version was the present one then").body, "3");
    assert_eq!(total(&leader, a).await, 4);
}

async fn a_repeat_right_behind_its_original_gets_the_same_answer(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    command(&mut leader, [raise(a, 1)]).await;
    let handle = leader.handle.clone();
    let mut asking =
        pin!(join_all([handle.submit(only_at_first(a)), handle.submit(only_at_first(a))]));
    assert!(asking.as_mut().now_or_never().is_none(), "both are in the queue");
    // A unit for each: the second is decided while the first is not committed.
    leader.step_commands(1).await.unwrap();
    leader.step_commands(1).await.unwrap();
    for answer in asking.await {
        assert_eq!(answer.expect("its version was the present one then").body, "3");
    }
    assert_eq!(total(&leader, a).await, 3);
}

async fn a_command_for_an_older_version_is_stale(house: House) {
    let mut leader = house.leader().await;
    let a = counter();
    command(&mut leader, [raise(a, 1), raise(a, 1)]).await;
    let ask = |seen: &[i64]| Request::<Leader> {
        if_match: Some(seen.iter().map(|version| Version(*version)).collect()),
        ..request(raise(a, 1), None)
    };
    let outcomes = batch(&mut leader, vec![ask(&[1]), ask(&[9, 2]), ask(&[2])]).await;
    assert!(matches!(outcomes[0], Err(CommandError::Stale { current: Version(2) })));
    assert_eq!(outcomes[1].as_ref().unwrap().version, Version(3));
    assert!(matches!(outcomes[2], Err(CommandError::Stale { current: Version(3) })));
    assert_eq!(seen(&leader, a).await.unwrap().version, Version(3));
}

async fn old_answers_are_pruned_a_bounded_number_at_a_time(house: House) {
    const DAY: Duration = Duration::from_hours(24);
    let mut leader = house.leader().await;
    let a = counter();
    for batch_number in 0..3 {
        let keys = (0..500).map(|n| format!("key {batch_number} {n}"));
        let requests = keys.map(|key| request(raise(a, 20), Some(&key))).collect();
        batch(&mut leader, requests).await;
    }
    house.hand.advance(6 * DAY);
    assert_eq!(leader.writer.step_prune().await.unwrap(), Step::Idle, "none is old yet");
    batch(&mut leader, vec![request(raise(a, 20), Some("a newer key"))]).await;
    house.hand.advance(DAY + Duration::from_secs(1));
    assert_eq!(leader.writer.step_prune().await.unwrap(), Step::Did(1_000));
    assert_eq!(leader.writer.step_prune().await.unwrap(), Step::Did(500));
    assert_eq!(leader.writer.step_prune().await.unwrap(), Step::Idle);
    let left = house.texts("leader", "select idempotency_key from answers").await;
    assert_eq!(left, ["a newer key"]);
}

async fn a_caller_that_goes_away_interrupts_nothing(house: House) {
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let a = counter();
    for _ in 0..20 {
        let handle = leader.handle.clone();
        let ask = request(raise(a, 2), None);
        // Asked and gone before anybody looked at it.
        let asking = tokio::spawn(async move { handle.submit(ask).await });
        while leader.step_commands(1).await.unwrap() == Step::Idle {
            tokio::task::yield_now().await;
        }
        asking.abort();
    }
    relay_all(&mut leader).await;
    hear_all::<Follower>(&mut follower).await;
    assert_eq!((total(&leader, a).await, total(&follower, a).await), (40, 40));
    house.proven().await;
}
