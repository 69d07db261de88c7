//! The databases as every run finds them: migrated, and empty.
//!
//! Making them takes longer than a run, so they are made once and copied.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use waybill_inventory::InventoryService;
use waybill_logistics::LogisticsService;
use waybill_order::OrderService;
use waybill_runtime::{Clock, EventStore, Ids, Location, Migrations, Service, Steps, Timestamp};
use waybill_user::UserService;

use crate::chance;

/// The file of the event store.
pub(crate) const EVENT_STORE: &str = "event_store.db";
/// When every run begins, in microseconds since 1970-01-01 UTC.
pub(crate) const BEGINNING: Timestamp = Timestamp(1_800_000_000_000_000);

const FILES: [&str; 5] = [EVENT_STORE, "order.db", "inventory.db", "logistics.db", "user.db"];

/// Empty databases to copy.
#[derive(Debug)]
pub struct Template(TempDir);

impl Template {
    /// Makes them.
    pub async fn make() -> anyhow::Result<Self> {
        let folder = memory_folder()?;
        let location = Location::Folder(folder.path().to_owned());
        let (clock, _) = Clock::manual(BEGINNING);
        let ids = chance::ids(0);
        let store = EventStore::open(&location, clock.clone(), &ids, Migrations::Apply).await?;
        let settings = waybill_order::Settings { deadline: std::time::Duration::ZERO };
        open::<OrderService>(&location, &store, settings, &clock, &ids).await?;
        open::<InventoryService>(&location, &store, (), &clock, &ids).await?;
        let settings = waybill_logistics::Settings::default();
        open::<LogisticsService>(&location, &store, settings, &clock, &ids).await?;
        open::<UserService>(&location, &store, (), &clock, &ids).await?;
        store.close().await;
        Ok(Self(folder))
    }

    /// A folder with a copy of them.
    pub(crate) fn copy(&self) -> anyhow::Result<TempDir> {
        let folder = memory_folder()?;
        for file in FILES {
            std::fs::copy(self.0.path().join(file), folder.path().join(file))?;
        }
        Ok(folder)
    }
}

async fn open<S: Service>(
    location: &Location,
    store: &EventStore,
    settings: S::Settings,
    clock: &Clock,
    ids: &Ids,
) -> anyhow::Result<()> {
    let (clock, ids) = (clock.clone(), ids.clone());
    Steps::<S>::open(location, store.clone(), settings, clock, ids).await?.close().await;
    Ok(())
}

/// A folder in memory where the system has a file system for that: the SQL and the files are those
/// of production, and a sync costs nothing.
fn memory_folder() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { PathBuf::from(memory) } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("waybill-sim-").tempdir_in(parent)
}
