//! The stormy part of a run: a seeded scheduler that lets anything happen next.

use std::time::Duration;

use waybill_runtime::DeadLetterStatus;
use waybill_runtime::failpoints::CommitPoint;

use crate::people::{self, Wish};
use crate::poison;
use crate::replica::Kind;
use crate::site::REPLICAS;
use crate::tally::{self, Branch, Fault};
use crate::world::{Name, World, at};

/// What this run is like. Each run has much of some troubles and little of others: two that are both
/// rare would hardly ever meet otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// How much happens.
    happenings: usize,
    /// Of a hundred steps so many have a fault inside.
    faulty_steps: u32,
    /// One in so many messages is poisoned; none if 0.
    pub(crate) poisoned: u64,
    /// Of a hundred dead letters the operator gives up so many.
    discarded: u32,
    weights: Weights,
}

/// How often each thing happens, beside the steps.
#[derive(Clone, Copy, Debug)]
struct Weights {
    wishes: u32,
    repeats: u32,
    hang_ups: u32,
    ticks: u32,
    jumps: u32,
    clocks: u32,
    crashes: u32,
    all_crash: u32,
    stops: u32,
    opens: u32,
    wakes: u32,
    operator: u32,
    rewinds: u32,
    stores: u32,
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Step,
    Wish,
    Repeat,
    HangUp,
    Tick,
    Jump,
    Clock,
    Crash,
    AllCrash,
    Stop,
    Open,
    Wake,
    Operator,
    Rewind,
    Store,
}

impl Weather {
    /// The weather of a run, and its ambush: the seeds take turns with the places where faults can
    /// happen, so that a few runs reach all of them.
    pub(crate) fn of(world: &mut World, seed: u64) -> Self {
        let ambush = tally::nth_fault(seed);
        world.ambush = Some(ambush);
        let (retries, stops) = match ambush.0 {
            CommitPoint::Attempt | CommitPoint::ParkedEvent | CommitPoint::Retries => (true, false),
            CommitPoint::RunEnded => (false, true),
            _ => (false, false),
        };
        let chance = &mut world.chance;
        let mut some = |much: u32| *chance.pick(&[0, much / 4, much]);
        let weights = Weights {
            wishes: 60 + some(60),
            repeats: some(16),
            hang_ups: some(8),
            ticks: 30 + some(60),
            jumps: some(6),
            clocks: some(6),
            crashes: some(16),
            all_crash: some(4),
            stops: if stops { 20 } else { some(8) },
            opens: 20 + some(40),
            wakes: 30 + some(60),
            operator: 10 + some(60),
            rewinds: some(4),
            stores: some(8),
        };
        let faulty_steps = some(60);
        let happenings = 160 + chance.below(200);
        let poisoned = if retries { 5 } else { *chance.pick(&[0, 0, 60, 12]) };
        let discarded = *chance.pick(&[2, 50]);
        Self { happenings, faulty_steps, poisoned, discarded, weights }
    }

    fn happening(&self, world: &mut World) -> Happening {
        let w = &self.weights;
        let other = w.wishes + w.repeats + w.ticks;
        world.chance.weighted(&[
            (other * 5 + 200, Happening::Step),
            (w.wishes, Happening::Wish),
            (w.repeats, Happening::Repeat),
            (w.hang_ups, Happening::HangUp),
            (w.ticks, Happening::Tick),
            (w.jumps, Happening::Jump),
            (w.clocks, Happening::Clock),
            (w.crashes, Happening::Crash),
            (w.all_crash, Happening::AllCrash),
            (w.stops, Happening::Stop),
            (w.opens, Happening::Open),
            (w.wakes, Happening::Wake),
            (w.operator, Happening::Operator),
            (w.rewinds, Happening::Rewind),
            (w.stores, Happening::Store),
        ])
    }
}

/// Lets things happen.
pub(crate) async fn rage(world: &mut World, weather: Weather) -> anyhow::Result<()> {
    for _ in 0..weather.happenings {
        let happening = weather.happening(world);
        let name = *world.chance.pick(Name::ALL);
        match happening {
            Happening::Step => step(world, name, weather.faulty_steps).await?,
            Happening::Wish => wish(world)?,
            Happening::Repeat => world.repeat_some(name)?,
            Happening::HangUp => world.hang_up(name),
            Happening::Tick => {
                let millis = *world.chance.pick(&[1, 20, 300, 1_200, 2_500]);
                world.pass(Duration::from_millis(millis));
            }
            Happening::Jump => {
                let seconds = world.chance.below(1_000) + 1;
                world.pass(Duration::from_secs(seconds.try_into()?));
            }
            Happening::Clock => set_a_clock_off(world, name),
            Happening::Crash => crash(world, name).await?,
            Happening::AllCrash => all_crash(world).await?,
            Happening::Stop => stop(world, name, weather.faulty_steps).await?,
            Happening::Open => open(world, name).await?,
            Happening::Wake => wake(world, name).await?,
            Happening::Operator => operate(world, weather.discarded).await?,
            Happening::Rewind => world.rewind(name).await?,
            Happening::Store => lose_store(world).await?,
        }
    }
    Ok(())
}

/// A step of some replica of the service, perhaps with a fault inside.
async fn step(world: &mut World, name: Name, faulty: u32) -> anyhow::Result<()> {
    let resting = at!(world, name, site => site.resting());
    let Some(index) = world.chance.any(&resting).copied() else { return Ok(()) };
    let (started, asked) = at!(world, name, site => {
        let started = site.replicas[index].as_ref().is_some_and(|replica| replica.started);
        (started, site.desk.waiting_for(index) > 0)
    });
    let limit = *world.chance.pick(&[1, 2, 5, 100]);
    let (unread, unrelayed) = (world.unread.contains(&name), world.unrelayed.contains(&name));
    let retrying = world.retrying.contains(&name);
    let kind = if started {
        world.chance.weighted(&[
            (if unread { 40 } else { 4 }, Kind::Events(limit)),
            (if unrelayed { 30 } else { 2 }, Kind::Relay),
            (if asked { 30 } else { 0 }, Kind::Commands(limit)),
            (6, Kind::Timers(limit)),
            (if retrying { 30 } else { 1 }, Kind::Retries(limit)),
            (1, Kind::Prune),
        ])
    } else {
        world.chance.weighted(&[(3, Kind::Start), (1, Kind::Relay)])
    };
    // A fault in a step that has nothing to do does not happen.
    let likely = match kind {
        Kind::Events(_) => unread,
        Kind::Relay => unrelayed,
        Kind::Prune => false,
        _ => true,
    };
    let fault = some_fault(world, if likely { faulty } else { faulty / 8 });
    world.step(name, index, kind, fault).await
}

/// A fault, and how often its moment passes before it happens.
fn some_fault(world: &mut World, percent: u32) -> Option<(Fault, usize)> {
    if !world.chance.percent(percent) {
        return None;
    }
    let fault = *world.chance.pick(Fault::ALL);
    Some((fault, *world.chance.pick(&[0, 0, 0, 1, 2])))
}

fn wish(world: &mut World) -> anyhow::Result<()> {
    let wish = world.chance.weighted(&[
        (2, Wish::List),
        (4, Wish::Change),
        (6, Wish::Receive),
        (1, Wish::Register),
        (10, Wish::Deposit),
        (30, Wish::Place),
        (8, Wish::Cancel),
        (24, Wish::Report),
        (3, Wish::Reuse),
    ]);
    people::want(world, wish)
}

fn set_a_clock_off(world: &mut World, name: Name) {
    let seconds = world.chance.between(-300, 300);
    let whose = world.chance.percent(75).then_some(name);
    let index = world.chance.below(REPLICAS);
    world.log.line(format_args!("the clock of {whose:?}/{index} is off by {seconds} s"));
    world.tally.reach(if seconds < 0 { Branch::ClockBack } else { Branch::ClockAhead });
    world.set_off(whose, index, seconds * 1_000_000);
}

async fn crash(world: &mut World, name: Name) -> anyhow::Result<()> {
    let index = world.chance.below(REPLICAS);
    world.tally.reach(Branch::Crashed);
    world.end(name, index).await
}

async fn all_crash(world: &mut World) -> anyhow::Result<()> {
    world.tally.reach(Branch::AllCrashed);
    world.end_all().await?;
    world.begin_again().await
}

async fn stop(world: &mut World, name: Name, faulty: u32) -> anyhow::Result<()> {
    let resting = at!(world, name, site => site.resting());
    let Some(index) = world.chance.any(&resting).copied() else { return Ok(()) };
    let fault = some_fault(world, faulty);
    world.step(name, index, Kind::Stop, fault).await?;
    // A replica that paused in its end may go on and end later; whoever is killed instead crashes.
    if at!(world, name, site => site.resting()).contains(&index) {
        world.tally.reach(Branch::Stopped);
        world.end(name, index).await?;
    }
    Ok(())
}

async fn open(world: &mut World, name: Name) -> anyhow::Result<()> {
    let empty = at!(world, name, site => site.empty());
    let Some(index) = world.chance.any(&empty).copied() else { return Ok(()) };
    if empty.len() < REPLICAS {
        world.tally.reach(Branch::SecondReplica);
    }
    world.open(name, index).await
}

async fn wake(world: &mut World, name: Name) -> anyhow::Result<()> {
    let paused = at!(world, name, site => site.paused());
    match world.chance.any(&paused).copied() {
        Some(index) => world.wake(name, index).await,
        None => Ok(()),
    }
}

/// An operator looks at all dead letters and decides about one of them.
async fn operate(world: &mut World, discarded: u32) -> anyhow::Result<()> {
    let mut parked = Vec::new();
    for name in Name::ALL {
        parked.extend(world.parked(*name).await?.into_iter().map(|letter| (*name, letter)));
    }
    let Some((name, letter)) = world.chance.any(&parked).cloned() else { return Ok(()) };
    let discards = world.chance.percent(discarded);
    if !discards && world.chance.percent(60) {
        poison::repair(name.as_str(), &letter.id);
        poison::repair(name.as_str(), &letter.lane);
    }
    let status = if discards { DeadLetterStatus::Discarded } else { DeadLetterStatus::Retrying };
    world.settle(name, &letter, status).await?;
    Ok(())
}

/// The event store is backed up; or everything ends, and it is found lost, or as it was then.
async fn lose_store(world: &mut World) -> anyhow::Result<()> {
    if world.chance.percent(50) {
        return world.back_up_store();
    }
    world.end_all().await?;
    world.replace_store().await?;
    world.begin_again().await
}
