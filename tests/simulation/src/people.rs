//! Customers, suppliers and the carrier: what they want, and what they make of the answers.

use std::fmt::Debug;

use anyhow::{bail, ensure};
use serde::Deserialize;
use waybill_contract::{Address, Money, OrderId, Quantity, ShipmentId, Sku, Text, UserId};
use waybill_inventory::{ChangeProduct, Command as OfInventory, ListProduct, ReceiveStock};
use waybill_logistics::{Command as OfLogistics, RecordTracking, TrackingStatus};
use waybill_order::{CancelOrder, Command as OfOrder, PlaceOrder};
use waybill_runtime::{CommandError, Version, text_enum};
use waybill_user::{Command as OfUser, Deposit, RegisterUser};

use crate::desk::{Arrived, Desk, Intent};
use crate::poison::Poisoned;
use crate::tally::{Branch, Tally};
use crate::world::{Name, World, at};

text_enum! {
    /// What somebody wants.
    pub(crate) enum Wish {
        /// A new product on the list.
        List = "list",
        /// A product's price changed.
        Change = "change",
        /// Stock taken in.
        Receive = "receive",
        /// To be registered.
        Register = "register",
        /// Money in a wallet.
        Deposit = "deposit",
        /// An order placed.
        Place = "place",
        /// An order cancelled.
        Cancel = "cancel",
        /// A parcel's way recorded.
        Report = "report",
        /// Something else, under a key that was used before.
        Reuse = "reuse",
    }
}

/// Products on the list from the beginning; one more may follow.
const PRODUCTS: i64 = 3;
/// Users at the beginning. Their money has another currency than that of the one who comes next.
const USERS: usize = 2;

/// What is wanted before anything else: products and users.
pub(crate) fn begin(world: &mut World) -> anyhow::Result<()> {
    for number in 1..=PRODUCTS {
        list(world, number)?;
    }
    for _ in 0..USERS {
        register(world)?;
    }
    Ok(())
}

/// What is wanted next: money for the users, and the first orders.
pub(crate) fn go_on(world: &mut World) -> anyhow::Result<()> {
    for _ in 0..2 * USERS {
        deposit(world)?;
    }
    for _ in 0..2 {
        place(world)?;
    }
    Ok(())
}

/// Somebody wants something new; nothing happens where there is nothing to want it of.
pub(crate) fn want(world: &mut World, wish: Wish) -> anyhow::Result<()> {
    match wish {
        Wish::List => {
            let number = world.chance.between(1, PRODUCTS + 1);
            list(world, number)
        }
        Wish::Change => change(world),
        Wish::Receive => receive(world),
        Wish::Register => register(world),
        Wish::Deposit => deposit(world),
        Wish::Place => place(world),
        Wish::Cancel => cancel(world),
        Wish::Report => report(world),
        Wish::Reuse => reuse_key(world),
    }
}

fn list(world: &mut World, number: i64) -> anyhow::Result<()> {
    let quantity = Some(Quantity::try_from(world.chance.between(1, 12))?);
    let price = money(world.chance.between(1, 30), "EUR")?;
    let list = ListProduct { sku: sku(number)?, name: "A product".parse()?, price, quantity };
    let intent = intend(world, OfInventory::List(list));
    send(world, Name::Inventory, intent)
}

fn change(world: &mut World) -> anyhow::Result<()> {
    let price = Some(money(world.chance.between(1, 30), "EUR")?);
    let sku = sku(world.chance.between(1, PRODUCTS))?;
    let mut intent = intend(world, OfInventory::Change(ChangeProduct { sku, name: None, price }));
    intent.if_match = some_version(world);
    send(world, Name::Inventory, intent)
}

fn receive(world: &mut World) -> anyhow::Result<()> {
    let quantity = Quantity::try_from(world.chance.between(1, 10))?;
    let sku = sku(world.chance.between(1, PRODUCTS))?;
    let mut intent =
        intend(world, OfInventory::Receive(ReceiveStock { sku, quantity, reference: None }));
    intent.if_match = some_version(world);
    send(world, Name::Inventory, intent)
}

fn register(world: &mut World) -> anyhow::Result<()> {
    let currency = if world.user.desk.intents.len() == USERS { "USD" } else { "EUR" };
    let (name, email) = ("Ada Lovelace".parse()?, "ada@example.com".parse()?);
    let register = RegisterUser { name, email, currency: currency.parse()? };
    let intent = intend(world, OfUser::Register(register));
    send(world, Name::User, intent)
}

fn deposit(world: &mut World) -> anyhow::Result<()> {
    let Some(user_id) = some_user(world)? else { return Ok(()) };
    let currency = if world.chance.percent(90) { "EUR" } else { "USD" };
    let amount = money(world.chance.between(20, 120), currency)?;
    let intent = intend(world, OfUser::Deposit(Deposit { user_id, amount }));
    send(world, Name::User, intent)
}

fn place(world: &mut World) -> anyhow::Result<()> {
    let known = some_user(world)?.filter(|_| world.chance.percent(95));
    let customer_id = known.unwrap_or_else(|| UserId(world.ids.next()));
    let first = world.chance.between(1, PRODUCTS);
    let mut lines = vec![(sku(first)?, Quantity::try_from(world.chance.between(1, 4))?)];
    if world.chance.percent(30) {
        // The last one may not be there.
        lines.push((sku(first + 1)?, Quantity::try_from(world.chance.between(1, 2))?));
    }
    let intent = intend(world, OfOrder::Place(PlaceOrder { customer_id, lines, ship_to: home()? }));
    send(world, Name::Order, intent)
}

fn cancel(world: &mut World) -> anyhow::Result<()> {
    let orders = placed(&world.order.desk);
    let Some(order_id) = world.chance.any(&orders).copied() else { return Ok(()) };
    let intent = intend(world, OfOrder::Cancel(CancelOrder { order_id, comment: None }));
    send(world, Name::Order, intent)
}

/// A carrier reports on some parcel, wherever that is, and sometimes on one that there is not.
fn report(world: &mut World) -> anyhow::Result<()> {
    let Some((order_id, shipment_id)) = world.chance.any(&world.parcels).copied() else {
        return Ok(());
    };
    let strange = ShipmentId(world.ids.next());
    let shipment_id = if world.chance.percent(97) { shipment_id } else { strange };
    let status = *world.chance.pick(&[
        TrackingStatus::InTransit,
        TrackingStatus::InTransit,
        TrackingStatus::Delivered,
        TrackingStatus::Failed,
    ]);
    record(world, order_id, shipment_id, status)
}

/// The carrier reports this.
pub(crate) fn record(
    world: &mut World,
    order_id: OrderId,
    shipment_id: ShipmentId,
    status: TrackingStatus,
) -> anyhow::Result<()> {
    let report = RecordTracking { order_id, shipment_id, status, location: None, note: None };
    let same = |intent: &Intent<OfLogistics>| {
        let OfLogistics::RecordTracking(known) = &intent.command;
        (known.shipment_id, known.status) == (shipment_id, status)
    };
    if world.logistics.desk.intents.iter().any(same) {
        world.tally.reach(Branch::ReportedTwice);
    }
    let intent = intend(world, OfLogistics::RecordTracking(report));
    send(world, Name::Logistics, intent)
}

/// A client uses the key of an answered request for another one.
fn reuse_key(world: &mut World) -> anyhow::Result<()> {
    let answered = world.inventory.desk.intents.iter().filter(|intent| intent.answer.is_some());
    let keys: Vec<String> = answered.filter_map(|intent| intent.key.clone()).collect();
    let Some(key) = world.chance.any(&keys).cloned() else { return Ok(()) };
    let quantity = Quantity::try_from(999)?;
    let (sku, reference) = (sku(1)?, None);
    let mut intent = intend(world, OfInventory::Receive(ReceiveStock { sku, quantity, reference }));
    intent.key = Some(key);
    intent.reuses_key = true;
    send(world, Name::Inventory, intent)
}

/// Something wanted, in most cases under a key of its own.
fn intend<C>(world: &mut World, command: C) -> Intent<C> {
    let number = world.ids.next();
    let key = world.chance.percent(85).then(|| format!("key-{number}"));
    Intent { command, key, if_match: None, requests: Vec::new(), answer: None, reuses_key: false }
}

/// A version that may be the present one.
fn some_version(world: &mut World) -> Option<Version> {
    world.chance.percent(10).then(|| Version(world.chance.between(1, 4)))
}

fn some_user(world: &mut World) -> anyhow::Result<Option<UserId>> {
    #[derive(Deserialize)]
    struct Shown {
        id: UserId,
    }
    let answers = world.user.desk.intents.iter().filter_map(|intent| intent.answer.as_ref());
    let registered = answers.filter(|answer| answer.status == 201);
    let users = registered
        .map(|answer| serde_json::from_str(&answer.body).map(|shown: Shown| shown.id))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(world.chance.any(&users).copied())
}

/// The orders that were answered.
pub(crate) fn placed(desk: &Desk<Poisoned<waybill_order::OrderService>>) -> Vec<OrderId> {
    let answers = desk.intents.iter().filter_map(|intent| intent.answer.as_ref());
    answers.filter_map(|answer| answer.location.rsplit('/').next()?.parse().ok()).collect()
}

fn sku(number: i64) -> anyhow::Result<Sku> {
    Ok(format!("SKU-{number}").parse()?)
}

fn money(amount: i64, currency: &str) -> anyhow::Result<Money> {
    Ok(Money { amount: amount.try_into()?, currency: currency.parse()? })
}

fn home() -> anyhow::Result<Address> {
    let text = |text: &str| text.parse::<Text>();
    Ok(Address {
        name: text("Ada Lovelace")?,
        line1: text("12 Square")?,
        line2: None,
        city: text("London")?,
        postal_code: text("SW1Y 4JH")?,
        country: text("UK")?,
    })
}

/// Notes what is wanted, and asks for it.
fn send<C>(world: &mut World, name: Name, intent: Intent<C>) -> anyhow::Result<()>
where
    World: Wants<C>,
{
    let intents = world.intents();
    intents.push(intent);
    let index = intents.len() - 1;
    ask(world, name, index)
}

/// Where what is wanted is noted, by its type.
trait Wants<C> {
    fn intents(&mut self) -> &mut Vec<Intent<C>>;
}

macro_rules! wants {
    ($($site:ident: $Command:ty),+ $(,)?) => {$(
        impl Wants<$Command> for World {
            fn intents(&mut self) -> &mut Vec<Intent<$Command>> {
                &mut self.$site.desk.intents
            }
        }
    )+};
}
wants!(order: OfOrder, inventory: OfInventory, user: OfUser, logistics: OfLogistics);

/// Asks one of the service's replicas for what is wanted; nobody hears it where there is none.
pub(crate) fn ask(world: &mut World, name: Name, intent: usize) -> anyhow::Result<()> {
    let id = world.ids.next();
    let chance = &mut world.chance;
    let log = &mut world.log;
    at!(world, name, site => {
        let mut there = site.resting();
        there.extend(site.paused());
        let Some(index) = chance.any(&there).copied() else { return Ok(()) };
        let Some(replica) = &site.replicas[index] else { return Ok(()) };
        log.line(format_args!(
            "  {id} asks {name}/{index} for {intent}: {:?}", site.desk.intents[intent]
        ));
        site.desk.ask(intent, index, &replica.handle, id);
    });
    world.collect_answers(name)
}

impl World {
    /// Lets clients take the answers that have arrived.
    pub(crate) fn collect_answers(&mut self, name: Name) -> anyhow::Result<()> {
        let (log, tally) = (&mut self.log, &mut self.tally);
        at!(self, name, site => {
            for Arrived { intent, outcome } in site.desk.collect() {
                log.line(format_args!("  {name} answers {intent}: {outcome:?}"));
                hear(&mut site.desk.intents[intent], outcome, tally)?;
            }
        });
        Ok(())
    }

    /// A client repeats a request whose outcome it does not know, or does know.
    pub(crate) fn repeat_some(&mut self, name: Name) -> anyhow::Result<()> {
        let keyed: Vec<usize> = at!(self, name, site => {
            let intents = site.desk.intents.iter().enumerate();
            intents.filter(|(_, intent)| intent.key.is_some()).map(|(index, _)| index).collect()
        });
        match self.chance.any(&keyed).copied() {
            Some(intent) => ask(self, name, intent),
            None => Ok(()),
        }
    }

    /// A client goes away before the answer.
    pub(crate) fn hang_up(&mut self, name: Name) {
        let waiting = at!(self, name, site => site.desk.waiting());
        if waiting > 0 {
            let index = self.chance.below(waiting);
            self.log.line(format_args!("a client of {name} hangs up: {index}"));
            at!(self, name, site => site.desk.hang_up(index));
            self.tally.reach(Branch::HungUp);
        }
    }
}

/// What a client makes of an answer.
fn hear<C: Debug, R: std::error::Error>(
    intent: &mut Intent<C>,
    outcome: Result<waybill_runtime::Answer, CommandError<R>>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    if intent.reuses_key {
        ensure!(outcome.is_err(), "a key answered for two requests: {intent:?}");
    }
    match outcome {
        Ok(answer) => match &intent.answer {
            Some(first) if intent.key.is_some() => {
                ensure!(*first == answer, "{intent:?} was answered again by {answer:?}");
                tally.reach(Branch::AnsweredAgain);
            }
            Some(_) => bail!("{intent:?} was asked twice without a key"),
            None => intent.answer = Some(answer),
        },
        Err(CommandError::KeyReused) => {
            ensure!(intent.reuses_key, "a key of one request only was refused: {intent:?}");
            tally.reach(Branch::KeyReused);
        }
        Err(CommandError::Refused(refusal)) => {
            tally.reach(refusal_of(&refusal.to_string()));
        }
        Err(CommandError::Stale { .. }) => tally.reach(Branch::Stale),
        Err(CommandError::UnknownOutcome) => tally.reach(Branch::UnknownOutcome),
        Err(CommandError::Unavailable) => tally.reach(Branch::Unavailable),
        Err(CommandError::Failed(why)) => {
            ensure!(why.starts_with("panicked: Command"), "{intent:?} failed: {why}");
            tally.reach(Branch::CommandPanicked);
        }
        // The replica ended after it was found.
        Err(CommandError::Busy) => {}
    }
    Ok(())
}

fn refusal_of(refusal: &str) -> Branch {
    if refusal.contains("cannot be cancelled any more") {
        Branch::TooLate
    } else if refusal.contains("a carrier has nothing to report") {
        Branch::OutOfOrder
    } else {
        Branch::Refusal
    }
}
