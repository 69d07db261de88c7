//! What operators ask of a service: how far it is, and what it could not handle.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use utoipa::openapi::path::Paths;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, OpenApi as _, PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use waybill_runtime::{DeadLetter, DeadLetterStatus, Position, Service, Settled, Timestamp};

use crate::cursor::{ByName, PageQuery};
use crate::document::{AnyProblems, ListProblems, StateProblems, one_of};
use crate::list::{Filters, Items, Listing, QueryFields};
use crate::path::Named;
use crate::problem::Problem;
use crate::state::App;

/// The operator's routes of a service, under its name.
pub fn ops_routes<S: Service>() -> OpenApiRouter<App<S>> {
    OpenApiRouter::with_openapi(Schemas::openapi())
        .routes(mounted::<S, __path_consumers>("consumers", get(consumers::<S>)))
        .routes(mounted::<S, __path_outbox>("outbox", get(outbox::<S>)))
        .routes(mounted::<S, __path_dead_letters>("dead_letters", get(dead_letters::<S>)))
        .routes(mounted::<S, __path_retry>("retry", post(retry::<S>)))
        .routes(mounted::<S, __path_discard>("discard", post(discard::<S>)))
}

/// A route with the service's name in it, in the address as in the document.
fn mounted<S: Service, P: utoipa::Path>(
    name: &str,
    handler: MethodRouter<App<S>>,
) -> utoipa_axum::router::UtoipaMethodRouter<App<S>> {
    let mut operation = P::operation();
    operation.operation_id = Some(format!("{}_{name}", S::NAME));
    operation.tags = Some(vec!["operations".to_owned()]);
    let mut paths = Paths::new();
    let path = P::path().replace("{service}", S::NAME);
    paths.add_path_operation(path, P::methods(), operation);
    (Vec::new(), paths, handler)
}

/// How far a service's consumer is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Consumer {
    /// Whose consumer it is.
    name: &'static str,
    /// The position it has handled everything up to.
    #[schema(value_type = i64)]
    position: Position,
    /// The newest position of the event store.
    #[schema(value_type = i64)]
    head: Position,
    /// How many positions lie between.
    lag: i64,
    /// Events handled per second, over the last minute.
    rate: f64,
    /// Age of the oldest event that waits, 0 if none does.
    oldest_waiting_seconds: f64,
}

/// How far a service's relay is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Outbox {
    /// The outbox position that the event store has seen.
    #[schema(value_type = i64)]
    position: Position,
    /// The newest position of the outbox.
    #[schema(value_type = i64)]
    head: Position,
    /// How many events lie between.
    lag: i64,
    /// Events relayed per second, over the last minute.
    rate: f64,
    /// Age of the oldest event that waits, 0 if none does.
    oldest_waiting_seconds: f64,
}

/// An event or timer that could not be handled, or that waits behind such a one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct DeadLetterView {
    /// Its id: that of the event, or of the event that set the timer.
    id: String,
    /// What waits with it: an order's id, or the first event of a product or a user.
    lane: String,
    /// What is to become of it.
    #[schema(value_type = LetterStatus)]
    status: DeadLetterStatus,
    /// The event's name.
    kind: String,
    /// Where it stands in the event store; 0 for a timer.
    #[schema(value_type = i64)]
    position: Position,
    /// Why it could not be handled; empty if it only waits.
    cause: String,
    /// How often it was tried.
    attempts: i64,
    /// When it was parked.
    #[schema(value_type = String, format = DateTime)]
    parked_at: Timestamp,
}

impl From<&DeadLetter> for DeadLetterView {
    fn from(letter: &DeadLetter) -> Self {
        let letter = letter.clone();
        Self {
            id: letter.id,
            lane: letter.lane,
            status: letter.status,
            kind: letter.kind,
            position: letter.position,
            cause: letter.cause,
            attempts: letter.attempts,
            parked_at: letter.parked_at,
        }
    }
}

/// What is to become of a dead letter; for the document.
struct LetterStatus;

impl PartialSchema for LetterStatus {
    fn schema() -> RefOr<Schema> {
        one_of(DeadLetterStatus::ALL.iter().map(|status| status.as_str()).collect())
    }
}

impl ToSchema for LetterStatus {
    fn name() -> Cow<'static, str> {
        "DeadLetterStatus".into()
    }
}

/// What became of an operator's wish.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SettledLetter {
    /// Which dead letter.
    id: String,
    /// What it is now.
    #[schema(value_type = LetterStatus)]
    status: DeadLetterStatus,
}

/// Names a dead letter: 1 to 200 visible ASCII characters.
#[derive(Clone, Debug)]
struct LetterId(String);

impl FromStr for LetterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > 200 || !visible {
            return Err("must be the id of a dead letter");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which dead letters are listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct LetterFilters {
    /// Only those with this status.
    #[param(required = false, value_type = LetterStatus)]
    status: Option<DeadLetterStatus>,
}

impl Filters for LetterFilters {
    type Place = ByName;

    fn take(query: &mut QueryFields) -> Self {
        Self { status: query.optional("status") }
    }
}

/// Show how far the service's consumer is.
#[utoipa::path(
    get, path = "/v1/ops/{service}/consumers",
    responses((status = 200, description = "The service's consumer.", body = Items<Consumer>), AnyProblems),
)]
async fn consumers<S: Service>(State(app): State<App<S>>) -> Result<Items<Consumer>, Problem> {
    let status = app.handle().consumer_status().await?;
    let consumer = Consumer {
        name: S::NAME,
        position: status.position,
        head: status.head,
        lag: status.lag,
        rate: status.rate,
        oldest_waiting_seconds: status.oldest_waiting_seconds,
    };
    Ok(Items { items: vec![consumer], next: None })
}

/// Show how far the service's relay is.
#[utoipa::path(
    get, path = "/v1/ops/{service}/outbox",
    responses((status = 200, description = "The service's relay.", body = Outbox), AnyProblems),
)]
async fn outbox<S: Service>(State(app): State<App<S>>) -> Result<Json<Outbox>, Problem> {
    let status = app.handle().outbox_status().await?;
    Ok(Json(Outbox {
        position: status.position,
        head: status.head,
        lag: status.lag,
        rate: status.rate,
        oldest_waiting_seconds: status.oldest_waiting_seconds,
    }))
}

/// List what the service could not handle.
#[utoipa::path(
    get, path = "/v1/ops/{service}/dead-letters", params(LetterFilters, PageQuery<ByName>),
    responses(
        (status = 200, description = "A page of dead letters.", body = Items<DeadLetterView>),
        ListProblems,
    ),
)]
async fn dead_letters<S: Service>(
    State(app): State<App<S>>,
    Listing { filters, page }: Listing<LetterFilters>,
) -> Result<Items<DeadLetterView>, Problem> {
    let after = page.after.as_deref();
    let letters = app.handle().dead_letters(filters.status, after, page.rows()).await?;
    Ok(page.show(letters, |letter| letter.id.clone(), |letter| letter.into()))
}

/// Try a dead letter and what waits behind it again.
#[utoipa::path(
    post, path = "/v1/ops/{service}/dead-letters/{id}/retry",
    params(("id" = String, Path, description = "Which dead letter.")),
    responses((status = 200, description = "It is tried again.", body = SettledLetter), StateProblems),
)]
async fn retry<S: Service>(
    State(app): State<App<S>>,
    Named(LetterId(id)): Named<LetterId>,
) -> Result<Json<SettledLetter>, Problem> {
    let settled = app.handle().retry(&id).await?;
    settled_letter(id, settled, DeadLetterStatus::Retrying)
}

/// Give a dead letter up, for good and on record; what waits behind it goes on.
#[utoipa::path(
    post, path = "/v1/ops/{service}/dead-letters/{id}/discard",
    params(("id" = String, Path, description = "Which dead letter.")),
    responses((status = 200, description = "It is given up.", body = SettledLetter), StateProblems),
)]
async fn discard<S: Service>(
    State(app): State<App<S>>,
    Named(LetterId(id)): Named<LetterId>,
) -> Result<Json<SettledLetter>, Problem> {
    let settled = app.handle().discard(&id).await?;
    settled_letter(id, settled, DeadLetterStatus::Discarded)
}

fn settled_letter(
    id: String,
    settled: Settled,
    status: DeadLetterStatus,
) -> Result<Json<SettledLetter>, Problem> {
    match settled {
        Settled::Done => Ok(Json(SettledLetter { id, status })),
        Settled::Unknown => Err(Problem::not_found(format!("there is no dead letter {id}"))),
        Settled::NotParked => Err(Problem::conflict(format!("dead letter {id} is not parked"))),
    }
}

/// What the operator's routes show; for the document.
#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(
    Consumer, Outbox, DeadLetterView, LetterStatus, SettledLetter,
    Items<Consumer>, Items<DeadLetterView>
)))]
struct Schemas;
