//! Each request, against what its client was told: what was answered is done, once, and what was
//! not done left nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use anyhow::ensure;
use waybill_runtime::StoredEvent;

use crate::desk::{Came, Intent};
use crate::people;
use crate::world::{Name, World, at};

/// Checks every intent of every client.
pub(super) async fn check(world: &mut World, events: &[StoredEvent]) -> anyhow::Result<()> {
    let caused: BTreeSet<&str> =
        events.iter().map(|stored| stored.envelope.causation.as_str()).collect();
    for name in Name::ALL {
        at!(world, *name, site => {
            for intent in &site.desk.intents {
                done_once(*name, intent, &caused)?;
            }
        });
        let rows = world.watch.texts::<(String, String)>(format!(
            "select idempotency_key, answer from \"{name}\".answers"
        ));
        let stored: BTreeMap<String, String> = rows.await?.into_iter().collect();
        at!(world, *name, site => {
            for intent in &site.desk.intents {
                let answered = intent.answer.is_some().then_some(intent.key.as_ref()).flatten();
                let kept = answered.is_none_or(|key| stored.contains_key(key));
                ensure!(kept, "{name} forgot the answer to {intent:?}");
            }
        });
    }
    let streams: BTreeSet<&str> = events
        .iter()
        .filter(|stored| stored.envelope.kind == "order.placed")
        .map(|stored| stored.envelope.stream.as_str())
        .collect();
    for order_id in people::placed(&world.order.desk) {
        let stream = format!("order-{order_id}");
        ensure!(streams.contains(stream.as_str()), "order {order_id} was answered and is lost");
    }
    Ok(())
}

fn done_once<C: Debug>(
    name: Name,
    intent: &Intent<C>,
    caused: &BTreeSet<&str>,
) -> anyhow::Result<()> {
    let effects = |came: Option<Came>| {
        let of = intent.requests.iter().filter(move |(_, known)| came.is_none_or(|c| c == *known));
        of.filter(|(id, _)| caused.contains(id.to_string().as_str())).count()
    };
    let nothing = effects(Some(Came::Nothing));
    ensure!(nothing == 0, "{name} said that nothing was done, and did it: {intent:?}");
    ensure!(!intent.reuses_key || effects(None) == 0, "{name} took a key twice: {intent:?}");
    let once = intent.key.is_none() || effects(None) <= 1;
    ensure!(once, "{name} did it twice: {intent:?}");
    // A change to what is already so, and a cancel that is already asked for, lead to nothing.
    let command = format!("{:?}", intent.command);
    let may_be_so = command.starts_with("Change") || command.starts_with("Cancel");
    let done = intent.answer.is_none() || may_be_so || effects(None) == 1;
    ensure!(done, "{name} answered and did not do it: {intent:?}");
    Ok(())
}
