//! All of it at once, to look at: a catalogue, customers, orders that end well and orders that do
//! not, moving to their ends; then one order's history.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reqwest::StatusCode;
use serde_json::{Value, json};
use waybill_runtime::Ids;
use waybill_runtime::trace::Tracer;

use crate::cli::DemoOptions;
use crate::client::{Client, ClientError, Resource, items, text};
use crate::commands::{ENDS, show_history};
use crate::serve::{self, Server};
use crate::show;

/// How long the demo waits for an order to change before it looks at whether it should stop.
const WATCH: Duration = Duration::from_secs(10);
/// How often, and with what pause between, the demo looks whether everything has been told.
const LOOKS: usize = 200;
const PAUSE: Duration = Duration::from_millis(25);
/// Stock that each run adds to a product, enough for its orders.
const RECEIPT: u32 = 50;

/// What is sold: SKU, name, price in cents, whether it is in stock.
const CATALOGUE: [(&str, &str, u32, bool); 5] = [
    ("TEA-500", "Assam tea, 500 g", 1_290, true),
    ("CUP-BLUE", "Cup, blue", 890, true),
    ("POT-1L", "Teapot, 1 l", 3_450, true),
    ("KETTLE", "Kettle, 1.7 l", 5_900, true),
    ("SAMOVAR", "Samovar, brass", 24_900, false),
];

/// Who buys, with how many cents.
const CUSTOMERS: [(&str, &str, u32); 3] = [
    ("Ada Lovelace", "ada@example.com", 100_000),
    ("Grace Hopper", "grace@example.com", 60_000),
    ("Empty Pockets", "empty@example.com", 500),
];

/// When a customer thinks again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cancels {
    Never,
    AtOnce,
    WhilePacked,
}

/// What happens: who orders what, whether the customer thinks again, and how it should end.
struct Scene {
    customer: usize,
    lines: &'static [(&'static str, u32)],
    cancels: Cancels,
    about: &'static str,
}

const SCENES: [Scene; 8] = [
    Scene {
        customer: 0,
        lines: &[("TEA-500", 2), ("CUP-BLUE", 4)],
        cancels: Cancels::Never,
        about: "tea and cups",
    },
    Scene { customer: 1, lines: &[("POT-1L", 1)], cancels: Cancels::Never, about: "a teapot" },
    Scene {
        customer: 0,
        lines: &[("SAMOVAR", 1)],
        cancels: Cancels::Never,
        about: "a samovar: out of stock",
    },
    Scene {
        customer: 2,
        lines: &[("KETTLE", 1)],
        cancels: Cancels::Never,
        about: "a kettle: not enough money",
    },
    Scene {
        customer: 1,
        lines: &[("CUP-BLUE", 6)],
        cancels: Cancels::WhilePacked,
        about: "cups: cancelled while packed",
    },
    Scene {
        customer: 0,
        lines: &[("KETTLE", 1), ("TEA-500", 1)],
        cancels: Cancels::Never,
        about: "a kettle and tea",
    },
    Scene {
        customer: 2,
        lines: &[("SAMOVAR", 2)],
        cancels: Cancels::Never,
        about: "samovars: neither stock nor money",
    },
    Scene {
        customer: 1,
        lines: &[("TEA-500", 3)],
        cancels: Cancels::AtOnce,
        about: "tea: cancelled at once",
    },
];

/// Serves, plays the scenes, prints one history, and stays up.
pub(crate) async fn demo(options: DemoOptions, tracer: &Tracer) -> anyhow::Result<ExitCode> {
    let settings = serve::settings(&options.options, options.packing, options.carrier_transit);
    let server = Server::start(&options.options, &[], &[], settings, tracer).await?;
    let url = server.url.clone();
    show::line(&format!("Waybill serves on {url} (all services in this process)\n"));
    let client = Client::new(&url)?;
    let stop = tokio::spawn(serve::told_to_stop());
    let ended = tokio::select! {
        played = play(&client) => { played?; false }
        () = ended(&stop) => true,
    };
    if !ended {
        show::line(&format!(
            "\nIt stays up. Look at {url}/docs, or in another terminal:\n  \
             waybill order list --server {url}\n\
             Ctrl-C ends it."
        ));
        stop.await??;
    }
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn ended(stop: &tokio::task::JoinHandle<anyhow::Result<()>>) {
    while !stop.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn play(client: &Client) -> anyhow::Result<()> {
    list_catalogue(client).await?;
    let customers = register_customers(client).await?;
    show::line(&format!(
        "{} products and {} customers are there. Orders on their way:\n",
        CATALOGUE.len(),
        customers.len()
    ));
    // The order service hears of new products a moment later.
    caught_up(client, &["/v1/ops/inventory/outbox", "/v1/ops/order/consumers"]).await?;
    let view = MultiProgress::new();
    let mut playing = Vec::new();
    for scene in &SCENES {
        let customer = customers.get(scene.customer).cloned().unwrap_or_default();
        let scene = play_scene(client.clone(), view.clone(), scene, customer);
        playing.push(tokio::spawn(scene));
    }
    let mut orders = Vec::new();
    for order in playing {
        orders.push(order.await??);
    }
    if !view.is_hidden() {
        // The live view ends without a line break.
        show::line("");
    }
    let counted =
        |status: &str| orders.iter().filter(|order| text(order, "status") == status).count();
    let ends: Vec<String> = ENDS.iter().map(|end| format!("{} {end}", counted(end))).collect();
    show::line(&format!("\nAll have ended: {}.", ends.join(", ")));
    if let Some(order) = orders.iter().find(|order| text(order, "status") == "completed") {
        let id = text(order, "id");
        // An order has ended a moment before the event store is told so.
        caught_up(client, &["/v1/ops/order/outbox"]).await?;
        show::line(&format!("\nThe whole history of {} ({id}):\n", text(order, "number")));
        show_history(&client.get(&format!("/v1/audit/orders/{id}"), &[]).await?.value);
    }
    Ok(())
}

/// Lists the products; where an earlier demo listed them, adds stock.
async fn list_catalogue(client: &Client) -> Result<(), ClientError> {
    for (sku, name, cents, stocked) in CATALOGUE {
        let price = json!({ "amount": cents, "currency": "EUR" });
        match client
            .post("/v1/products", &json!({ "sku": sku, "name": name, "price": price }), None)
            .await
        {
            Ok(_) => {}
            Err(ClientError::Refused(refusal)) if refusal.status == StatusCode::CONFLICT => {}
            Err(error) => return Err(error),
        }
        if stocked {
            let receipt = json!({ "quantity": RECEIPT, "reference": "demo" });
            client.post(&format!("/v1/products/{sku}/receipts"), &receipt, None).await?;
        }
    }
    Ok(())
}

async fn register_customers(client: &Client) -> Result<Vec<String>, ClientError> {
    let mut ids = Vec::new();
    for (name, email, cents) in CUSTOMERS {
        let user = client.post("/v1/users", &json!({ "name": name, "email": email }), None).await?;
        let id = text(&user.value, "id");
        let amount = json!({ "amount": { "amount": cents, "currency": "EUR" } });
        client.post(&format!("/v1/users/{id}/deposits"), &amount, None).await?;
        ids.push(id);
    }
    Ok(ids)
}

/// Waits until nothing lags behind at these routes of the operators.
async fn caught_up(client: &Client, paths: &[&str]) -> Result<(), ClientError> {
    for _ in 0..LOOKS {
        let mut behind = false;
        for path in paths {
            let progress = client.get(path, &[]).await?.value;
            let mut all = items(&progress).chain([&progress]).map(|one| text(one, "lag"));
            behind |= all.any(|lag| !matches!(lag.as_str(), "" | "0"));
        }
        if !behind {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn new_order(customer: &str, lines: &Value) -> Value {
    json!({
        "customer_id": customer,
        "lines": lines,
        "ship_to": {
            "name": "Demo Customer", "line1": "1 Harbour Lane", "city": "Bristol",
            "postal_code": "BS1 4RN", "country": "GB",
        },
    })
}

/// Places an order and follows it to its end.
async fn play_scene(
    client: Client,
    view: MultiProgress,
    scene: &'static Scene,
    customer: String,
) -> anyhow::Result<Value> {
    let lines: Vec<Value> = scene
        .lines
        .iter()
        .map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity }))
        .collect();
    let key = Ids::system().next().to_string();
    let placed =
        client.post("/v1/orders", &new_order(&customer, &json!(lines)), Some(&key)).await?;
    let mut way = Way::new(&view, scene, &placed);
    let path = format!("/v1/orders/{}", text(&placed.value, "id"));
    let mut order = placed;
    if scene.cancels == Cancels::AtOnce {
        order = cancel(&client, &path, &mut way).await?;
    }
    while !ENDS.contains(&text(&order.value, "status").as_str()) {
        let seen = order.etag.clone().unwrap_or_default();
        let Some(newer) = client.get_newer(&path, &seen, WATCH).await? else { continue };
        order = newer;
        way.at(&order);
        if scene.cancels == Cancels::WhilePacked && text(&order.value, "status") == "confirmed" {
            order = cancel(&client, &path, &mut way).await?;
        }
    }
    way.end(&order);
    Ok(order.value)
}

async fn cancel(client: &Client, path: &str, way: &mut Way) -> Result<Resource, ClientError> {
    let body = json!({ "reason": "changed my mind" });
    let order = match client.post(&format!("{path}/cancel"), &body, None).await {
        // The parcel was faster.
        Err(ClientError::Refused(refusal)) if refusal.status == StatusCode::CONFLICT => {
            client.get(path, &[]).await?
        }
        cancelled => cancelled?,
    };
    way.at(&order);
    Ok(order)
}

/// The line of one order in the live view: every status it went through.
struct Way {
    bar: ProgressBar,
    number: String,
    about: &'static str,
    statuses: Vec<String>,
}

impl Way {
    fn new(view: &MultiProgress, scene: &Scene, order: &Resource) -> Self {
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = view.add(ProgressBar::new_spinner().with_style(style));
        bar.enable_steady_tick(Duration::from_millis(120));
        let number = text(&order.value, "number");
        let mut way = Self { bar, number, about: scene.about, statuses: Vec::new() };
        way.at(order);
        way
    }

    fn at(&mut self, order: &Resource) {
        let status = text(&order.value, "status");
        if self.statuses.last() == Some(&status) {
            return;
        }
        self.statuses.push(status);
        self.bar.set_message(self.line());
        if self.bar.is_hidden() {
            show::line(&self.line());
        }
    }

    fn line(&self) -> String {
        format!("{:<6} {:<34} {}", self.number, self.about, self.statuses.join(" → "))
    }

    fn end(self, order: &Resource) {
        let reasons = order.value.get("reasons").and_then(Value::as_array);
        let details: Vec<String> =
            reasons.into_iter().flatten().map(|reason| text(reason, "detail")).collect();
        let why =
            if details.is_empty() { String::new() } else { format!("  ({})", details.join("; ")) };
        self.bar.finish_with_message(format!("{}{why}", self.line()));
    }
}
