//! The routes of the user service: what they take, and what they show.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waybill_contract::user::NotificationKind;
use waybill_contract::{Currency, Email, Invalid, Money, OrderId, Text, UserId};
use waybill_runtime::{Answer, Context, Timestamp, Version};
use waybill_web::{
    App, ById, ChangeHeaders, ChangeProblems, CreateHeaders, CreateProblems, InvalidField, Items,
    ListProblems, Listing, Named, NestedListProblems, PageQuery, Problem, ReadHeaders,
    ReadProblems, Seen, Submitted, Unfiltered, one_of,
};

use crate::UserService;
use crate::notification::Notification;
use crate::wallet::{Command, Deposit, Refusal, RegisterUser, User, UserTables};

/// The currency of a wallet for which none is named.
const USUAL_CURRENCY: &str = "EUR";

/// The routes of the user service.
pub fn routes() -> OpenApiRouter<App<UserService>> {
    OpenApiRouter::default()
        .routes(routes!(register_user, list_users))
        .routes(routes!(get_user))
        .routes(routes!(deposit))
        .routes(routes!(list_notifications))
}

/// A user to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    /// The user's name.
    name: Text,
    /// Where mail reaches the user.
    email: Email,
    /// The wallet's currency, EUR if left out.
    #[serde(default)]
    currency: Option<Currency>,
}

impl NewUser {
    fn into_command(self) -> Result<Command, Problem> {
        let usual = || USUAL_CURRENCY.parse().map_err(invalid_currency);
        let currency = self.currency.map_or_else(usual, Ok)?;
        Ok(Command::Register(RegisterUser { name: self.name, email: self.email, currency }))
    }
}

fn invalid_currency(Invalid(detail): Invalid) -> Problem {
    Problem::invalid(vec![InvalidField::new("/currency", detail)])
}

/// Money to put into a wallet.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDeposit {
    /// How much, in the wallet's currency.
    amount: Money,
}

/// A user and what the wallet holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    /// The user's identity.
    pub id: UserId,
    /// The user's name.
    pub name: Text,
    /// Where mail reaches the user.
    pub email: Email,
    /// What the wallet holds.
    pub balance: BalanceView,
    /// When the user was registered.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When the user or the wallet last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// What a wallet holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Balance)]
pub struct BalanceView {
    /// What can be spent.
    pub available: SumView,
    /// What is set aside for orders.
    pub held: SumView,
}

/// Money in a wallet, which refunds may take beyond the largest amount of a deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Sum)]
pub struct SumView {
    /// How much, in minor units.
    #[schema(minimum = 0, example = 1999)]
    pub amount: i64,
    /// Of what.
    pub currency: Currency,
}

/// Something a user was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Notification)]
pub struct NotificationView {
    /// About which order.
    pub order_id: OrderId,
    /// What it is about.
    #[schema(schema_with = notification_kinds)]
    pub kind: NotificationKind,
    /// The words.
    pub text: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

fn notification_kinds() -> RefOr<Schema> {
    one_of(NotificationKind::ALL.iter().map(|kind| kind.as_str()).collect())
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        let sum = |amount| SumView { amount, currency: user.currency.clone() };
        Self {
            id: user.id,
            name: user.name.clone(),
            email: user.email.clone(),
            balance: BalanceView { available: sum(user.available), held: sum(user.held) },
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

impl From<&Notification> for NotificationView {
    fn from(notification: &Notification) -> Self {
        Self {
            order_id: notification.order_id,
            kind: notification.kind,
            text: notification.text.clone(),
            created_at: notification.created_at,
        }
    }
}

/// The answer to a command that was not refused.
pub(crate) fn answer(
    command: &Command,
    tables: &UserTables,
    context: &Context<'_, UserService>,
) -> Answer {
    let user_id = match command {
        Command::Register(_) => UserId(context.fresh_id),
        Command::Deposit(deposit) => deposit.user_id,
    };
    // A command that was not refused has its user; without one there is nothing to show.
    let user = tables.users.get(&user_id);
    let view = user.map(UserView::from);
    let version = user.map_or(Version(0), |user| user.version);
    match command {
        Command::Register(_) => Answer::created(format!("/v1/users/{user_id}"), version, &view),
        Command::Deposit(_) => Answer::ok(version, &view),
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let invalid = |pointer| Self::invalid(vec![InvalidField::new(pointer, detail.clone())]);
        match refusal {
            Refusal::UnknownUser(_) => Self::not_found(detail),
            Refusal::OtherCurrency { .. } => invalid("/amount/currency"),
            Refusal::BalanceTooLarge => invalid("/amount/amount"),
        }
    }
}

/// Register a user.
///
/// The wallet is empty at first.
#[utoipa::path(
    post, path = "/v1/users", tag = "users",
    params(CreateHeaders), request_body = NewUser,
    responses(
        (status = 201, description = "The user.", body = UserView,
            headers(("Location" = String, description = "Its address."),
                    ("ETag" = String, description = "Its version."))),
        CreateProblems,
    ),
)]
async fn register_user(
    State(app): State<App<UserService>>,
    submitted: Submitted<NewUser>,
) -> Result<Response, Problem> {
    app.submit(submitted.terms, submitted.body.into_command()?).await
}

/// List users, the newest first.
#[utoipa::path(
    get, path = "/v1/users", tag = "users", params(PageQuery<ById>),
    responses((status = 200, description = "A page of users.", body = Items<UserView>), ListProblems),
)]
async fn list_users(
    State(app): State<App<UserService>>,
    listing: Listing<Unfiltered<ById>>,
) -> Result<Items<UserView>, Problem> {
    app.list::<User, _>(&[], &listing.page, |user| user.into()).await
}

/// Show a user.
#[utoipa::path(
    get, path = "/v1/users/{id}", tag = "users",
    params(("id" = UserId, Path, description = "Which user."), ReadHeaders),
    responses(
        (status = 200, description = "The user.", body = UserView,
            headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "It still is what the client has seen."),
        ReadProblems,
    ),
)]
async fn get_user(
    State(app): State<App<UserService>>,
    Named(id): Named<UserId>,
    seen: Seen,
) -> Result<Response, Problem> {
    app.show(&id, &seen, |user: &User| UserView::from(user)).await
}

/// Put money into a user's wallet.
#[utoipa::path(
    post, path = "/v1/users/{id}/deposits", tag = "users",
    params(("id" = UserId, Path, description = "Whose wallet."), ChangeHeaders),
    request_body = NewDeposit,
    responses(
        (status = 200, description = "The user.", body = UserView,
            headers(("ETag" = String, description = "Its version."))),
        ChangeProblems,
    ),
)]
async fn deposit(
    State(app): State<App<UserService>>,
    Named(user_id): Named<UserId>,
    submitted: Submitted<NewDeposit>,
) -> Result<Response, Problem> {
    let deposit = Deposit { user_id, amount: submitted.body.amount };
    app.submit(submitted.terms, Command::Deposit(deposit)).await
}

/// List what a user was told, the newest first.
#[utoipa::path(
    get, path = "/v1/users/{id}/notifications", tag = "users",
    params(("id" = UserId, Path, description = "Which user."), PageQuery<ById>),
    responses(
        (status = 200, description = "A page of notifications.", body = Items<NotificationView>),
        NestedListProblems,
    ),
)]
async fn list_notifications(
    State(app): State<App<UserService>>,
    Named(user_id): Named<UserId>,
    listing: Listing<Unfiltered<ById>>,
) -> Result<Items<NotificationView>, Problem> {
    if app.handle().get::<User>(&user_id).await?.is_none() {
        return Err(Problem::of(StatusCode::NOT_FOUND));
    }
    let of_user = [("user_id", user_id.to_string())];
    app.list::<Notification, _>(&of_user, &listing.page, |told| told.into()).await
}
