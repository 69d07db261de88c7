//! What must hold once everything has come to its end.
//!
//! - `stories`: each order, from what was published about it.
//! - `requests`: each request, against what its client was told.
//! - here: the databases as a whole.

mod requests;
mod stories;

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use waybill_contract::{Event, InventoryEvent, UserEvent};
use waybill_inventory::InventoryService;
use waybill_logistics::LogisticsService;
use waybill_order::OrderService;
use waybill_runtime::fold::{self, EventStoreSnapshot, Finding};
use waybill_runtime::{Filter, Service, StoredEvent};
use waybill_user::UserService;

use self::stories::{Story, stories};
use crate::world::{ALL_EVENTS, Name, World};

/// Checks all of them.
pub(crate) async fn check(world: &mut World) -> anyhow::Result<()> {
    let stored = world.store.find(&Filter::default(), ALL_EVENTS).await?;
    world.tally.events += u64::try_from(stored.len())?;
    let events = stored
        .iter()
        .map(|stored| Ok((stored, Event::read(&stored.envelope)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let stories = stories(&events);
    stories::check(world, &stories).await?;
    requests::check(world, &stored).await?;
    balances(world, &events, &stories).await?;
    nothing_is_left(world, stored.len()).await?;
    proof(world).await
}

/// Stock and money are where the events of their own services and the ends of orders say.
async fn balances(
    world: &mut World,
    events: &[(&StoredEvent, Event)],
    stories: &BTreeMap<String, Story>,
) -> anyhow::Result<()> {
    let (mut stock, mut money) = (BTreeMap::<String, i64>::new(), BTreeMap::<String, i64>::new());
    for (_, event) in events {
        match event {
            Event::Inventory(InventoryEvent::Listed(e)) => {
                *stock.entry(e.sku.to_string()).or_default() += e.quantity;
            }
            Event::Inventory(InventoryEvent::Received(e)) => {
                *stock.entry(e.sku.to_string()).or_default() += e.quantity.get();
            }
            Event::User(UserEvent::Registered(e)) => {
                money.entry(e.user_id.to_string()).or_default();
            }
            Event::User(UserEvent::Deposited(e)) => {
                *money.entry(e.user_id.to_string()).or_default() += e.amount.amount.get();
            }
            _ => {}
        }
    }
    let (mut reserved, mut held) = (BTreeMap::<String, i64>::new(), BTreeMap::<String, i64>::new());
    for story in stories.values() {
        let (left, waits) = (story.stock_left(), story.stock_waits());
        for (sku, quantity) in &story.lines {
            *stock.entry(sku.clone()).or_default() -= if left { *quantity } else { 0 };
            *reserved.entry(sku.clone()).or_default() += if waits { *quantity } else { 0 };
        }
        let (spent, waits) = (story.money_spent(), story.money_waits());
        if spent || waits {
            *money.entry(story.customer.clone()).or_default() -= story.total;
            *held.entry(story.customer.clone()).or_default() += if waits { story.total } else { 0 };
        }
    }
    let rows = world
        .watch
        .texts::<(String, i64, i64)>(
            "select sku, on_hand, reserved from inventory.products".to_owned(),
        )
        .await?;
    ensure!(rows.len() <= stock.len(), "products that nobody listed: {rows:?}");
    for (sku, on_hand, set_aside) in rows {
        let expected = (stock.get(&sku).copied(), reserved.get(&sku).copied().unwrap_or(0));
        ensure!(
            (Some(on_hand), set_aside) == expected,
            "{sku}: {on_hand} on hand, {set_aside} reserved; by the orders {expected:?}"
        );
    }
    let rows = world
        .watch
        .texts::<(String, i64, i64)>("select id, available, held from user.users".to_owned())
        .await?;
    ensure!(rows.len() == money.len(), "{} users, {} registered", rows.len(), money.len());
    for (user, available, set_aside) in rows {
        let expected = (money.get(&user).copied(), held.get(&user).copied().unwrap_or(0));
        ensure!(
            (Some(available), set_aside) == expected,
            "user {user}: {available} available, {set_aside} held; by the orders {expected:?}"
        );
    }
    Ok(())
}

/// Everything was relayed, read and handled; nothing waits.
async fn nothing_is_left(world: &mut World, events: usize) -> anyhow::Result<()> {
    let events = i64::try_from(events)?;
    for name in Name::ALL {
        let checkpoint = world.watch.checkpoint(*name, false).await?;
        let position = checkpoint.position;
        ensure!(position == events, "{name} has read up to {position} of {events}");
        let count = |table: &str| format!("select count(*) from \"{name}\".{table}");
        let relayed = format!("select count(*) from event_store.event where source = '{name}'");
        let outbox = world.watch.number(count("outbox")).await?;
        let relayed = world.watch.number(relayed).await?;
        ensure!(outbox == relayed, "{name}: {outbox} events in the outbox, {relayed} relayed");
        let open = format!(
            "select id from \"{name}\".dead_letters where status not in ('handled', 'discarded')"
        );
        let tried = format!("select message_id from \"{name}\".attempts");
        for (what, ids) in [("dead letters", open), ("attempts", tried)] {
            let left = world.watch.texts::<(String,)>(ids).await?;
            ensure!(left.is_empty(), "{name}: {what} are left: {left:?}");
        }
        let timers = world
            .watch
            .texts::<(String, String)>(format!(
                "select timer_key, correlation_id from \"{name}\".timers"
            ))
            .await?;
        let waiting = timers.iter().find(|(_, lane)| !world.unsettled.contains(lane));
        ensure!(waiting.is_none(), "{name}: timer {waiting:?} is still set");
    }
    Ok(())
}

/// The proof that `waybill verify` makes.
async fn proof(world: &World) -> anyhow::Result<()> {
    let mut snapshot = EventStoreSnapshot::take(&world.location).await?;
    agrees(snapshot.verify_positions().await?)?;
    verify::<OrderService>(world, &mut snapshot).await?;
    verify::<InventoryService>(world, &mut snapshot).await?;
    verify::<UserService>(world, &mut snapshot).await?;
    verify::<LogisticsService>(world, &mut snapshot).await?;
    Ok(snapshot.release().await?)
}

async fn verify<S: Service>(
    world: &World,
    snapshot: &mut EventStoreSnapshot,
) -> anyhow::Result<()> {
    agrees(fold::verify::<S>(&world.location, snapshot, &|_, _| {}).await?)
}

fn agrees(finding: Finding) -> anyhow::Result<()> {
    match finding {
        Finding::Agrees { .. } => Ok(()),
        Finding::Differs(difference) => bail!("{difference}"),
    }
}
