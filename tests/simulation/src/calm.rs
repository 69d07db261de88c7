//! The calm after the storm: nothing breaks any more, and everything must come to its end.

use std::time::Duration;

use anyhow::bail;
use waybill_logistics::TrackingStatus;
use waybill_runtime::{DeadLetterStatus, Settled};

use crate::people;
use crate::poison;
use crate::replica::Kind;
use crate::site::REPLICAS;
use crate::tally::Branch;
use crate::world::{Name, World, at};

/// More rounds than any backlog of a run takes: a run that goes on for ever fails instead of hanging.
const ROUNDS: usize = 300;
/// Longer than any deadline, and than any clock is off.
const LONG: Duration = Duration::from_secs(2_000);

/// Brings everything to its end.
pub(crate) async fn settle_down(world: &mut World) -> anyhow::Result<()> {
    world.log.line(format_args!("calm"));
    one_replica_each(world).await?;
    come_to_rest(world).await?;
    world.everything_parked_is_listed().await?;
    poison::repair_all();
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        let wanted = retry_all(world).await? | ask_again(world)? | bring_all(world).await?;
        // Past every deadline, and past the time that a checkpoint may be unsaved.
        world.pass(LONG);
        let did = come_to_rest(world).await?;
        // Twice, for a consumer that finds only then that another one has moved the checkpoint.
        quiet = if wanted || did { 0 } else { quiet + 1 };
        if quiet == 2 {
            return Ok(());
        }
    }
    bail!("there is no end of retries")
}

/// Wakes every paused replica, and ends all but one of each service.
async fn one_replica_each(world: &mut World) -> anyhow::Result<()> {
    for name in Name::ALL {
        for index in 0..REPLICAS {
            world.wake(*name, index).await?;
        }
        while at!(world, *name, site => site.resting().len()) > 1 {
            world.end(*name, 1).await?;
        }
    }
    Ok(())
}

/// Takes steps until none of them does anything: only those that have something to do, as far as is
/// known, and in the end all. Whether any did.
pub(crate) async fn come_to_rest(world: &mut World) -> anyhow::Result<bool> {
    let mut thorough = true;
    for round in 0..ROUNDS {
        world.busy = false;
        for name in Name::ALL {
            steps(world, *name, thorough).await?;
        }
        if thorough && !world.busy {
            return Ok(round > 0);
        }
        thorough = !world.busy;
    }
    bail!("it does not come to rest")
}

/// Steps of each replica of the service, of which there is at least one.
async fn steps(world: &mut World, name: Name, thorough: bool) -> anyhow::Result<()> {
    if at!(world, name, site => site.empty().len()) == REPLICAS {
        world.open(name, 0).await?;
    }
    for index in 0..REPLICAS {
        let (started, asked) = at!(world, name, site => {
            let started = site.replicas[index].as_ref().is_some_and(|replica| replica.started);
            (started, site.desk.waiting_for(index) > 0)
        });
        let due = [
            (!started, Kind::Start),
            (asked, Kind::Commands(100)),
            (thorough, Kind::Timers(100)),
            (thorough || world.retrying.contains(&name), Kind::Retries(100)),
            (thorough || world.unread.contains(&name), Kind::Events(100)),
            (thorough || world.unrelayed.contains(&name), Kind::Relay),
        ];
        for (_, kind) in due.into_iter().filter(|(due, _)| *due) {
            world.step(name, index, kind, None).await?;
            // Where the run's ambush was waiting.
            world.wake(name, index).await?;
        }
    }
    Ok(())
}

/// Every parked message is tried again; whether there was one.
async fn retry_all(world: &mut World) -> anyhow::Result<bool> {
    let mut any = false;
    for name in Name::ALL {
        for letter in world.parked(*name).await? {
            let settled = world.settle(*name, &letter, DeadLetterStatus::Retrying).await?;
            if settled == Some(Settled::Done) {
                world.tally.reach(Branch::Revived);
            }
            any = true;
        }
    }
    Ok(any)
}

/// Clients that do not know what became of their requests repeat them; whether there was one.
fn ask_again(world: &mut World) -> anyhow::Result<bool> {
    let mut any = false;
    for name in Name::ALL {
        let open: Vec<usize> = at!(world, *name, site => {
            let intents = site.desk.intents.iter().enumerate();
            let open = intents.filter(|(_, intent)| intent.key.is_some() && intent.is_open());
            open.map(|(index, _)| index).collect()
        });
        for intent in open {
            people::ask(world, *name, intent)?;
            any = true;
        }
    }
    Ok(any)
}

/// The carrier brings every parcel that is on its way, or will be; whether there was one. Where an
/// operator discarded what would have sent it, it never will.
async fn bring_all(world: &mut World) -> anyhow::Result<bool> {
    let waiting = "select order_id, id from logistics.shipments where status not in \
                   ('delivered', 'failed', 'cancelled')";
    let mut parcels = world.watch.texts::<(String, String)>(waiting.to_owned()).await?;
    parcels.retain(|(order_id, _)| !world.unsettled.contains(order_id));
    for (order_id, shipment_id) in &parcels {
        let (order_id, shipment_id) = (order_id.parse()?, shipment_id.parse()?);
        people::record(world, order_id, shipment_id, TrackingStatus::Delivered)?;
    }
    Ok(!parcels.is_empty())
}
