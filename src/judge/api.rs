//! The HTTP API of the deployment on trial, wherever its services are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use waybill_runtime::Clock;

use super::CannotJudge;
use super::history::Answer;
use crate::client::{Client, ClientError, items, text};

/// How long a question is asked again that finds no answer, before there is no judging.
const READING: Duration = Duration::from_mins(1);
/// The pause before a question is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take.
const TRY: Duration = Duration::from_secs(20);
/// Items of a page.
const PAGE: &str = "200";

/// Asks a deployment. Clones ask the same one.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    whole: Client,
    /// Services that are reached at an address of their own.
    apart: Arc<BTreeMap<String, Client>>,
    clock: Clock,
}

impl Api {
    /// A deployment behind one address.
    pub(crate) fn new(server: &str, clock: Clock) -> Result<Self, ClientError> {
        Ok(Self { whole: Client::new(server)?, apart: Arc::default(), clock })
    }

    /// A deployment whose services have these addresses.
    pub(crate) fn apart(
        servers: &[(String, String)],
        audit: &str,
        clock: Clock,
    ) -> Result<Self, ClientError> {
        let client = |(name, url): &(String, String)| Ok((name.clone(), Client::new(url)?));
        let apart = servers.iter().map(client).collect::<Result<_, ClientError>>()?;
        Ok(Self { whole: Client::new(audit)?, apart: Arc::new(apart), clock })
    }

    fn of(&self, path: &str) -> &Client {
        service_of(path).and_then(|service| self.apart.get(service)).unwrap_or(&self.whole)
    }

    /// Asks once for something to be done; why there is no answer that says what became of it.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        key: &str,
        patience: Duration,
    ) -> Result<Answer, String> {
        let asking = self.of(path).post(path, body, Some(key));
        match tokio::time::timeout(patience, asking).await {
            Err(_) => Err(format!("no answer within {patience:?}")),
            Ok(Ok(done)) => Ok(Answer::Yes(done.value)),
            Ok(Err(ClientError::Refused(refusal))) if says_what_became(refusal.status) => {
                Ok(Answer::No { status: refusal.status.as_u16(), why: refusal.to_string() })
            }
            Ok(Err(ClientError::Refused(refusal))) => {
                Err(format!("{} {refusal}", refusal.status.as_u16()))
            }
            Ok(Err(error)) => Err(error.to_string()),
        }
    }

    /// Reads once; nothing if there is no such thing.
    pub(crate) async fn try_get(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Option<Value>, ClientError> {
        match self.of(path).get(path, query).await {
            Ok(resource) => Ok(Some(resource.value)),
            Err(ClientError::Refused(refusal)) if refusal.status == StatusCode::NOT_FOUND => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads, however often that takes within a bound.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Option<Value>, CannotJudge> {
        let began = self.clock.now();
        loop {
            let asked = tokio::time::timeout(TRY, self.try_get(path, query)).await;
            let why = match asked {
                Ok(Ok(read)) => return Ok(read),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {TRY:?}"),
            };
            if self.clock.now().since(began) > READING {
                return Err(CannotJudge::NoAnswer { path: path.to_owned(), why });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Every item of a list, page by page.
    pub(crate) async fn all(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Vec<Value>, CannotJudge> {
        let mut query = query.to_vec();
        query.push(("limit", PAGE.to_owned()));
        let mut found = Vec::new();
        loop {
            let page = self.get(path, &query).await?.unwrap_or(Value::Null);
            found.extend(items(&page).cloned());
            let next = text(&page, "next");
            if next.is_empty() {
                return Ok(found);
            }
            query.retain(|(name, _)| *name != "cursor");
            query.push(("cursor", next));
        }
    }

    /// The page of events after a position, once.
    pub(crate) async fn events_after(&self, position: i64) -> Result<Vec<Value>, ClientError> {
        let query = [("after", position.to_string()), ("limit", PAGE.to_owned())];
        let page = self.try_get("/v1/audit/events", &query).await?.unwrap_or(Value::Null);
        Ok(items(&page).cloned().collect())
    }
}

/// Whether an answer of this status says what became of the request; all others are to be repeated.
fn says_what_became(status: StatusCode) -> bool {
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !later.contains(&status)
}

/// The service that answers a path, where that is one of those with tables.
fn service_of(path: &str) -> Option<&str> {
    let mut parts = path.strip_prefix("/v1/")?.split('/');
    match parts.next()? {
        "orders" => Some("order"),
        "products" => Some("inventory"),
        "shipments" => Some("logistics"),
        "users" => Some("user"),
        "ops" => parts.next(),
        _ => None,
    }
}
