//! What there is to order, and who orders it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::http::Client;
use crate::stopwatch::Stopwatch;

const PRODUCTS: usize = 50;
const CUSTOMERS: usize = 50;
/// Enough for every order of a run.
const STOCK: u32 = 1_000_000;
const MONEY: u64 = 1_000_000_000_000;
/// How long the products may take to become known to the order service.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(20);

/// Products with all the stock, and customers with all the money, that orders can take.
#[derive(Clone, Debug)]
pub(crate) struct World(Arc<[String]>);

#[derive(Deserialize)]
struct WithId {
    id: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<serde::de::IgnoredAny>,
}

impl World {
    /// Lists the products, registers the customers, and waits until both can take part.
    pub(crate) async fn make(address: SocketAddr) -> anyhow::Result<Self> {
        let mut client = Client::connect(address).await?;
        for number in 0..PRODUCTS {
            let product = format!(
                r#"{{"sku":"{}","name":"Product {number}","price":{{"amount":{},"currency":"EUR"}},"quantity":{STOCK}}}"#,
                sku(number),
                500 + 10 * number
            );
            post(&mut client, "/v1/products", &format!("product-{number}"), &product).await?;
        }
        let mut customers = Vec::with_capacity(CUSTOMERS);
        for number in 0..CUSTOMERS {
            let user = format!(r#"{{"name":"Ada {number}","email":"ada{number}@example.com"}}"#);
            let body = post(&mut client, "/v1/users", &format!("user-{number}"), &user).await?;
            let WithId { id } = serde_json::from_slice(&body)?;
            let deposit = format!(r#"{{"amount":{{"amount":{MONEY},"currency":"EUR"}}}}"#);
            let path = format!("/v1/users/{id}/deposits");
            post(&mut client, &path, &format!("deposit-{number}"), &deposit).await?;
            customers.push(id);
        }
        let catalogue = format!("/v1/audit/events?type=catalogue.updated&limit={PRODUCTS}");
        let watch = Stopwatch::start();
        loop {
            let known: Page = serde_json::from_slice(client.get(&catalogue).await?.body)?;
            if known.items.len() == PRODUCTS {
                return Ok(Self(customers.into()));
            }
            ensure!(watch.elapsed() < PATIENCE, "the products do not become known");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A customer.
    pub(crate) fn customer(&self, number: usize) -> &str {
        &self.0[number % self.0.len()]
    }

    /// An order of two lines; its number chooses who orders what.
    pub(crate) fn order(&self, number: usize) -> String {
        let (one, other) = (number % PRODUCTS, (number + 1 + number / PRODUCTS % 7) % PRODUCTS);
        format!(
            r#"{{"customer_id":"{}","lines":[{{"sku":"{}","quantity":{}}},{{"sku":"{}","quantity":1}}],"ship_to":{{"name":"Ada Lovelace","line1":"12 St James's Square","city":"London","postal_code":"SW1Y 4LB","country":"GB"}}}}"#,
            self.customer(number),
            sku(one),
            1 + number % 3,
            sku(other)
        )
    }
}

fn sku(number: usize) -> String {
    format!("P-{number}")
}

async fn post(client: &mut Client, path: &str, key: &str, body: &str) -> anyhow::Result<Vec<u8>> {
    let answer = client.post(path, key, body).await.context("the server does not answer")?;
    if !matches!(answer.status, 200 | 201) {
        bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(answer.body));
    }
    Ok(answer.body.to_vec())
}
