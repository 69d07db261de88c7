//! Things to order and people to order them, and the books: every unit and every cent is where the
//! orders say.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::Client;
use super::wait::{PATIENCE, until};

/// The services that have an outbox and a consumer.
pub(super) const WRITERS: [&str; 4] = ["order", "inventory", "logistics", "user"];

/// What there was to begin with, to compare with what there is in the end.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// SKU, price and quantity of each product.
    pub(crate) products: Vec<(String, i64, i64)>,
    /// Id and money of each customer.
    pub(crate) customers: Vec<(String, i64)>,
}

impl World {
    /// Lists products (price and quantity of each) and registers customers with this much money.
    pub(crate) async fn make(client: &Client, products: &[(i64, i64)], customers: &[i64]) -> Self {
        let mut world = Self { products: Vec::new(), customers: Vec::new() };
        for (number, (price, quantity)) in products.iter().enumerate() {
            let sku = format!("P-{number}");
            client.product(&sku, *price, *quantity).await;
            world.products.push((sku, *price, *quantity));
        }
        for money in customers {
            world.customers.push((client.user(*money).await, *money));
        }
        world
    }

    /// Waits until every order has ended and nothing is on its way, then compares stock and money
    /// with what the completed orders took. Every order, by its id.
    pub(crate) async fn balances(&self, client: &Client) -> BTreeMap<String, Value> {
        let orders = ended(client).await;
        client.quiet().await;
        let completed = || orders.values().filter(|order| order["status"] == "completed");
        for (sku, _, quantity) in &self.products {
            let lines = completed().flat_map(|order| order["lines"].as_array().expect("lines"));
            let sold: i64 = lines.filter(|line| line["sku"] == **sku).map(quantity_of).sum();
            assert_eq!(
                client.stock(sku).await,
                (quantity - sold, 0),
                "{sku}, of which {sold} sold"
            );
            assert!(sold <= *quantity, "{sold} of {quantity} {sku} were sold");
        }
        for (id, money) in &self.customers {
            let mine = completed().filter(|order| order["customer_id"] == **id);
            let spent: i64 = mine.map(|order| amount(&order["total"])).sum();
            assert_eq!(client.balance(id).await, (money - spent, 0), "{id} spent {spent}");
        }
        orders
    }
}

fn quantity_of(line: &Value) -> i64 {
    line["quantity"].as_i64().expect("a quantity")
}

fn amount(money: &Value) -> i64 {
    money["amount"].as_i64().expect("an amount")
}

/// Waits until every order has come to its end; each by its id.
async fn ended(client: &Client) -> BTreeMap<String, Value> {
    let mut orders = BTreeMap::new();
    for order in client.all("/v1/orders").await {
        let id = order["id"].as_str().expect("an id").to_owned();
        let order = client.until_ended(&id).await;
        assert!(orders.insert(id.clone(), order).is_none(), "{id} is listed twice");
    }
    orders
}

impl Client {
    /// What is on hand of a product, and how many of those are set aside.
    pub(crate) async fn stock(&self, sku: &str) -> (i64, i64) {
        let product = self.get(&format!("/v1/products/{sku}")).await.expect(200).body;
        let number = |name: &str| product[name].as_i64().expect("a number");
        assert_eq!(number("available"), number("on_hand") - number("reserved"), "{product}");
        (number("on_hand"), number("reserved"))
    }

    /// What a user can spend, and what is held.
    pub(crate) async fn balance(&self, user_id: &str) -> (i64, i64) {
        let user = self.get(&format!("/v1/users/{user_id}")).await.expect(200).body;
        (amount(&user["balance"]["available"]), amount(&user["balance"]["held"]))
    }

    /// What a user was told of an order, the first first.
    pub(crate) async fn told(&self, user_id: &str, order_id: &str) -> Vec<String> {
        let told = self.all(&format!("/v1/users/{user_id}/notifications")).await;
        let of_order = told.iter().rev().filter(|one| one["order_id"] == *order_id);
        of_order.map(|one| one["kind"].as_str().expect("a kind").to_owned()).collect()
    }

    /// Waits until all services have told everything and heard everything. What timers will bring
    /// is not seen by this.
    pub(crate) async fn quiet(&self) {
        let mut before = Vec::new();
        until("the services have told and heard everything", PATIENCE, async || {
            let mut now = Vec::new();
            let mut lag = 0;
            for (service, part) in WRITERS.iter().flat_map(|s| [(s, "outbox"), (s, "consumers")]) {
                let reply = self.get(&format!("/v1/ops/{service}/{part}")).await.expect(200);
                let progress = reply.body["items"].get(0).unwrap_or(&reply.body).clone();
                lag += progress["lag"].as_i64().expect("a lag");
                now.push(progress["head"].as_i64().expect("a head"));
            }
            let still = lag == 0 && now == before;
            before = now;
            still.then_some(())
        })
        .await;
    }
}
