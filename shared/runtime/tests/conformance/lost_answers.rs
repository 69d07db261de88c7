//! Commits whose answer is lost on the way: what became of them is found out.

use waybill_runtime::{CommandError, Location, Outcome, Step, StoreError};

use crate::counter::Leader;
use crate::house::{
    House, batch, command, counter, hear_all, letters, noted, raise, relay_all, request, ring_all,
    ringing, seen, total,
};
use crate::proxy::{Cut, Proxy};

on!(Postgres, postgres:
    a_command_whose_commit_took_place_is_answered,
    a_command_whose_commit_did_not_take_place_is_not_done,
    a_lost_answer_to_events_doubles_and_loses_nothing,
    a_lost_answer_to_a_parked_event_parks_it_once,
    a_lost_answer_to_an_append_doubles_and_loses_nothing,
    a_lost_answer_at_the_start_of_a_run_is_no_obstacle,
    a_lost_answer_to_timers_fires_them_once,
);

/// The house, reached through a proxy.
async fn through(mut house: House) -> (House, Proxy) {
    let url = house.url().to_owned();
    let proxy = Proxy::before(&url).await;
    house.location = Location::Postgres(proxy.url(&url));
    (house, proxy)
}

async fn a_command_whose_commit_took_place_is_answered(house: House) {
    let (house, proxy) = through(house).await;
    let mut leader = house.leader().await;
    let a = counter();
    for round in 1..=5 {
        proxy.cut_next_commit(Cut::After);
        let keyed = request(raise(a, 2), Some(&format!("key {round}")));
        let refused = request(raise(counter(), -1), None);
        let outcomes: Vec<Outcome<Leader>> = batch(&mut leader, vec![keyed, refused]).await;
        assert_eq!(outcomes[0].as_ref().unwrap().body, (2 * round).to_string());
        assert!(matches!(outcomes[1], Err(CommandError::Refused(_))));
        assert_eq!(proxy.cuts(), round);
    }
    assert_eq!(seen(&leader, a).await.unwrap().version.0, 5);
    house.follower().await;
    house.proven().await;
}

async fn a_command_whose_commit_did_not_take_place_is_not_done(house: House) {
    let (house, proxy) = through(house).await;
    let mut leader = house.leader().await;
    let a = counter();
    let ask = || vec![request::<Leader>(raise(a, 2), Some("the key"))];
    for round in 1..=3 {
        proxy.cut_next_commit(Cut::Before);
        let outcome = batch(&mut leader, ask()).await.remove(0);
        assert!(matches!(outcome, Err(CommandError::Unavailable)), "{outcome:?}");
        assert_eq!((proxy.cuts(), total(&leader, a).await), (round, 0));
    }
    assert_eq!(batch(&mut leader, ask()).await.remove(0).unwrap().body, "2");
    proxy.cut_next_commit(Cut::After);
    assert_eq!(batch(&mut leader, ask()).await.remove(0).unwrap().body, "2");
    assert_eq!(total(&leader, a).await, 2);
}

async fn a_lost_answer_to_events_doubles_and_loses_nothing(house: House) {
    let (house, proxy) = through(house).await;
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let a = counter();
    for cut in [Cut::After, Cut::Before, Cut::After, Cut::After, Cut::Before] {
        command(&mut leader, [raise(a, 2), raise(a, 2)]).await;
        relay_all(&mut leader).await;
        proxy.cut_next_commit(cut);
        let stepped = follower.writer.step_events(100).await;
        match cut {
            Cut::After => assert_eq!(stepped.unwrap(), Step::Did(2), "it took place after all"),
            Cut::Before => assert!(stepped.unwrap_err().is_passing()),
        }
        hear_all(&mut follower).await;
    }
    assert_eq!((proxy.cuts(), total(&follower, a).await), (5, 20));
    house.proven().await;
}

async fn a_lost_answer_to_a_parked_event_parks_it_once(house: House) {
    let (house, proxy) = through(house).await;
    let (mut follower, _) = house.follower_failing_on(&["poison"]).await;
    let mut leader = house.leader().await;
    for (number, cut) in [Cut::After, Cut::Before, Cut::After].into_iter().enumerate() {
        command(&mut leader, [noted(counter(), "poison")]).await;
        relay_all(&mut leader).await;
        // No event follows, so only the checkpoint shows what became of it.
        proxy.cut_next_commit(cut);
        assert_eq!(follower.writer.step_events(100).await.is_ok(), cut == Cut::After);
        hear_all(&mut follower).await;
        assert_eq!(letters(&follower).await.len(), number + 1);
    }
    assert_eq!(letters(&follower).await, ["parked counter.raised 1"; 3]);
}

async fn a_lost_answer_to_an_append_doubles_and_loses_nothing(house: House) {
    let (house, proxy) = through(house).await;
    let (mut leader, mut follower) = (house.leader().await, house.follower().await);
    let a = counter();
    for (round, cut) in [Cut::After, Cut::Before, Cut::After, Cut::Before].into_iter().enumerate() {
        command(&mut leader, [raise(a, 2), raise(a, 2)]).await;
        proxy.cut_next_commit(cut);
        match leader.relay.step().await {
            Err(StoreError::Unavailable(_)) if round == 0 => {}
            // Who knew where the log ends finds out itself what became of what it sent at once.
            Ok(Step::Did(0)) if cut == Cut::After => {}
            Ok(Step::Did(2)) if cut == Cut::Before => {}
            other => panic!("round {round}, cut {cut:?}: {other:?}"),
        }
        relay_all(&mut leader).await;
        // From an append that is answered it knows where the log ends.
        command(&mut leader, [raise(a, 2), raise(a, 2)]).await;
        relay_all(&mut leader).await;
    }
    hear_all(&mut follower).await;
    assert_eq!((proxy.cuts(), total(&follower, a).await), (4, 32));
    house.proven().await;
}

async fn a_lost_answer_at_the_start_of_a_run_is_no_obstacle(house: House) {
    let (house, proxy) = through(house).await;
    let mut leader = house.leader().await;
    proxy.cut_next_commit(Cut::After);
    assert!(leader.writer.start("a run").await.unwrap_err().is_passing());
    leader.writer.start("a run").await.unwrap();
    proxy.cut_next_commit(Cut::After);
    assert!(leader.writer.stop("a run").await.is_err());
    leader.writer.stop("a run").await.unwrap();
    assert_eq!(house.count("leader", "select count(*) from runs").await, 0);
}

async fn a_lost_answer_to_timers_fires_them_once(house: House) {
    let (house, proxy) = through(house).await;
    let mut leader = house.leader().await;
    let (a, wait) = (counter(), std::time::Duration::from_secs(1));
    for (number, cut) in (1..).zip([Cut::After, Cut::Before, Cut::After]) {
        command(&mut leader, [ringing(a, wait)]).await;
        house.hand.advance(wait);
        proxy.cut_next_commit(cut);
        assert_eq!(leader.writer.step_timers(9).await.is_ok(), cut == Cut::After);
        ring_all(&mut leader).await;
        assert_eq!(seen(&leader, a).await.unwrap().rings, number);
    }
}
