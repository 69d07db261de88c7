//! What the run trades with: products and customers of its own, so that it needs no empty system.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use waybill_runtime::Clock;

use super::CannotJudge;
use super::desk::Desk;
use super::dice::Dice;
use super::history::{Answer, Wish};
use crate::client::{items, text};

/// Prices and first stock: some is plenty, some is scarce, so that orders are refused for want of it.
const PRODUCTS: [(i64, i64); 8] = [
    (100, 1_000_000),
    (250, 1_000_000),
    (1_290, 1_000_000),
    (75, 1_000_000),
    (500, 1_000_000),
    (999, 40),
    (3_450, 10),
    (1, 0),
];
/// Money of a customer; every fourth has little.
const RICH: i64 = 100_000_000;
const POOR: i64 = 5_000;
/// How long the order service may take to hear of a product.
const HEARD: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(50);

/// Products and customers of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// What all names and keys of the run begin with.
    pub(crate) tag: String,
    /// SKUs.
    pub(crate) products: Vec<String>,
    /// Ids.
    pub(crate) customers: Vec<String>,
}

impl World {
    /// Lists products, registers customers and gives them money; waits until all can be ordered.
    pub(crate) async fn make(
        desk: &Desk,
        tag: &str,
        customers: usize,
        clock: &Clock,
    ) -> Result<Self, CannotJudge> {
        let mut world = Self { tag: tag.to_owned(), ..Self::default() };
        for (number, (price, quantity)) in PRODUCTS.into_iter().enumerate() {
            world.products.push(list(desk, tag, number, price, quantity).await?);
        }
        for number in 0..customers {
            let customer = register(desk, tag, number).await?;
            let amount = if number % 4 == 3 { POOR } else { RICH };
            let key = format!("{tag}-deposit-{number}");
            deposit(desk, key, &customer, amount).await;
            world.customers.push(customer);
        }
        for sku in &world.products {
            heard_of(desk, sku, clock).await?;
        }
        Ok(world)
    }

    /// Products and quantities of an order.
    pub(crate) fn choose(&self, dice: &mut Dice) -> BTreeMap<String, i64> {
        let mut lines = BTreeMap::new();
        for _ in 0..dice.between(1, 3) {
            if let Some(sku) = dice.pick(&self.products) {
                lines.insert(sku.clone(), i64::try_from(dice.between(1, 4)).unwrap_or(1));
            }
        }
        lines
    }
}

/// What was answered where nothing can be judged without it.
fn needed(answer: Option<Answer>, what: &str) -> Result<serde_json::Value, CannotJudge> {
    let what = what.to_owned();
    match answer {
        Some(Answer::Yes(value)) => Ok(value),
        Some(Answer::No { status, why }) => {
            Err(CannotJudge::Refused { what, why: format!("{status} {why}") })
        }
        None => Err(CannotJudge::NoAnswer { path: what, why: "given up".to_owned() }),
    }
}

async fn list(
    desk: &Desk,
    tag: &str,
    number: usize,
    price: i64,
    quantity: i64,
) -> Result<String, CannotJudge> {
    let sku = format!("{tag}-{number}");
    let body = json!({
        "sku": sku, "name": format!("Exhibit {number}"), "quantity": quantity,
        "price": { "amount": price, "currency": "EUR" },
    });
    let wish = Wish::List { sku: sku.clone(), price, quantity };
    let filed = desk.file(format!("{tag}-list-{number}"), "/v1/products".to_owned(), body, wish);
    needed(desk.insist(filed).await, "POST /v1/products")?;
    Ok(sku)
}

async fn register(desk: &Desk, tag: &str, number: usize) -> Result<String, CannotJudge> {
    let body = json!({ "name": format!("Witness {number}"), "email": "witness@example.com" });
    let key = format!("{tag}-register-{number}");
    let filed = desk.file(key, "/v1/users".to_owned(), body, Wish::Register);
    let user = needed(desk.insist(filed).await, "POST /v1/users")?;
    Ok(text(&user, "id"))
}

/// Puts money into a wallet.
pub(crate) async fn deposit(desk: &Desk, key: String, customer: &str, amount: i64) {
    let body = json!({ "amount": { "amount": amount, "currency": "EUR" } });
    let wish = Wish::Deposit { customer: customer.to_owned(), amount };
    let filed = desk.file(key, format!("/v1/users/{customer}/deposits"), body, wish);
    desk.insist(filed).await;
}

/// Waits until the order service knows a product.
async fn heard_of(desk: &Desk, sku: &str, clock: &Clock) -> Result<(), CannotJudge> {
    let query = [("stream", format!("catalogue-{sku}")), ("limit", "1".to_owned())];
    let began = clock.now();
    while clock.now().since(began) < HEARD {
        let page = desk.api.get("/v1/audit/events", &query).await?;
        if page.as_ref().is_some_and(|page| items(page).next().is_some()) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(CannotJudge::NotHeard { sku: sku.to_owned() })
}
