//! The routes of the inventory service: what they take, and what they show.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waybill_contract::values::LARGEST_QUANTITY;
use waybill_contract::{Invalid, Money, Quantity, Sku, Text};
use waybill_runtime::{Answer, Timestamp, Version};
use waybill_web::{
    App, ByName, ChangeHeaders, ChangeProblems, ConflictProblem, CreateHeaders, CreateProblems,
    InvalidField, Items, ListProblems, Listing, Named, PageQuery, Problem, ReadHeaders,
    ReadProblems, Seen, Submitted, Unfiltered,
};

use crate::InventoryService;
use crate::stock::{
    ChangeProduct, Command, InventoryTables, ListProduct, Product, ReceiveStock, Refusal,
};

/// The routes of the inventory service.
pub fn routes() -> OpenApiRouter<App<InventoryService>> {
    OpenApiRouter::default()
        .routes(routes!(add_product, list_products))
        .routes(routes!(get_product, change_product))
        .routes(routes!(receive_stock))
}

/// A product to put on the list.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewProduct {
    /// Its identity.
    sku: Sku,
    /// Its name.
    name: Text,
    /// What one costs.
    price: Money,
    /// How many are there to begin with; none if left out.
    #[serde(default)]
    quantity: Option<FirstStock>,
}

/// How many are there to begin with, if any are: 0 to 1,000,000.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(try_from = "i64")]
#[schema(value_type = i64, minimum = 0, maximum = 1_000_000, example = 100)]
struct FirstStock(Option<Quantity>);

impl TryFrom<i64> for FirstStock {
    type Error = Invalid;

    fn try_from(number: i64) -> Result<Self, Invalid> {
        if number == 0 {
            return Ok(Self(None));
        }
        let out_of_bounds =
            |_| Invalid(format!("must be a whole number from 0 to {LARGEST_QUANTITY}"));
        number.try_into().map(|quantity| Self(Some(quantity))).map_err(out_of_bounds)
    }
}

/// What changes of a product; what is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProductChange {
    /// Its new name.
    #[serde(default)]
    name: Option<Text>,
    /// What one costs from now on, in the same currency.
    #[serde(default)]
    price: Option<Money>,
}

/// Stock that comes in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Receipt {
    /// How many.
    quantity: Quantity,
    /// What it refers to, such as a delivery note.
    #[serde(default)]
    reference: Option<Text>,
}

/// A product and its stock as they stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductView {
    /// Its identity.
    pub sku: Sku,
    /// Its name.
    pub name: Text,
    /// What one costs.
    pub price: Money,
    /// How many are in the house.
    #[schema(minimum = 0, example = 100)]
    pub on_hand: i64,
    /// How many of those are set aside for orders.
    #[schema(minimum = 0, example = 3)]
    pub reserved: i64,
    /// How many can be ordered: those on hand that are not set aside.
    #[schema(minimum = 0, example = 97)]
    pub available: i64,
    /// When it was listed.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it or its stock last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl From<&Product> for ProductView {
    fn from(product: &Product) -> Self {
        Self {
            sku: product.sku.clone(),
            name: product.name.clone(),
            price: product.unit_price(),
            on_hand: product.on_hand,
            reserved: product.reserved,
            available: product.available(),
            created_at: product.created_at,
            updated_at: product.updated_at,
        }
    }
}

/// The answer to a command that was not refused.
pub(crate) fn answer(command: &Command, tables: &InventoryTables) -> Answer {
    // A command that was not refused has its product; without one there is nothing to show.
    let product = tables.products.get(command.sku());
    let version = product.map_or(Version(0), |product| product.version);
    let view = product.map(ProductView::from);
    match command {
        Command::List(list) => {
            Answer::created(format!("/v1/products/{}", list.sku), version, &view)
        }
        Command::Change(_) | Command::Receive(_) => Answer::ok(version, &view),
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::UnknownProduct(_) => Self::not_found(detail),
            Refusal::SkuTaken(_) => Self::conflict(detail),
            Refusal::OtherCurrency => {
                Self::invalid(vec![InvalidField::new("/price/currency", detail)])
            }
            Refusal::TooMuchStock { .. } => {
                Self::invalid(vec![InvalidField::new("/quantity", detail)])
            }
        }
    }
}

/// Put a product on the list.
#[utoipa::path(
    post, path = "/v1/products", tag = "products",
    params(CreateHeaders), request_body = NewProduct,
    responses(
        (status = 201, description = "The product, listed.", body = ProductView,
            headers(("Location" = String, description = "Its address."),
                    ("ETag" = String, description = "Its version."))),
        CreateProblems, ConflictProblem,
    ),
)]
async fn add_product(
    State(app): State<App<InventoryService>>,
    Submitted { body, terms }: Submitted<NewProduct>,
) -> Result<Response, Problem> {
    let NewProduct { sku, name, price, quantity } = body;
    let quantity = quantity.and_then(|FirstStock(quantity)| quantity);
    app.submit(terms, Command::List(ListProduct { sku, name, price, quantity })).await
}

/// List products, in the order of their SKUs.
#[utoipa::path(
    get, path = "/v1/products", tag = "products", params(PageQuery<ByName>),
    responses(
        (status = 200, description = "A page of products.", body = Items<ProductView>),
        ListProblems,
    ),
)]
async fn list_products(
    State(app): State<App<InventoryService>>,
    listing: Listing<Unfiltered<ByName>>,
) -> Result<Items<ProductView>, Problem> {
    app.list::<Product, _>(&[], &listing.page, |product| product.into()).await
}

/// Show a product.
#[utoipa::path(
    get, path = "/v1/products/{sku}", tag = "products",
    params(("sku" = Sku, Path, description = "Which product."), ReadHeaders),
    responses(
        (status = 200, description = "The product.", body = ProductView,
            headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "It still is what the client has seen."),
        ReadProblems,
    ),
)]
async fn get_product(
    State(app): State<App<InventoryService>>,
    Named(sku): Named<Sku>,
    seen: Seen,
) -> Result<Response, Problem> {
    app.show(&sku, &seen, |product: &Product| ProductView::from(product)).await
}

/// Change a product's name or price.
///
/// Orders that are placed already keep the price that they were placed at.
#[utoipa::path(
    patch, path = "/v1/products/{sku}", tag = "products",
    params(("sku" = Sku, Path, description = "Which product."), ChangeHeaders),
    request_body = ProductChange,
    responses(
        (status = 200, description = "The product, changed.", body = ProductView,
            headers(("ETag" = String, description = "Its version."))),
        ChangeProblems,
    ),
)]
async fn change_product(
    State(app): State<App<InventoryService>>,
    Named(sku): Named<Sku>,
    Submitted { body, terms }: Submitted<ProductChange>,
) -> Result<Response, Problem> {
    let ProductChange { name, price } = body;
    app.submit(terms, Command::Change(ChangeProduct { sku, name, price })).await
}

/// Take in stock.
#[utoipa::path(
    post, path = "/v1/products/{sku}/receipts", tag = "products",
    params(("sku" = Sku, Path, description = "Which product."), ChangeHeaders),
    request_body = Receipt,
    responses(
        (status = 200, description = "The product, with more on hand.", body = ProductView,
            headers(("ETag" = String, description = "Its version."))),
        ChangeProblems,
    ),
)]
async fn receive_stock(
    State(app): State<App<InventoryService>>,
    Named(sku): Named<Sku>,
    Submitted { body, terms }: Submitted<Receipt>,
) -> Result<Response, Problem> {
    let Receipt { quantity, reference } = body;
    app.submit(terms, Command::Receive(ReceiveStock { sku, quantity, reference })).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_stock(number: i64) -> Result<Option<i64>, String> {
        let first = FirstStock::try_from(number).map_err(|invalid| invalid.to_string())?;
        Ok(first.0.map(Quantity::get))
    }

    #[test]
    fn a_product_may_be_listed_with_up_to_a_million_or_none() {
        assert_eq!(first_stock(0), Ok(None));
        assert_eq!(first_stock(1), Ok(Some(1)));
        assert_eq!(first_stock(1_000_000), Ok(Some(1_000_000)));
        for number in [-1, 1_000_001, i64::MAX] {
            let refused = "must be a whole number from 0 to 1000000".to_owned();
            assert_eq!(first_stock(number), Err(refused));
        }
    }

    #[test]
    fn what_may_be_left_out_may_be_null() {
        let bodies = [
            r#"{"sku":"TEA","name":"Tea","price":{"amount":1,"currency":"EUR"}}"#,
            r#"{"sku":"TEA","name":"Tea","price":{"amount":1,"currency":"EUR"},"quantity":null}"#,
            r#"{"sku":"TEA","name":"Tea","price":{"amount":1,"currency":"EUR"},"quantity":0}"#,
        ];
        for body in bodies {
            let product: NewProduct = serde_json::from_str(body).unwrap();
            assert!(product.quantity.and_then(|FirstStock(quantity)| quantity).is_none());
        }
    }
}
