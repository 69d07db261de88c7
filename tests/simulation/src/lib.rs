//! The whole system in one thread: four services with their replicas, the event store, customers
//! and a carrier, on the real SQL, under a seeded scheduler that breaks whatever can break.
//!
//! The same seed is the same run, to the byte of its log. After the storm everything must come to
//! its end, and all invariants must hold.
//!
//! # Layout, in reading order
//! - [`run_many`]: many runs, several at once.
//! - [`run`]: one run, from its seed to what it came to.
//! - `storm`: what may happen next; `calm`: how everything comes to its end.
//! - `world`: the system, and all that can be done to it; `site`, `replica`: its services.
//! - `fault`: what happens inside a step; `poison`: messages on which services fail.
//! - `people`, `desk`: clients and the carrier, and what they remember; `operator`: dead letters.
//! - `invariants`: what must hold in the end; `watch`: what must hold all the time.
//! - [`Tally`]: what was reached; [`Log`]: what happened.
//! - `chance`, `template`: everything random; empty databases.

mod calm;
mod campaign;
mod chance;
mod desk;
mod fault;
mod invariants;
mod log;
mod operator;
mod people;
mod poison;
mod replica;
mod site;
mod storm;
mod tally;
mod template;
mod watch;
mod world;

pub use campaign::{Campaign, Plan, run_many, run_one};
pub use log::Log;
pub use tally::{Branch, Fault, Tally};
pub use template::Template;

use crate::storm::Weather;
use crate::world::World;

/// What a run came to.
#[derive(Debug)]
pub struct Run {
    /// What was violated, if anything was.
    pub outcome: anyhow::Result<()>,
    /// What was reached.
    pub tally: Tally,
    /// What happened.
    pub log: Log,
}

/// Runs the world of one seed to its end.
///
/// To be called within a current-thread runtime that runs nothing else.
pub async fn run(template: &Template, seed: u64, keep_text: bool) -> anyhow::Result<Run> {
    let mut world = World::new(template, seed, keep_text).await?;
    let outcome = live(&mut world, seed).await;
    if let Err(violation) = &outcome {
        world.log.line(format_args!("{violation:#}"));
    }
    let (tally, log) = world.close().await?;
    Ok(Run { outcome, tally, log })
}

async fn live(world: &mut World, seed: u64) -> anyhow::Result<()> {
    poison::begin(seed, 0);
    people::begin(world)?;
    calm::come_to_rest(world).await?;
    people::go_on(world)?;
    let weather = Weather::of(world, seed);
    world.log.line(format_args!("{weather:?}"));
    poison::begin(seed, weather.poisoned);
    storm::rage(world, weather).await?;
    calm::settle_down(world).await?;
    invariants::check(world).await
}
