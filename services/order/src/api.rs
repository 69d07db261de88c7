//! The routes of the order service: what they take, and what they show.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waybill_contract::order::Reason;
use waybill_contract::{Address, Line, Money, OrderId, Quantity, ShipmentId, Sku, Text, UserId};
use waybill_runtime::{Answer, Context, Timestamp, Version};
use waybill_web::{
    App, ById, ChangeHeaders, ChangeProblems, CreateHeaders, CreateProblems, Filters, InvalidField,
    Items, ListProblems, Listing, Named, PageQuery, Problem, QueryFields, ReadHeaders,
    ReadProblems, Seen, Submitted, SubmittedOrEmpty, optional_body, text_schema,
};

use crate::OrderService;
use crate::order::{
    CancelOrder, Command, InvalidLine, Order, OrderTables, PlaceOrder, Refusal, Status,
};

/// Lines of one order.
const LINES_MAX: usize = 100;

/// The routes of the order service.
pub fn routes() -> OpenApiRouter<App<OrderService>> {
    OpenApiRouter::default()
        .routes(routes!(place_order, list_orders))
        .routes(routes!(get_order))
        .routes(optional_body(routes!(cancel_order)))
}

/// An order to place.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    /// Who orders.
    customer_id: UserId,
    /// What is ordered, no product twice.
    #[schema(min_items = 1, max_items = 100)]
    lines: Vec<NewLine>,
    /// Where it goes.
    ship_to: Address,
}

/// A line of an order to place.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLine {
    /// Which product.
    sku: Sku,
    /// How many.
    quantity: Quantity,
}

impl NewOrder {
    fn into_command(self) -> Result<Command, Problem> {
        let errors = invalid_lines(&self.lines);
        if !errors.is_empty() {
            return Err(Problem::invalid(errors));
        }
        Ok(Command::Place(PlaceOrder {
            customer_id: self.customer_id,
            lines: self.lines.into_iter().map(|line| (line.sku, line.quantity)).collect(),
            ship_to: self.ship_to,
        }))
    }
}

fn invalid_lines(lines: &[NewLine]) -> Vec<InvalidField> {
    if lines.is_empty() || lines.len() > LINES_MAX {
        return vec![InvalidField::new("/lines", format!("must hold 1 to {LINES_MAX} lines"))];
    }
    let mut first = HashMap::new();
    let mut errors = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let earlier = *first.entry(&line.sku).or_insert(index);
        if earlier != index {
            let detail = format!("{} is already in line {earlier}", line.sku);
            errors.push(InvalidField::new(format!("/lines/{index}/sku"), detail));
        }
    }
    errors
}

/// The wish to cancel an order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Cancellation {
    /// What the customer says about it.
    #[serde(default)]
    reason: Option<Text>,
}

/// An order as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderView {
    /// Its identity.
    pub id: OrderId,
    /// Its short number, for people.
    #[schema(example = "W-17")]
    pub number: String,
    /// Who ordered.
    pub customer_id: UserId,
    /// Where it is in its life.
    pub status: Status,
    /// What was ordered, with the prices of that moment.
    pub lines: Vec<Line>,
    /// The sum of the lines.
    pub total: Money,
    /// Where it goes.
    pub ship_to: Address,
    /// When it was placed.
    #[schema(value_type = String, format = DateTime)]
    pub placed_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// How often it changed; its `ETag`.
    #[schema(value_type = i64, minimum = 1)]
    pub version: Version,
    /// Its parcel, once that left.
    #[schema(required)]
    pub shipment: Option<ShipmentView>,
    /// Why it did not come to a good end.
    pub reasons: Vec<Reason>,
}

/// The parcel of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = OrderShipment)]
pub struct ShipmentView {
    /// Its identity.
    pub id: ShipmentId,
    /// Who carries it.
    pub carrier: String,
    /// What the carrier calls it.
    pub tracking_number: String,
}

text_schema!(Status);

impl From<&Order> for OrderView {
    fn from(order: &Order) -> Self {
        Self {
            id: order.id,
            number: order.number.clone(),
            customer_id: order.customer_id,
            status: order.status,
            lines: order.lines.0.clone(),
            total: Money { amount: order.total, currency: order.currency.clone() },
            ship_to: order.ship_to.0.clone(),
            placed_at: order.placed_at,
            updated_at: order.updated_at,
            version: order.version,
            shipment: order.shipment_id.map(|id| ShipmentView {
                id,
                carrier: order.carrier.clone(),
                tracking_number: order.tracking_number.clone(),
            }),
            reasons: order.reasons.0.clone(),
        }
    }
}

/// The answer to a command that was not refused.
pub(crate) fn answer(
    command: &Command,
    tables: &OrderTables,
    context: &Context<'_, OrderService>,
) -> Answer {
    let order_id = match command {
        Command::Place(_) => OrderId(context.fresh_id),
        Command::Cancel(cancel) => cancel.order_id,
    };
    // A command that was not refused has its order; without one there is nothing to show.
    let view = tables.orders.get(&order_id).map(OrderView::from);
    let version = view.as_ref().map_or(Version(0), |order| order.version);
    match command {
        Command::Place(_) => Answer::created(format!("/v1/orders/{order_id}"), version, &view),
        Command::Cancel(_) => Answer::ok(version, &view),
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::UnknownOrder(_) => Self::not_found(detail),
            Refusal::TooLateToCancel { .. } => Self::conflict(detail),
            Refusal::InvalidLines(lines) => {
                Self::invalid(lines.into_iter().map(InvalidField::from).collect())
            }
        }
    }
}

impl From<InvalidLine> for InvalidField {
    fn from(line: InvalidLine) -> Self {
        let pointer =
            line.index.map_or_else(|| "/lines".to_owned(), |index| format!("/lines/{index}/sku"));
        Self::new(pointer, line.detail)
    }
}

/// Which orders are listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct OrderFilters {
    /// Only those of this customer.
    #[param(required = false, value_type = UserId)]
    customer_id: Option<UserId>,
    /// Only those with this status.
    #[param(required = false, value_type = Status)]
    status: Option<Status>,
}

impl Filters for OrderFilters {
    type Place = ById;

    fn take(query: &mut QueryFields) -> Self {
        Self { customer_id: query.optional("customer_id"), status: query.optional("status") }
    }
}

impl OrderFilters {
    fn columns(&self) -> Vec<(&'static str, String)> {
        let customer_id = self.customer_id.map(|id| ("customer_id", id.to_string()));
        let status = self.status.map(|status| ("status", status.to_string()));
        customer_id.into_iter().chain(status).collect()
    }
}

/// Place an order.
///
/// It is priced by the catalogue at once; whether it can be fulfilled shows soon after.
#[utoipa::path(
    post, path = "/v1/orders", tag = "orders",
    params(CreateHeaders), request_body = NewOrder,
    responses(
        (status = 201, description = "The order, placed.", body = OrderView,
            headers(("Location" = String, description = "Its address."),
                    ("ETag" = String, description = "Its version."))),
        CreateProblems,
    ),
)]
async fn place_order(
    State(app): State<App<OrderService>>,
    submitted: Submitted<NewOrder>,
) -> Result<Response, Problem> {
    app.submit(submitted.terms, submitted.body.into_command()?).await
}

/// List orders, the newest first.
#[utoipa::path(
    get, path = "/v1/orders", tag = "orders", params(OrderFilters, PageQuery<ById>),
    responses((status = 200, description = "A page of orders.", body = Items<OrderView>), ListProblems),
)]
async fn list_orders(
    State(app): State<App<OrderService>>,
    listing: Listing<OrderFilters>,
) -> Result<Items<OrderView>, Problem> {
    app.list::<Order, _>(&listing.filters.columns(), &listing.page, |order| order.into()).await
}

/// Show an order.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "orders",
    params(("id" = OrderId, Path, description = "Which order."), ReadHeaders),
    responses(
        (status = 200, description = "The order.", body = OrderView,
            headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "It still is what the client has seen."),
        ReadProblems,
    ),
)]
async fn get_order(
    State(app): State<App<OrderService>>,
    Named(id): Named<OrderId>,
    seen: Seen,
) -> Result<Response, Problem> {
    app.show(&id, &seen, |order: &Order| OrderView::from(order)).await
}

/// Cancel an order.
///
/// Once it is confirmed this is a request: its status is `cancelling` until it is known whether the
/// parcel has left.
#[utoipa::path(
    post, path = "/v1/orders/{id}/cancel", tag = "orders",
    params(("id" = OrderId, Path, description = "Which order."), ChangeHeaders),
    request_body = Cancellation,
    responses(
        (status = 200, description = "The order, cancelled or being so.", body = OrderView,
            headers(("ETag" = String, description = "Its version."))),
        ChangeProblems,
    ),
)]
async fn cancel_order(
    State(app): State<App<OrderService>>,
    Named(order_id): Named<OrderId>,
    SubmittedOrEmpty(submitted): SubmittedOrEmpty<Cancellation>,
) -> Result<Response, Problem> {
    let cancel = CancelOrder { order_id, comment: submitted.body.reason };
    app.submit(submitted.terms, Command::Cancel(cancel)).await
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ordered(skus: &[&str]) -> Result<Command, Problem> {
        let line = |sku: &&str| json!({"sku": sku, "quantity": 1});
        let order: NewOrder = serde_json::from_value(json!({
            "customer_id": "01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11",
            "lines": skus.iter().map(line).collect::<Vec<Value>>(),
            "ship_to": {
                "name": "Ada", "line1": "12 Square", "city": "London",
                "postal_code": "SW1Y 4JH", "country": "UK",
            },
        }))
        .unwrap();
        order.into_command()
    }

    #[track_caller]
    fn points_to(problem: &Problem, pointers: &[&str]) {
        assert_eq!(problem.status().as_u16(), 422);
        let found: Vec<&str> = problem.errors().iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(found, pointers);
    }

    #[test]
    fn an_order_of_1_to_100_lines_is_taken() {
        assert!(ordered(&["TEA"]).is_ok());
        let skus: Vec<String> = (0..=LINES_MAX).map(|n| format!("SKU-{n}")).collect();
        let skus: Vec<&str> = skus.iter().map(String::as_str).collect();
        assert!(ordered(&skus[..LINES_MAX]).is_ok());
        points_to(&ordered(&skus).unwrap_err(), &["/lines"]);
        points_to(&ordered(&[]).unwrap_err(), &["/lines"]);
    }

    #[test]
    fn a_product_stands_in_one_line_only() {
        let problem = ordered(&["TEA", "CUP", "TEA", "CUP"]).unwrap_err();
        points_to(&problem, &["/lines/2/sku", "/lines/3/sku"]);
        assert_eq!(problem.errors()[0].detail, "TEA is already in line 0");
    }

    #[test]
    fn each_refusal_has_its_status() {
        let order_id: OrderId = "01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11".parse().unwrap();
        let late = Refusal::TooLateToCancel { order_id, status: Status::Dispatched };
        assert_eq!(Problem::from(Refusal::UnknownOrder(order_id)).status().as_u16(), 404);
        assert_eq!(Problem::from(late).status().as_u16(), 409);
        let line = |index| InvalidLine { index, detail: "wrong".to_owned() };
        let lines = Refusal::InvalidLines(vec![line(Some(1)), line(None)]);
        points_to(&Problem::from(lines), &["/lines/1/sku", "/lines"]);
    }
}
