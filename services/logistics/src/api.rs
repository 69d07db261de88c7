//! The routes of the logistics service: what they take, and what they show.

use std::borrow::Cow;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waybill_contract::{Address, Line, OrderId, Quantity, ShipmentId, Sku, Text};
use waybill_runtime::{Answer, Timestamp, Version};
use waybill_web::{
    App, ById, ChangeHeaders, ChangeProblems, Filters, Items, ListProblems, Listing, Named,
    PageQuery, Problem, QueryFields, ReadHeaders, ReadProblems, Seen, Submitted, one_of,
    text_schema,
};

use crate::LogisticsService;
use crate::shipment::{
    Command, LogisticsTables, RecordTracking, Refusal, Shipment, Status, TrackingStatus,
};

/// The routes of the logistics service.
pub fn routes() -> OpenApiRouter<App<LogisticsService>> {
    OpenApiRouter::default()
        .routes(routes!(list_shipments))
        .routes(routes!(get_shipment))
        .routes(routes!(record_tracking))
}

/// What a carrier reports about a parcel.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TrackingReport {
    /// What became of it.
    status: TrackingStatus,
    /// Where that was.
    #[serde(default)]
    location: Option<Text>,
    /// What the carrier says about it; why, if it failed.
    #[serde(default)]
    note: Option<Text>,
}

/// A parcel as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Shipment)]
pub struct ShipmentView {
    /// Its identity.
    pub id: ShipmentId,
    /// Its order.
    pub order_id: OrderId,
    /// Where it is in its life.
    pub status: Status,
    /// Who carries it, once it left.
    #[schema(required)]
    pub carrier: Option<String>,
    /// What the carrier calls it, once it left.
    #[schema(required)]
    pub tracking_number: Option<String>,
    /// Where it was last seen, if anybody said.
    #[schema(required)]
    pub location: Option<Text>,
    /// What the carrier's last report says beyond that; why, if it failed.
    #[schema(required)]
    pub note: Option<Text>,
    /// What is in it; nothing if it was cancelled before it was known what.
    pub lines: Vec<ShipmentLine>,
    /// Where it goes; null if it was cancelled before it was known where to.
    #[schema(required)]
    pub ship_to: Option<Address>,
    /// When it came into being.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// How often it changed; its `ETag`.
    #[schema(value_type = i64, minimum = 1)]
    pub version: Version,
}

/// How many of one product are in a parcel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShipmentLine {
    /// Which product.
    pub sku: Sku,
    /// Its name when it was ordered.
    pub name: Text,
    /// How many.
    pub quantity: Quantity,
}

text_schema!(TrackingStatus);

impl PartialSchema for Status {
    fn schema() -> RefOr<Schema> {
        one_of(Self::ALL.iter().map(|status| status.as_str()).collect())
    }
}

// By its own name it would take the place of an order's in the document of the whole API.
impl ToSchema for Status {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ShipmentStatus")
    }
}

impl From<&Shipment> for ShipmentView {
    fn from(parcel: &Shipment) -> Self {
        Self {
            id: parcel.id,
            order_id: parcel.order_id,
            status: parcel.status,
            carrier: unless_empty(&parcel.carrier),
            tracking_number: unless_empty(&parcel.tracking_number),
            location: parcel.location.clone(),
            note: parcel.note.clone(),
            lines: parcel.lines.0.iter().map(ShipmentLine::from).collect(),
            ship_to: parcel.ship_to.0.clone(),
            created_at: parcel.created_at,
            updated_at: parcel.updated_at,
            version: parcel.version,
        }
    }
}

fn unless_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl From<&Line> for ShipmentLine {
    fn from(line: &Line) -> Self {
        Self { sku: line.sku.clone(), name: line.name.clone(), quantity: line.quantity }
    }
}

/// The answer to a command that was not refused.
pub(crate) fn answer(command: &Command, tables: &LogisticsTables) -> Answer {
    let Command::RecordTracking(report) = command;
    // A command that was not refused has its parcel; without one there is nothing to show.
    let view = tables.shipments.get(&report.order_id).map(ShipmentView::from);
    Answer::ok(view.as_ref().map_or(Version(0), |parcel| parcel.version), &view)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::UnknownShipment(_) => Self::not_found(detail),
            Refusal::NotOnItsWay { .. } => Self::conflict(detail),
        }
    }
}

/// Which parcels are listed.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct ShipmentFilters {
    /// Only that of this order.
    #[param(required = false, value_type = OrderId)]
    order_id: Option<OrderId>,
}

impl Filters for ShipmentFilters {
    type Place = ById;

    fn take(query: &mut QueryFields) -> Self {
        Self { order_id: query.optional("order_id") }
    }
}

impl ShipmentFilters {
    fn columns(&self) -> Vec<(&'static str, String)> {
        self.order_id.map(|id| ("order_id", id.to_string())).into_iter().collect()
    }
}

/// List parcels, the newest first.
#[utoipa::path(
    get, path = "/v1/shipments", tag = "shipments", params(ShipmentFilters, PageQuery<ById>),
    responses(
        (status = 200, description = "A page of parcels.", body = Items<ShipmentView>),
        ListProblems,
    ),
)]
async fn list_shipments(
    State(app): State<App<LogisticsService>>,
    listing: Listing<ShipmentFilters>,
) -> Result<Items<ShipmentView>, Problem> {
    app.list::<Shipment, _>(&listing.filters.columns(), &listing.page, |parcel| parcel.into()).await
}

/// Show a parcel.
#[utoipa::path(
    get, path = "/v1/shipments/{id}", tag = "shipments",
    params(("id" = ShipmentId, Path, description = "Which parcel."), ReadHeaders),
    responses(
        (status = 200, description = "The parcel.", body = ShipmentView,
            headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "It still is what the client has seen."),
        ReadProblems,
    ),
)]
async fn get_shipment(
    State(app): State<App<LogisticsService>>,
    Named(id): Named<ShipmentId>,
    seen: Seen,
) -> Result<Response, Problem> {
    let order_id = order_of(&app, id).await?;
    app.show(&order_id, &seen, |parcel: &Shipment| ShipmentView::from(parcel)).await
}

/// Record what a carrier reports about a parcel.
///
/// Carriers report on parcels that left and did not come to an end; on any other it is a conflict.
#[utoipa::path(
    post, path = "/v1/shipments/{id}/tracking", tag = "shipments",
    params(("id" = ShipmentId, Path, description = "Which parcel."), ChangeHeaders),
    request_body = TrackingReport,
    responses(
        (status = 200, description = "The parcel, as it is after that.", body = ShipmentView,
            headers(("ETag" = String, description = "Its version."))),
        ChangeProblems,
    ),
)]
async fn record_tracking(
    State(app): State<App<LogisticsService>>,
    Named(shipment_id): Named<ShipmentId>,
    Submitted { body, terms }: Submitted<TrackingReport>,
) -> Result<Response, Problem> {
    let order_id = order_of(&app, shipment_id).await?;
    let TrackingReport { status, location, note } = body;
    let report = RecordTracking { order_id, shipment_id, status, location, note };
    app.submit(terms, Command::RecordTracking(report)).await
}

/// The order of a parcel, which is what its row is found by and never changes.
async fn order_of(app: &App<LogisticsService>, id: ShipmentId) -> Result<OrderId, Problem> {
    let found = app.handle().list::<Shipment>(&[("id", id.to_string())], None, 1).await?;
    let parcel = found.first().ok_or_else(|| Problem::from(Refusal::UnknownShipment(id)))?;
    Ok(parcel.order_id)
}
