//! A stack under load while something happens to it, and the books in the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::disk::Disk;
use super::postgres::Postgres;
use super::tally;
use crate::load::{Load, each_exists_once};
use crate::support::{Kind, Options, PATIENCE, Stack, Store, World, until};

/// Clients of the load, each of which places one order after the other.
const CLIENTS: usize = 6;
/// How long each of them waits before its next order.
const PAUSE: Duration = Duration::from_millis(50);
/// How long services may take to handle what piled up, on a busy machine.
const CATCH_UP: Duration = Duration::from_mins(3);
/// Events that are handled in no time.
const FEW: i64 = 20;
/// The services that may put messages aside.
const SERVICES: [&str; 4] = ["order", "inventory", "logistics", "user"];

/// Orders under load are all completed, whatever happens meanwhile.
pub(super) struct Trial {
    pub(super) stack: Stack,
    pub(super) load: Load,
    pub(super) world: World,
    kind: Kind,
}

impl Trial {
    /// Everything on fresh data, under load.
    pub(super) async fn start(kind: Kind) -> Self {
        Self::of(Stack::start(kind).await, kind).await
    }

    /// This stack, which is new, under load.
    pub(super) async fn of(stack: Stack, kind: Kind) -> Self {
        let products = [(100, 1_000_000), (250, 1_000_000)];
        let world = World::make(&stack, &products, &[1_000_000_000; 4]).await;
        let load = Load::steady(&stack, &world, CLIENTS, PAUSE);
        Self { stack, load, world, kind }
    }

    /// Waits until so many more orders were answered.
    pub(super) async fn answers(&mut self, more: usize) {
        self.load.answered(self.load.answers() + more).await;
    }

    /// The load ends, and so does every order, well: nothing that was answered is lost or doubled,
    /// every piece and every cent is where the orders say, and tables, outboxes and the event store
    /// agree. Every order, by its id.
    pub(super) async fn ends_well(self) -> BTreeMap<String, Value> {
        let Self { stack, load, world, kind } = self;
        let answered = load.stop().await;
        stack.ready().await;
        catch_up(&stack).await;
        retry_what_was_put_aside(&stack, kind).await;
        let orders = world.balances(&stack).await;
        assert_eq!(orders.len(), answered.len(), "one order for each key");
        each_exists_once(&stack, &answered, &orders).await;
        let completed = orders.values().all(|order| order["status"] == "completed");
        assert!(completed, "there is enough for all");
        tally::count(kind, "orders answered, none lost, none doubled", answered.len());
        let letters = async |service: &str| {
            let letters = stack.all(&format!("/v1/ops/{service}/dead-letters")).await;
            assert!(letters.iter().all(|one| one["status"] == "handled"), "{letters:#?}");
        };
        for service in SERVICES {
            letters(service).await;
        }
        let mut stack = stack;
        stack.stop().await;
        let verified = stack.verify().await;
        assert_eq!(verified.code, Some(0), "{verified:?}");
        orders
    }
}

/// Waits until the services have handled what piled up while they were gone, most of it with the care
/// that follows an unclean end.
async fn catch_up(stack: &Stack) {
    until("the services catch up", CATCH_UP, async || {
        for service in SERVICES {
            for part in ["outbox", "consumers"] {
                let reply = stack.get(&format!("/v1/ops/{service}/{part}")).await.expect(200);
                let progress = reply.body["items"].get(0).unwrap_or(&reply.body);
                if progress["lag"].as_i64()? > FEW {
                    return None;
                }
            }
        }
        Some(())
    })
    .await;
    stack.quiet().await;
}

/// An event that was being handled each time when its process was killed, three times in a row, is
/// taken for the cause of that, and waits for an operator.
async fn retry_what_was_put_aside(stack: &Stack, kind: Kind) {
    for service in SERVICES {
        let path = format!("/v1/ops/{service}/dead-letters?status=parked");
        for letter in stack.all(&path).await {
            let id = letter["id"].as_str().expect("an id");
            let retry = format!("/v1/ops/{service}/dead-letters/{id}/retry");
            stack.post(&retry, &Value::Null).await.expect(200);
            tally::count(kind, "events that killed processes were parked and retried", 1);
        }
        until("what was put aside is handled", PATIENCE, async || {
            let letters = stack.all(&format!("/v1/ops/{service}/dead-letters")).await;
            letters.iter().all(|one| one["status"] == "handled").then_some(())
        })
        .await;
    }
}

/// Where a stack keeps its data: on a disk of its own, in files or with a server of its own. Fields
/// are dropped in their order.
pub(super) struct Place {
    pub(super) server: Option<Postgres>,
    pub(super) disk: Disk,
}

impl Place {
    pub(super) async fn of_megabytes(kind: Kind, size: u64) -> Self {
        let disk = Disk::of_megabytes(size);
        let server = match kind {
            Kind::Postgres => Some(Postgres::make(&disk.folder()).await),
            _ => None,
        };
        disk.sync();
        Self { server, disk }
    }

    fn data(&self) -> PathBuf {
        self.disk.folder().join("data")
    }

    pub(super) fn store(&self) -> Store {
        match &self.server {
            Some(server) => Store::At(server.url()),
            None => Store::Within(self.data()),
        }
    }

    /// A stack with these options on it.
    pub(super) async fn stack(&self, options: Options) -> Stack {
        Stack::on(self.store(), options).await
    }
}
