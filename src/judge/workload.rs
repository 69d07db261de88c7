//! Customers who order, repeat, change their minds, pay in and look, all at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use waybill_runtime::{Clock, Timestamp};

use super::desk::{Desk, TRY, new_order};
use super::dice::Dice;
use super::history::{Answer, Wish};
use super::world::{World, deposit};
use crate::client::text;

/// Requests without an answer that are repeated at once in the end.
const AT_ONCE: usize = 8;

/// When customers stop ordering.
#[derive(Clone, Debug)]
pub(crate) enum Until {
    /// At this time.
    Time(Timestamp),
    /// When so many orders were placed by all of them.
    Orders(u64),
}

/// What customers share.
#[derive(Debug)]
struct Shop {
    desk: Desk,
    world: World,
    until: Until,
    orders: AtomicU64,
    clock: Clock,
}

impl Shop {
    /// Whether one more order may be placed; counts it.
    fn takes_one_more(&self) -> bool {
        let before = self.orders.fetch_add(1, Ordering::Relaxed);
        match self.until {
            Until::Time(end) => self.clock.now() < end,
            Until::Orders(orders) => before < orders,
        }
    }
}

/// All customers at once, until they stop.
pub(crate) async fn trade(desk: &Desk, world: &World, until: Until, seed: u64, clock: &Clock) {
    let (desk, world, clock) = (desk.clone(), world.clone(), clock.clone());
    let shop = Arc::new(Shop { desk, world, until, orders: AtomicU64::new(0), clock });
    let mut customers = JoinSet::new();
    for (number, id) in shop.world.customers.iter().enumerate() {
        let dice = Dice::new(seed, u64::try_from(number).unwrap_or_default());
        let (shop, id) = (Arc::clone(&shop), id.clone());
        let customer = Customer { shop, number, id, dice, asked: 0, orders: Vec::new() };
        customers.spawn(customer.shop());
    }
    customers.join_all().await;
}

/// Repeats what was given up, so that everything asked for is answered.
pub(crate) async fn resolve(desk: &Desk) {
    let ask = |filed| async move { drop(desk.insist(filed).await) };
    stream::iter(desk.open()).for_each_concurrent(AT_ONCE, ask).await;
}

/// One customer, who does one thing after the other.
struct Customer {
    shop: Arc<Shop>,
    number: usize,
    id: String,
    dice: Dice,
    /// How many keys were used.
    asked: u64,
    /// Those that were answered, with their keys.
    orders: Vec<(String, String)>,
}

impl Customer {
    async fn shop(mut self) {
        while self.shop.takes_one_more() {
            self.places().await;
            match self.dice.between(0, 99) {
                0..10 => self.looks_back().await,
                10..18 => self.cancels_an_older_one().await,
                18..24 => self.pays_in().await,
                24..30 => self.brings_stock().await,
                30..36 => self.reuses_a_key().await,
                _ => {}
            }
            tokio::time::sleep(self.dice.millis(0, 60)).await;
        }
    }

    fn desk(&self) -> &Desk {
        &self.shop.desk
    }

    fn key(&mut self, what: &str) -> String {
        self.asked += 1;
        format!("{}-{what}-{}-{}", self.shop.world.tag, self.number, self.asked)
    }

    /// Places an order: sometimes twice at once, sometimes hanging up at once, sometimes without
    /// ever asking what became of it.
    async fn places(&mut self) {
        let lines = self.shop.world.choose(&mut self.dice);
        let key = self.key("order");
        let filed = self.desk().order(&key, &self.id, lines);
        let answer = match self.dice.between(0, 99) {
            0..10 => {
                let twice = [self.desk().insist(filed), self.desk().insist(filed)];
                join_all(twice).await.pop().flatten()
            }
            10..20 => {
                let patience = self.dice.millis(1, 30);
                self.desk().ask(filed, patience).await;
                self.desk().insist(filed).await
            }
            20..24 => {
                let patience = self.dice.millis(1, 30);
                return drop(self.desk().ask(filed, patience).await);
            }
            _ => self.desk().insist(filed).await,
        };
        let Some(Answer::Yes(order)) = answer else { return };
        self.desk().shown(self.number, &order);
        let id = text(&order, "id");
        self.orders.push((key, id.clone()));
        if self.dice.percent(30) {
            self.desk().look(self.number, &id).await;
        }
        if self.dice.percent(12) {
            tokio::time::sleep(self.dice.millis(0, 300)).await;
            self.cancels(&id).await;
        }
        if self.dice.percent(10) {
            self.desk().ask(filed, TRY).await;
        }
    }

    async fn looks_back(&mut self) {
        let Some((_, id)) = self.dice.pick(&self.orders).cloned() else { return };
        for _ in 0..2 {
            self.desk().look(self.number, &id).await;
        }
    }

    async fn cancels_an_older_one(&mut self) {
        let recent = &self.orders[self.orders.len().saturating_sub(5)..];
        let Some((_, id)) = self.dice.pick(recent).cloned() else { return };
        self.cancels(&id).await;
    }

    async fn cancels(&mut self, order: &str) {
        let key = self.key("cancel");
        let wish = Wish::Cancel { order: order.to_owned() };
        let body = json!({ "reason": "the judge changed its mind" });
        let filed = self.desk().file(key, format!("/v1/orders/{order}/cancel"), body, wish);
        if let Some(Answer::Yes(order)) = self.desk().insist(filed).await {
            self.desk().shown(self.number, &order);
        }
    }

    async fn pays_in(&mut self) {
        let key = self.key("deposit");
        let amount = i64::try_from(self.dice.between(1, 5_000)).unwrap_or(1);
        deposit(self.desk(), key, &self.id, amount).await;
    }

    async fn brings_stock(&mut self) {
        let Some(sku) = self.dice.pick(&self.shop.world.products).cloned() else { return };
        let (key, quantity) = (self.key("receipt"), i64::try_from(self.dice.between(1, 5)));
        let quantity = quantity.unwrap_or(1);
        let body = json!({ "quantity": quantity, "reference": key });
        let path = format!("/v1/products/{sku}/receipts");
        let filed = self.desk().file(key, path, body, Wish::Receive { sku, quantity });
        self.desk().insist(filed).await;
    }

    /// Asks for something else under a key that an order has; must be refused.
    async fn reuses_a_key(&mut self) {
        let Some((key, _)) = self.dice.pick(&self.orders).cloned() else { return };
        let body = another_order(&key, &self.id, &self.shop.world);
        let filed = self.desk().file(key, "/v1/orders".to_owned(), body, Wish::Reuse);
        self.desk().insist(filed).await;
    }
}

/// An order that no customer places: of 99 pieces.
fn another_order(key: &str, customer: &str, world: &World) -> Value {
    let first = world.products.first().cloned().unwrap_or_default();
    new_order(key, customer, &BTreeMap::from([(first, 99)]))
}
