//! Requests under keys, repeated until they are answered, and written down.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use waybill_runtime::Clock;

use super::api::Api;
use super::history::{Answer, Call, History, Sight, Wish};
use crate::client::{number, text};

/// How long one request may take before it is repeated.
pub(crate) const TRY: Duration = Duration::from_secs(20);
/// How long a request is repeated before the customer gives up. Asked once more in the end.
const GIVE_UP: Duration = Duration::from_mins(1);
/// The pause before a request is repeated.
const PAUSE: Duration = Duration::from_millis(50);

/// Sends requests and writes down what became of them. Clones share the history.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) api: Api,
    history: Arc<Mutex<History>>,
    clock: Clock,
}

/// A request in the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filed(usize);

impl Desk {
    /// With an empty history, in which all keys begin with this.
    pub(crate) fn new(api: Api, tag: String, clock: Clock) -> Self {
        let history = History { tag, ..History::default() };
        Self { api, history: Arc::new(Mutex::new(history)), clock }
    }

    /// What was written down so far.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        // Whoever panicked with it had written down what it knew.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what is about to be asked.
    pub(crate) fn file(&self, key: String, path: String, body: Value, wish: Wish) -> Filed {
        let call = Call { key, path, body, wish, answers: Vec::new(), trouble: String::new() };
        let mut history = self.history();
        history.calls.push(call);
        Filed(history.calls.len() - 1)
    }

    /// Asks once, for so long; the answer that says what became of it, if there was one.
    pub(crate) async fn ask(&self, filed: Filed, patience: Duration) -> Option<Answer> {
        let (key, path, body) = {
            let mut history = self.history();
            history.tries += 1;
            let call = history.calls.get(filed.0)?;
            (call.key.clone(), call.path.clone(), call.body.clone())
        };
        let answer = self.api.post(&path, &body, &key, patience).await;
        let mut history = self.history();
        history.unknown += u64::from(answer.is_err());
        let call = history.calls.get_mut(filed.0)?;
        match answer {
            Ok(answer) => {
                call.answers.push(answer.clone());
                Some(answer)
            }
            Err(trouble) => {
                call.trouble = trouble;
                None
            }
        }
    }

    /// Repeats a request until it is answered or given up.
    pub(crate) async fn insist(&self, filed: Filed) -> Option<Answer> {
        let began = self.clock.now();
        loop {
            if let Some(answer) = self.ask(filed, TRY).await {
                return Some(answer);
            }
            if self.clock.now().since(began) > GIVE_UP {
                return None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The requests that no answer says anything of.
    pub(crate) fn open(&self) -> Vec<Filed> {
        let history = self.history();
        let open = history.calls.iter().enumerate().filter(|(_, call)| call.answers.is_empty());
        open.map(|(index, _)| Filed(index)).collect()
    }

    /// Writes down which version of an order the answer to a request shows.
    pub(crate) fn shown(&self, by: usize, order: &Value) {
        self.saw(by, text(order, "id"), Some(order), false);
    }

    /// A customer reads an order; what it shows, if the server answers.
    pub(crate) async fn look(&self, by: usize, order: &str) -> Option<Value> {
        let path = format!("/v1/orders/{order}");
        let reading = self.api.try_get(&path, &[]);
        let read = tokio::time::timeout(TRY, reading).await.ok()?.ok()?;
        self.saw(by, order.to_owned(), read.as_ref(), true);
        read
    }

    fn saw(&self, by: usize, order: String, shown: Option<&Value>, read: bool) {
        let version = shown.map(|shown| number(shown, "version"));
        self.history().sights.push(Sight { by, order, version, read });
    }

    /// Files an order of these products.
    pub(crate) fn order(&self, key: &str, customer: &str, lines: BTreeMap<String, i64>) -> Filed {
        let body = new_order(key, customer, &lines);
        let wish = Wish::Place { customer: customer.to_owned(), lines };
        self.file(key.to_owned(), "/v1/orders".to_owned(), body, wish)
    }
}

/// An order with its key in the address, so that it tells which request it is of.
pub(crate) fn new_order(key: &str, customer: &str, lines: &BTreeMap<String, i64>) -> Value {
    let line = |(sku, quantity): (&String, &i64)| json!({ "sku": sku, "quantity": quantity });
    json!({
        "customer_id": customer,
        "lines": lines.iter().map(line).collect::<Vec<_>>(),
        "ship_to": {
            "name": "The Judge", "line1": "1 Temple Place", "line2": key, "city": "London",
            "postal_code": "WC2R 2PG", "country": "GB",
        },
    })
}
