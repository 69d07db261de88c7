//! The services there are. A new one is a folder that looks like its neighbours, and a line in
//! each list here.

use std::sync::Arc;

use clap::ValueEnum;
use serde_json::value::{RawValue, to_raw_value};
use tokio_util::sync::CancellationToken;
use waybill_audit::Audit;
use waybill_contract::OrderEvent;
use waybill_inventory::InventoryService;
use waybill_logistics::LogisticsService;
use waybill_order::{Order, OrderService, OrderView};
use waybill_runtime::fold::{self, EventStoreSnapshot, Finding, OnProgress};
use waybill_runtime::{
    Clock, DecodeError, Event as _, Location, OpenError, Recorded, Role, Runtime, StoredEvent,
    Table,
};
use waybill_user::UserService;
use waybill_web::Site;

/// A service by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Takes orders, and follows each to its end.
    Order,
    /// Keeps products and their stock.
    Inventory,
    /// Packs and tracks parcels.
    Logistics,
    /// Keeps users, their money and what they are told.
    User,
    /// Tells what happened.
    Audit,
}

impl Name {
    /// Its name as it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Inventory => "inventory",
            Self::Logistics => "logistics",
            Self::User => "user",
            Self::Audit => waybill_audit::NAME,
        }
    }
}

/// What an operator may set of each service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) order: waybill_order::Settings,
    pub(crate) logistics: waybill_logistics::Settings,
}

/// Opens a service, begins to run it, and adds its routes.
pub(crate) async fn host(
    name: Name,
    runtime: &Runtime,
    settings: Settings,
    site: Site,
    stopping: &CancellationToken,
) -> Result<Site, OpenError> {
    Ok(match name {
        Name::Order => {
            let handle = runtime.host::<OrderService>(settings.order).await?;
            site.service(handle, waybill_order::routes())
        }
        Name::Inventory => {
            let handle = runtime.host::<InventoryService>(()).await?;
            site.service(handle, waybill_inventory::routes())
        }
        Name::Logistics => {
            let handle = runtime.host::<LogisticsService>(settings.logistics).await?;
            site.service(handle, waybill_logistics::routes())
        }
        Name::User => {
            let handle = runtime.host::<UserService>(()).await?;
            site.service(handle, waybill_user::routes())
        }
        Name::Audit => {
            runtime.watch_event_store();
            site.merge(waybill_audit::routes(audit(runtime, stopping)))
        }
    })
}

/// Adds a service that another process serves to the document, without opening it.
pub(crate) fn describe(
    name: Name,
    runtime: &Runtime,
    site: Site,
    stopping: &CancellationToken,
) -> Site {
    match name {
        Name::Order => site.describe_service::<OrderService>(waybill_order::routes()),
        Name::Inventory => site.describe_service::<InventoryService>(waybill_inventory::routes()),
        Name::Logistics => site.describe_service::<LogisticsService>(waybill_logistics::routes()),
        Name::User => site.describe_service::<UserService>(waybill_user::routes()),
        Name::Audit => {
            site.describe(waybill_audit::routes(audit(runtime, stopping)).into_openapi())
        }
    }
}

fn audit(runtime: &Runtime, stopping: &CancellationToken) -> Audit {
    let event_store = runtime.event_store().clone();
    Audit { event_store, order_as_of: Arc::new(order_as_of), stopping: stopping.clone() }
}

/// Applies a service's migrations, and lets its role, if it has one, do what the service does.
pub(crate) async fn migrate(
    name: Name,
    runtime: &Runtime,
    role: Option<&Role>,
) -> Result<(), OpenError> {
    match name {
        Name::Order => runtime.migrate::<OrderService>(role).await?,
        Name::Inventory => runtime.migrate::<InventoryService>(role).await?,
        Name::Logistics => runtime.migrate::<LogisticsService>(role).await?,
        Name::User => runtime.migrate::<UserService>(role).await?,
        Name::Audit => {
            if let Some(reader) = role {
                runtime.event_store().admit(reader, false).await?;
            }
        }
    }
    Ok(())
}

/// Compares a service with what its outbox says; nothing to compare where it owns no tables.
pub(crate) async fn verify(
    name: Name,
    location: &Location,
    event_store: &mut EventStoreSnapshot,
    progress: OnProgress<'_>,
) -> Result<Option<Finding>, OpenError> {
    Ok(match name {
        Name::Order => Some(fold::verify::<OrderService>(location, event_store, progress).await?),
        Name::Inventory => {
            Some(fold::verify::<InventoryService>(location, event_store, progress).await?)
        }
        Name::Logistics => {
            Some(fold::verify::<LogisticsService>(location, event_store, progress).await?)
        }
        Name::User => Some(fold::verify::<UserService>(location, event_store, progress).await?),
        Name::Audit => None,
    })
}

/// Makes a service's tables anew; how many events that took, or nothing where it owns none.
pub(crate) async fn rebuild(
    name: Name,
    location: &Location,
    clock: &Clock,
    progress: OnProgress<'_>,
) -> Result<Option<i64>, OpenError> {
    Ok(match name {
        Name::Order => Some(fold::rebuild::<OrderService>(location, clock, progress).await?),
        Name::Inventory => {
            Some(fold::rebuild::<InventoryService>(location, clock, progress).await?)
        }
        Name::Logistics => {
            Some(fold::rebuild::<LogisticsService>(location, clock, progress).await?)
        }
        Name::User => Some(fold::rebuild::<UserService>(location, clock, progress).await?),
        Name::Audit => None,
    })
}

/// Restarts a service's consumer; whether it has one.
pub(crate) async fn rewind(
    name: Name,
    location: &Location,
    clock: &Clock,
) -> Result<bool, OpenError> {
    match name {
        Name::Order => fold::rewind::<OrderService>(location, clock).await?,
        Name::Inventory => fold::rewind::<InventoryService>(location, clock).await?,
        Name::Logistics => fold::rewind::<LogisticsService>(location, clock).await?,
        Name::User => fold::rewind::<UserService>(location, clock).await?,
        Name::Audit => return Ok(false),
    }
    Ok(true)
}

/// An order as it stands after these events of its own stream, as the order service shows it.
fn order_as_of(events: &[StoredEvent]) -> Result<Option<Box<RawValue>>, DecodeError> {
    let mut orders = Table::<Order>::default();
    for StoredEvent { envelope, .. } in events {
        let event = OrderEvent::decode(&envelope.kind, envelope.schema, &envelope.data)?;
        orders.evolve(&Recorded { id: envelope.id, time: envelope.time, event: &event });
    }
    let order = orders.present().first().map(|order| to_raw_value(&OrderView::from(*order)));
    let malformed = |cause| DecodeError::Malformed { kind: "order".to_owned(), cause };
    order.transpose().map_err(malformed)
}
