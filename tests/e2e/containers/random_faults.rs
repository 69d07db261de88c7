//! Whatever happens to containers under load: in the end nothing that was answered is lost or
//! doubled.

use std::fmt;
use std::time::Duration;

use super::nothing_was_lost_or_doubled;
use crate::load::Load;
use crate::support::{
    Container, Dice, Kind, PATIENCE, Project, Stack, World, docker, docker_on, until, variable,
};

/// The containers that something may happen to, by their service.
const VICTIMS: [&str; 7] =
    ["order", "inventory", "logistics", "user", "audit", "gateway", "postgres"];
/// How long the whole may take.
const BOUND: Duration = Duration::from_mins(12);

/// What may happen to a container.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is killed by the engine, and started again after this.
    Killed(Duration),
    /// Its process ends as by `kill -9`, and its restart policy brings it back.
    Crashed,
    /// It hangs for so long.
    Paused(Duration),
    /// It is stopped in an orderly way and started again.
    Restarted,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(gone) => write!(f, "killed, gone for {} ms", gone.as_millis()),
            Self::Crashed => write!(f, "crashed"),
            Self::Paused(time) => write!(f, "paused for {} ms", time.as_millis()),
            Self::Restarted => write!(f, "restarted"),
        }
    }
}

impl Fault {
    fn thrown(dice: &mut Dice) -> Self {
        match dice.roll(4) {
            0 => Self::Killed(dice.time(0, 2_000)),
            1 => Self::Crashed,
            2 => Self::Paused(dice.time(1_000, 6_000)),
            _ => Self::Restarted,
        }
    }
}

async fn happens(fault: Fault, victim: &Container, project: &Project) {
    let victims = std::slice::from_ref(victim);
    match fault {
        Fault::Killed(gone) => {
            docker_on(&["kill"], victims).await;
            tokio::time::sleep(gone).await;
            docker_on(&["start"], victims).await;
        }
        Fault::Crashed => crash(victim, project).await,
        Fault::Paused(time) => {
            docker_on(&["pause"], victims).await;
            tokio::time::sleep(time).await;
            docker_on(&["unpause"], victims).await;
        }
        Fault::Restarted => drop(docker_on(&["restart"], victims).await),
    }
}

/// Kills the process of a container behind the engine's back, which `docker kill` does not: what it
/// kills it does not start again. Only a container beside it sees its process.
async fn crash(victim: &Container, project: &Project) {
    let process = async || {
        let form = "{{.State.Running}} {{.State.Pid}}";
        let running = docker(&["inspect", "--format", form, &victim.id]).await;
        running.trim().strip_prefix("true ").map(str::to_owned)
    };
    let before = process().await.expect("it runs");
    let postgres = project.one("postgres").await.id;
    let image = docker(&["inspect", "--format", "{{.Image}}", &postgres]).await;
    let run = ["run", "--rm", "--pid=host", "--network=none", "--user=root", "--entrypoint=sh"];
    let kill = format!("kill -KILL {before}");
    docker(&[&run[..], &[image.trim(), "-c", &kill]].concat()).await;
    until(&format!("{} is back", victim.name), PATIENCE, async || {
        process().await.filter(|now| *now != before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the containers that `scripts/test compose` starts"]
async fn thirty_random_faults_under_load_lose_and_double_nothing() {
    let faults = variable("WAYBILL_TEST_FAULTS", 30);
    let mut dice = Dice::thrown();
    eprintln!("{faults} random faults");
    let run = tokio::time::timeout(BOUND, random_faults(&mut dice, faults));
    run.await.unwrap_or_else(|_| panic!("not over within {BOUND:?}"));
}

async fn random_faults(dice: &mut Dice, faults: u64) {
    let stack = Stack::start(Kind::Compose).await;
    // The first product and the first customer do not last for all.
    let world = World::make(&stack, &[(100, 150), (250, 100_000)], &[20_000, 10_000_000]).await;
    let mut load = Load::steady(&stack, &world, 8, Duration::from_millis(300));
    for number in 1..=faults {
        // The load goes on, however soon the next fault comes.
        load.answered(load.answers() + 5).await;
        let service = *dice.pick(&VICTIMS);
        let project = &stack.compose().project;
        let mut victims = project.containers().await;
        victims.retain(|one| one.service == service && one.state == "running");
        victims.sort_by(|one, other| one.name.cmp(&other.name));
        let (victim, fault) = (dice.pick(&victims).clone(), Fault::thrown(dice));
        eprintln!("{number:>2} {} {fault}; {} orders so far", victim.name, load.answers());
        happens(fault, &victim, project).await;
        tokio::time::sleep(dice.time(0, 1_000)).await;
    }
    load.answered(load.answers() + 50).await;
    let answered = load.stop().await;
    let orders = nothing_was_lost_or_doubled(stack, &world, &answered).await;
    let ended = |end: &str| orders.values().filter(|order| order["status"] == end).count();
    let (completed, rejected) = (ended("completed"), ended("rejected"));
    eprintln!("{} orders: {completed} completed, {rejected} rejected", orders.len());
    assert_eq!(completed + rejected, orders.len(), "nobody cancels");
}
